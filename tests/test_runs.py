import getpass
import json
import math
import os
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

import safelight.runs as runs_module
from safelight import report
from safelight.environment import describe_environment
from safelight.metrics import Interval
from safelight.runs import Run, atomic_path, list_runs, to_json

METRICS = {"accuracy": Interval(0.86, 0.83, 0.89), "num_test": 656, "seconds": {"head": 1.5}}


def finish(path, **config):
    run = Run.create(path)
    run.write_config({"kind": "transfer", "dataset": {"name": "elpv"}, **config})
    run.write_metrics(METRICS)
    return run


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_reads_back_what_was_written(tmp_path):
    run = finish(tmp_path / "deep" / "er" / "run", views=4)
    run.write_history({"loss": [0.5, math.nan], "val_loss": np.float32([0.25, 0.125])})
    run.write_predictions({"file": ['a,"b".jpg', "=1+1\n.png", "日本.png"], "label": [0, 1, 2]})
    run.write_environment()
    run = Run.open(run.path)
    assert run.name == "run"
    assert run.config["kind"] == "transfer"
    assert run.config["views"] == 4
    assert run.config["created"].endswith("+00:00")
    assert run.metrics["accuracy"] == {"value": 0.86, "low": 0.83, "high": 0.89}
    assert run.history["loss"][0] == 0.5
    assert math.isnan(run.history["loss"][1])
    assert run.history["val_loss"] == [0.25, 0.125]
    assert run.predictions["file"] == ['a,"b".jpg', "=1+1\n.png", "日本.png"]
    assert run.environment["packages"]["numpy"] == np.__version__


def test_a_run_is_finished_when_its_metrics_are_there(tmp_path):
    run = Run.create(tmp_path / "run")
    run.write_config({"kind": "transfer"})
    assert not run.finished
    with pytest.raises(ValueError, match="did not get that far"):
        _ = run.metrics
    run.write_metrics({})
    assert run.finished


@pytest.mark.parametrize(
    "leave", ["metrics.json", "model.keras", "checkpoint.npz", "rate_distortion.csv"]
)
def test_nothing_that_cost_work_is_replaced_unasked(tmp_path, leave):
    run = Run.create(tmp_path / "run")
    (run.path / leave).write_text("{}")
    before = snapshot(run.path)
    with pytest.raises(ValueError, match=r"another --output.*--overwrite"):
        Run.create(run.path)
    assert snapshot(run.path) == before
    assert not Run.create(run.path, overwrite=True).finished


@pytest.mark.parametrize("kept", ["checkpoint.npz", "rate_distortion.csv"])
def test_what_it_keeps_lets_an_unfinished_run_pass_for_who_resumes_it(tmp_path, kept):
    run = Run.create(tmp_path / "run")
    assert not run.begun
    run.path.joinpath(kept).touch()
    assert run.begun
    Run.check(run.path, resume=True)
    run.write_metrics(METRICS)
    assert not run.begun
    with pytest.raises(ValueError, match="holds a finished run"):
        Run.check(run.path, resume=True)


def test_overwrite_removes_the_files_of_a_run_and_no_other(tmp_path):
    run = finish(tmp_path / "run")
    run.write_history({"loss": [1]})
    run.write_predictions({"file": ["a"]})
    run.write_predictions({"file": ["a", "b"]}, folds=True)
    assert (run.path / "predictions_folds.csv").read_text() == "file\na\nb\n"
    assert run.predictions["file"] == ["a"]
    run.write_environment()
    run.write_data_page("# The pictures of elpv\n")
    run.model_path.write_bytes(b"weights")
    for name in ("checkpoint.npz", "history_kl.npy"):
        (run.path / name).touch()
    run.picture_path("history").write_bytes(b"png")
    run.picture_path("film").with_suffix(".gif").write_bytes(b"gif")
    for name in ("model.keras", "pictures/film.gif"):
        stem, _, suffix = name.rpartition(".")
        left = run.path / f"{stem}.{'0' * 32}.partial.{suffix}"
        left.with_name(f".{left.name}").write_bytes(b"left by a kill")
    (run.path / "notes.txt").write_text("mine")
    (run.path / "pictures" / "sketch.svg").write_text("mine")
    Run.create(run.path, overwrite=True)
    assert set(snapshot(run.path)) == {
        Path(".lock"), Path("config.json"), Path("notes.txt"), Path("pictures/sketch.svg"),
    }  # fmt: skip


