"""The command line on a stranger's folders: it reads them or says why not, and never more."""

import importlib
import os

import numpy as np

from safelight.runs import Run

commands = importlib.import_module("security.commands")
verdicts = importlib.import_module("security.verdicts")
NUM_CASES = 30


def test_no_folder_of_a_stranger_gives_a_traceback(tmp_path, monkeypatch):
    wrong = {}
    for number in range(NUM_CASES):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.setenv("SAFELIGHT_HOME", str(folder))
        rng = np.random.default_rng([number, 7])
        words, found = commands.judge_command(number, folder, rng)
        if found.kind in verdicts.WRONG and found.kind != "slow":  # other tests run beside it
            wrong[number] = (words, found)
    assert wrong == {}


OBEYED = "\x1b[2J \x1b]0;mine\x07 \x9b31m \u202e \r \x08 \u2028"


def test_a_terminal_obeys_no_name(call, tmp_path):
    name = f"a{OBEYED}b"
    run = Run.create(tmp_path / name / "run")
    run.write_config({"kind": name, "dataset": {"name": name, "class_names": [name]}})
    run.write_metrics({"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}})
    known = [
        ("runs", "list", tmp_path / name), ("runs", "show", run.path),
        ("runs", "show", tmp_path / name), ("vae", "sample", run.path),
        ("report", run.path), ("transfer", "predict", run.path, tmp_path / name),
        ("transfer", "train", tmp_path / name, "--output", tmp_path / "x"),
        ("export", run.path, "--web", tmp_path / name), ("transfer", "compare", run.path, run.path),
    ]  # fmt: skip
    for arguments in known:
        _, out, err = call(*arguments, early=True)
        assert all(line.isprintable() for line in (out + err).split("\n")), arguments


def test_a_pipe_in_the_place_of_a_run_or_a_picture_does_not_hang(call, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    run = Run.create(tmp_path / "run")
    (run.path / "metrics.json").unlink(missing_ok=True)
    os.mkfifo(run.path / "metrics.json")
    for arguments in (
        ("runs", "list", tmp_path), ("runs", "show", tmp_path / "pipe"), ("runs", "show", run.path),
        ("report", run.path), ("transfer", "predict", tmp_path / "pipe", tmp_path / "pipe"),
    ):  # fmt: skip
        code, _, err = call(*arguments, early=True)
        assert code in (0, 2)
        assert "Traceback" not in err