def test_overwrite_takes_a_card_of_the_older_run_along_and_keeps_one_that_was_changed(tmp_path):
    """Beside the new model it would tell numbers of the one before."""
    run = finish(tmp_path / "run")
    card, _ = report.write_model_card(run.path)
    Run.create(run.path, overwrite=True)
    assert not card.exists()
    finish(run.path)
    report.write_model_card(run.path)
    card.write_text(mine := card.read_text("utf-8").replace("## Limits", "## Limits\n\n- Mine."))
    Run.create(run.path, overwrite=True)
    assert card.read_text() == mine


def test_overwrite_does_not_follow_a_link_to_pictures_of_others(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "wedding.png").write_bytes(b"dear")
    run = finish(tmp_path / "run")
    (run.path / "pictures").symlink_to(tmp_path / "photos")
    Run.create(run.path, overwrite=True)
    assert (tmp_path / "photos" / "wedding.png").exists()


def test_an_unfinished_run_without_model_starts_anew(tmp_path):
    Run.create(tmp_path / "run").write_history({"loss": [1]})
    run = Run.create(tmp_path / "run")
    assert not (run.path / "history.csv").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["thesis.tex", "config.json", "metrics.json"])
def test_foreign_folders_are_left_alone(tmp_path, overwrite, name):
    (tmp_path / name).write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="not a run"):
        Run.create(tmp_path, overwrite=overwrite)
    assert snapshot(tmp_path) == {Path(name): b'{"model_type": "bert"}'}
    with pytest.raises(ValueError, match="not a run"):
        Run.open(tmp_path)


def test_an_empty_folder_and_one_with_hidden_files_will_do(tmp_path):
    (tmp_path / ".gitkeep").touch()
    Run.create(tmp_path)
    assert (tmp_path / ".gitkeep").exists()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is in the way"):
        Run.create(tmp_path / "file", overwrite=True)
    with pytest.raises(ValueError, match="cannot be written"):
        Run.create(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="is a file"):
        Run.open(tmp_path / "file")
    with pytest.raises(ValueError, match="does not exist"):
        Run.open(tmp_path / "nothing")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ValueError, match=r"Permission denied.*--output"):
        Run.create(tmp_path / "run")


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path, monkeypatch):
    run = finish(tmp_path / "run")
    before = snapshot(run.path)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        run.write_metrics({"accuracy": 1})
    assert snapshot(run.path) == before


def test_a_reader_never_sees_half_a_file(tmp_path):
    run = finish(tmp_path / "run")
    stop, seen = threading.Event(), []

    def read():
        while not stop.is_set():
            seen.append(len(run.metrics["numbers"]) if "numbers" in run.metrics else None)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        run.write_metrics({"numbers": list(range(5_000))})
    stop.set()
    reader.join()
    assert set(seen) <= {None, 5_000}
    assert seen


def test_atomic_path_keeps_the_ending_and_moves_only_what_is_whole(tmp_path):
    with atomic_path(tmp_path / "model.keras") as partial:
        assert partial.suffix == ".keras"
        partial.write_bytes(b"weights")
        assert not (tmp_path / "model.keras").exists()
    assert snapshot(tmp_path) == {Path("model.keras"): b"weights"}


def test_atomic_path_leaves_nothing_of_what_was_cut_off(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"weights")

    def write():
        with atomic_path(tmp_path / "model.keras") as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert snapshot(tmp_path) == {Path("model.keras"): b"weights"}


def test_json_is_strict_sorted_and_readable():
    value = {
        "z": math.nan, "a": [np.float32(0.5), np.int64(3), -math.inf, np.bool_(True)],
        "ü": Interval(1, math.nan, 1), "array": np.eye(2), 1: Path("a/b"), "none": None,
    }  # fmt: skip
    text = to_json(value)
    assert "ü" in text
    assert text.endswith("}\n")
    loaded = json.loads(text, parse_constant=pytest.fail)
    assert loaded == {
        "z": None, "a": [0.5, 3, None, True], "ü": {"value": 1, "low": None, "high": 1},
        "array": [[1, 0], [0, 1]], "1": "a/b", "none": None,
    }  # fmt: skip
    assert list(loaded) == sorted(loaded)
    assert to_json(dict(reversed(value.items()))) == text
    with pytest.raises(ValueError, match="set cannot be written"):
        to_json({"x": {1, 2}})


def test_names_that_are_no_unicode_are_spelt_out(tmp_path):
    run = finish(tmp_path / "run")
    run.write_predictions({"file": [os.fsdecode(b"caf\xe9.jpg")]})
    assert run.predictions["file"] == ["caf\\udce9.jpg"]


def test_what_is_no_run_data_is_refused(tmp_path):
    run = Run.create(tmp_path / "run")
    with pytest.raises(ValueError, match="add 'kind'"):
        run.write_config({"views": 4})
    with pytest.raises(ValueError, match="differ in length"):
        run.write_history({"loss": [1, 2], "accuracy": [1]})
    for name in ("../x", "", ".hidden", "a/b", "a\\b"):
        with pytest.raises(ValueError, match="plain file name"):
            run.picture_path(name)


def test_pictures_are_listed(tmp_path):
    run = finish(tmp_path / "run")
    assert run.pictures == ()
    for name in ("mistakes", "history"):
        run.picture_path(name).write_bytes(b"png")
    (run.path / "pictures" / ".x.partial.png").write_bytes(b"")
    assert [path.name for path in run.pictures] == ["history.png", "mistakes.png"]


def test_list_runs_names_what_it_finds_and_what_is_damaged(tmp_path):
    finish(tmp_path / "a")
    finish(tmp_path / "nested" / "b", dataset="my cells")
    Run.create(tmp_path / "cut off").write_config({"kind": "transfer"})
    broken = finish(tmp_path / "broken")
    (broken.path / "metrics.json").write_text('{"accuracy": ')
    headless = finish(tmp_path / "headless")
    headless.write_history({"loss": [1]})
    (headless.path / "config.json").unlink()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"model_type": "bert"}')
    found = {summary.path.name: summary for summary in list_runs(tmp_path)}
    assert set(found) == {"a", "b", "cut off", "broken", "headless"}
    assert found["a"].metrics == {"accuracy": METRICS["accuracy"]}
    assert (found["a"].kind, found["a"].dataset, found["a"].finished) == ("transfer", "elpv", True)
    assert found["b"].dataset == "my cells"
    assert not found["cut off"].finished
    assert "metrics.json" in found["broken"].problem
    assert "config.json" in found["headless"].problem
    assert {name for name, summary in found.items() if summary.problem} == {"broken", "headless"}
    with pytest.raises(ValueError, match="no such folder"):
        list_runs(tmp_path / "nothing")


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"a": NaN}', "[" * 100_000, '{"a": {"value": "x", "low": 1, "high": 1}}'],
)
def test_damaged_metrics_never_stop_the_list(tmp_path, text):
    run = finish(tmp_path / "run")
    (run.path / "metrics.json").write_text(text)
    (summary,) = list_runs(tmp_path)
    assert "metrics.json" in summary.problem


def test_damaged_tables_are_named(tmp_path):
    run = finish(tmp_path / "run")
    (run.path / "history.csv").write_text("loss,accuracy\n1\n")
    with pytest.raises(ValueError, match=r"history\.csv"):
        _ = run.history
    (run.path / "history.csv").write_text("loss\n__import__('os')\n")
    with pytest.raises(ValueError, match="damaged"):
        _ = run.history
    run.write_history({"loss": []})
    assert run.history == {"loss": []}


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_the_environment_names_what_the_backend_computes_on(monkeypatch, platform):
    device = types.SimpleNamespace(platform=platform, device_kind="Some Card")
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(devices=lambda: [device]))
    config = types.SimpleNamespace(backend=lambda: "jax")
    monkeypatch.setitem(sys.modules, "keras", types.SimpleNamespace(config=config))
    wanted = None if platform == "cpu" else "Some Card"
    assert describe_environment()["accelerator"] == wanted


def test_the_environment_names_versions_and_nobody():
    environment = describe_environment()
    text = json.dumps(environment)
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["cores"] >= 1
    assert set(environment["bfloat16"]) == {"amx_bf16", "avx512_bf16"}
    assert str(Path.home()) + os.sep not in text
    assert str(Path(runs_module.__file__).parents[2]) not in text
    for name in (socket.gethostname(), getpass.getuser()):
        assert len(name) < 5 or name not in text


def test_the_commit_is_that_of_the_checkout():
    root = Path(runs_module.__file__).parents[2]
    commit = describe_environment()["commit"]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert commit.removesuffix("-dirty") == head
    else:
        assert commit is None
