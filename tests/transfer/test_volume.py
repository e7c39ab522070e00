"""Very many pictures: the answers of a few, in one table, from wherever work was broken off."""

import csv
import dataclasses
import functools
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from safelight import datasets, executors, file_lists
from safelight.images import _FORMAT_NAMES
from safelight.runs import Run
from safelight.sources import Files
from safelight.transfer import backbones, bulk, models, volume
from safelight.transfer.bulk import BulkPredictor, Chunk
from safelight.transfer.config import TrainConfig
from safelight.transfer.familiarity import fit_familiarity
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.features import FeatureLayer
from safelight.transfer.prediction import predict_features, predict_probabilities
from safelight.transfer.request import Request
from safelight.transfer.volume import answer_files

pytestmark = pytest.mark.usefixtures("eager")

CONFIG = TrainConfig(
    image_size=16, head_layers=("block3_add/avg", "block4_pool/max"), precision="float32"
)
SMALL = dataclasses.replace(CONFIG, head_layers=("block1_conv/avg",), test_views=1)
HEAD = [FeatureLayer("block3_add", "avg"), FeatureLayer("block4_pool", "max")]
CLASSES = ["=dots", "plain"]
NUM_FILES = 70


@pytest.fixture
def classifier(network):
    model = models.average_views(models.build_classifier(network, HEAD, 2), (0, 4))
    rng = np.random.default_rng(0)
    model.get_layer(models.LOGITS).set_weights([rng.normal(size=(14, 2)), rng.normal(size=2)])
    return model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    """Two batches and a bit, of three sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:02d}.png" for number in range(NUM_FILES)]
    for number, path in enumerate(paths):
        side = (16, 20, 33)[number % 3]
        Image.fromarray(rng.integers(0, 256, (side, 24, 3), np.uint8)).save(path)
    return paths


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of a batch, so that a few pictures are several."""
    for module in (file_lists, volume):
        monkeypatch.setattr(module, "BLOCK", 32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with a classifier so small that it is loaded in no time."""
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = backbones.ImageResizing(16, 16, name="resizing")(images)
    x = keras.layers.Conv2D(6, 3, activation="relu", name="block1_conv")(x)
    network = keras.Model(images, x, name="smallest")
    model = models.build_classifier(network, [FeatureLayer("block1_conv", "avg")], 2)
    rng = np.random.default_rng(0)
    model.get_layer(models.LOGITS).set_weights([rng.normal(size=(6, 2)) / 50, np.zeros(2)])
    made = Run.create(tmp_path_factory.mktemp("runs") / "run")
    data = {"name": "shapes", "class_names": CLASSES}
    made.write_config({"kind": "transfer", "dataset": data, "settings": dataclasses.asdict(SMALL)})
    model.save(made.model_path)
    made.write_metrics({})
    return made.path


@pytest.fixture
def run(trained, tmp_path) -> Run:
    return Run.open(shutil.copytree(trained, tmp_path / "run"))


def as_dataset(paths) -> datasets.ImageDataset:
    names = tuple(map(str, paths))
    return datasets.ImageDataset(
        name="files", class_names=("a", "b"), labels=np.zeros(len(paths), np.int64),
        digests=tuple(hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names),
        files=names, source=Files(tuple(paths), names),
    )  # fmt: skip


CUTS = {
    "the head alone": {},
    "fine-tuned, lower stages in the head": {"unfreeze_from": "block4_pool"},
    "nothing frozen": {"unfreeze_from": "all"},
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.mark.parametrize("options", CUTS.values(), ids=CUTS)
def test_answers_are_those_of_the_cache_to_the_last_bit(classifier, pictures, cache, options):
    config = dataclasses.replace(CONFIG, **options)
    dataset = as_dataset(pictures)
    expected = predict_probabilities(classifier, dataset, config=config, cache=cache)
    predictor = BulkPredictor(classifier, config)
    halves = [Chunk(0, dataset.files[:64]), Chunk(1, dataset.files[64:])]
    found = list(predictor.answer(halves))
    # PyTorch's sums may come in another order, by where an array lies in memory.
    inexact = {"rtol": 1e-5 if keras.backend.backend() == "torch" else 0.0}
    answers = np.concatenate([f.probabilities for f in found])
    np.testing.assert_allclose(answers, expected, **inexact)
    assert [f.number for f in found] == [0, 1]
    assert tuple(found[0].names + found[1].names) == dataset.files


@pytest.mark.parametrize("options", [{}, {"unfreeze_from": "block4"}], ids=["head", "tuned"])
def test_familiarity_is_that_of_the_cache(classifier, pictures, cache, options):
    config = dataclasses.replace(CONFIG, **options)
    dataset = as_dataset(pictures)
    features = predict_features(classifier, dataset, config=config, cache=cache)
    known = fit_familiarity(features[:30], widths=models.head_widths(classifier))
    predictor = BulkPredictor(classifier, config, familiarity=known)
    (found,) = predictor.answer([Chunk(0, dataset.files)])
    np.testing.assert_array_equal(found.p_values, known.p_values(features))
    assert len(set(found.p_values)) > 5


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_table_has_what_is_sound_and_a_list_has_the_rest(run, pictures, tmp_path, cache):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in pictures[:5]:
        (folder / path.name).symlink_to(path)
    (folder / "01a.png").write_bytes(b"no picture")
    (folder / "z.png").touch()
    seen = []
    request = Request(tmp_path / "out.csv", [folder, tmp_path / "nowhere.png"])
    found = answer_files(run, request, report=lambda *now: seen.append(now))
    rows = read(request.output)
    assert [row["file"] for row in rows] == [str(folder / path.name) for path in pictures[:5]]
    expected = predict_probabilities(
        volume.load_classifier(run), as_dataset(pictures[:5]), config=SMALL, cache=cache
    )
    # Six files of the folder were one batch, of which one was bad: the last bits may differ.
    for row, (first, second) in zip(rows, expected, strict=True):
        assert list(row) == ["file", "prediction", "probability", "p(=dots)", "p(plain)"]
        assert float(row["p(=dots)"]) == pytest.approx(first, abs=1e-5)
        assert float(row["probability"]) == pytest.approx(max(first, second), abs=1e-5)
        assert row["prediction"] == ("'=dots" if first > second else "plain")
    assert read(request.problems) == [
        {"file": str(folder / "01a.png"), "reason": f"not a picture ({_FORMAT_NAMES})"},
        {"file": str(folder / "z.png"), "reason": "empty file"},
        {"file": str(tmp_path / "nowhere.png"), "reason": "no such file"},
    ]  # fmt: skip
    assert {k: found[k] for k in ("num_files", "num_answered", "num_problems")} == {
        "num_files": 8, "num_answered": 5, "num_problems": 3,
    }  # fmt: skip
    assert not request.parts.exists()
    assert seen == [("predicting", 0, 8, ""), ("predicting", 8, 8, "")]


class StoppedError(Exception):
    pass


def stop_at(number: int, stage: str, done: int, total: int, words: str) -> None:
    if done >= number:
        raise StoppedError


@pytest.mark.usefixtures("small_chunks")
def test_what_was_broken_off_goes_on_to_the_same_table(run, pictures, tmp_path):
    spoilt = [*pictures[:40], tmp_path / "nowhere.png", *pictures[40:]]
    whole, broken = (Request(tmp_path / f"{name}.csv", spoilt) for name in ("whole", "broken"))
    assert answer_files(run, whole)["num_computed"] == 71
    for number in (32, 64):
        with pytest.raises(StoppedError):
            answer_files(run, broken, report=functools.partial(stop_at, number))
        assert not broken.output.exists()
        # What a kill leaves of a file that was being written.
        (broken.parts / ".part-000002.1234.partial.csv").write_bytes(b"half")
    found = answer_files(run, broken)
    assert (found["num_computed"], found["num_answered"]) == (71 - 64, 70)
    assert broken.output.read_bytes() == whole.output.read_bytes()
    assert broken.problems.read_bytes() == whole.problems.read_bytes()
    assert not broken.parts.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from safelight import file_lists
from safelight.runs import Run
from safelight.transfer import volume
from safelight.transfer.request import Request

def kill(stage, done, total, words):
    if done >= 32:
        os.kill(os.getpid(), signal.SIGKILL)

file_lists.BLOCK = volume.BLOCK = 32
run, output, *pictures = map(Path, sys.argv[1:])
volume.answer_files(Run.open(run), Request(output, pictures), report=kill)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
def test_what_was_killed_goes_on_to_the_same_table(run, pictures, tmp_path):
    broken, whole = (Request(tmp_path / f"{name}.csv", pictures) for name in ("broken", "whole"))
    command = [sys.executable, "-c", KILLED, run.path, broken.output, *pictures]
    child = subprocess.run(list(map(str, command)), check=False)
    assert child.returncode == -signal.SIGKILL
    assert answer_files(run, broken)["num_computed"] == NUM_FILES - 32
    answer_files(run, whole)
    # The killed process compiled what this one runs step by step: the last digits may differ.
    for found, expected in zip(read(broken.output), read(whole.output), strict=True):
        assert found["file"] == expected["file"]
        assert float(found["p(plain)"]) == pytest.approx(float(expected["p(plain)"]), abs=1e-5)


@pytest.fixture
def begun(run, pictures, tmp_path, small_chunks) -> Request:
    """A job of which one chunk is done."""
    request = Request(tmp_path / "out.csv", pictures)
    with pytest.raises(StoppedError):
        answer_files(run, request, report=functools.partial(stop_at, 32))
    return request


def change_model(run: Run, request: Request) -> Request:
    model = volume.load_classifier(run)
    models.cool(model, 2.0)
    model.save(run.model_path)
    return request


def change_settings(run: Run, request: Request) -> Request:
    config = {**run.config, "settings": {**run.config["settings"], "seed": 1}}
    run.write_config(config)
    return request


OTHERS = {
    "the number of files, the list of files": lambda run, request: dataclasses.replace(
        request, pictures=request.pictures[1:]
    ),
    "the list of files": lambda run, request: dataclasses.replace(
        request, pictures=request.pictures[::-1]
    ),
    "the model": change_model,
    "its settings": change_settings,
}


@pytest.mark.parametrize(("what", "change"), OTHERS.items(), ids=OTHERS)
def test_another_question_is_refused_until_it_may_begin_anew(run, begun, what, change):
    before = sorted(begun.parts.iterdir())
    other = change(run, begun)
    with pytest.raises(
        ValueError, match=rf"another question \(what is other: {what}\).*--overwrite"
    ):
        answer_files(run, other)
    assert sorted(begun.parts.iterdir()) == before
    found = answer_files(run, dataclasses.replace(other, overwrite=True))
    assert found["num_computed"] == found["num_files"]


def test_the_same_question_goes_on_even_where_it_may_overwrite(run, begun):
    found = answer_files(run, dataclasses.replace(begun, overwrite=True))
    assert found["num_computed"] == NUM_FILES - 32


def test_two_at_once_are_one_too_many(run, begun):
    with FileLock(begun.parts / "lock"), pytest.raises(ValueError, match="another process"):
        answer_files(run, begun)
    assert answer_files(run, begun)["num_answered"] == NUM_FILES


def test_a_table_that_another_process_has_finished_meanwhile_is_left_alone(run, begun, monkeypatch):
    """It was not there when this process looked first, and its work was."""
    load = volume.load_classifier

    def finish_elsewhere(run):
        (begun.parts / "job.json").unlink()
        begun.output.write_text("theirs")
        return load(run)

    monkeypatch.setattr(volume, "load_classifier", finish_elsewhere)
    with pytest.raises(ValueError, match="is there; replace it with --overwrite"):
        answer_files(run, begun)
    assert begun.output.read_text() == "theirs"
    assert not begun.parts.exists()


def test_a_name_that_no_file_can_have_is_a_row_among_the_problems(run, pictures, tmp_path):
    names = [str(pictures[0]), "a\0.png", "\ud800.png"]
    listed = tmp_path / "names.txt"
    listed.write_text("".join(f"{json.dumps(name)}\n" for name in names))
    request = Request(tmp_path / "out.csv", listed=str(listed))
    found = answer_files(run, request)
    assert (found["num_answered"], found["num_problems"]) == (1, 2)
    assert (
        request.problems.read_text(encoding="utf-8").count("is no name that a file can have") == 2
    )


def test_a_folder_of_others_is_left_alone(run, pictures, tmp_path):
    request = Request(tmp_path / "out.csv", pictures)
    request.parts.mkdir()
    (request.parts / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"thesis\.tex, which is not ours"):
        answer_files(run, request)
    assert [path.name for path in request.parts.iterdir()] == ["thesis.tex"]


def test_no_picture_leaves_no_trace(run, tmp_path):
    (tmp_path / "empty").mkdir()
    request = Request(tmp_path / "out.csv", [tmp_path / "empty"])
    with pytest.raises(ValueError, match="no picture is named"):
        answer_files(run, request)
    assert not request.parts.exists()


REFUSED = {
    "nothing": (lambda folder: Request(folder / "a.csv"), "no picture is named"),
    "a list that is not there": (
        lambda folder: Request(folder / "a.csv", listed="nowhere"), "nowhere is no file"
    ),
    "another ending": (lambda folder: Request(folder / "a.txt", ["x"]), r"\.csv or \.parquet"),
    "no folder": (lambda folder: Request(folder / "b" / "a.csv", ["x"]), "there is no folder"),
    "a folder": (lambda folder: Request(folder / "d.csv", ["x"], overwrite=True), "is a folder"),
    "a table": (lambda folder: Request(folder / "old.csv", ["x"]), "--overwrite"),
    "a list of bad files": (lambda folder: Request(folder / "b.csv", ["x"]), "--overwrite"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_anything_is_loaded(tmp_path, make, message):
    (tmp_path / "d.csv").mkdir()
    (tmp_path / "old.csv").touch()
    (tmp_path / "b.problems.csv").touch()
    with pytest.raises(ValueError, match=message):
        make(tmp_path).check()


def test_an_older_table_gives_way_only_when_the_new_one_is_whole(run, pictures, tmp_path):
    request = Request(tmp_path / "out.csv", pictures[:3], overwrite=True)
    request.output.write_text("old")
    request.problems.write_text("old")
    with pytest.raises(StoppedError):
        answer_files(run, request, report=functools.partial(stop_at, 3))
    assert request.output.read_text() == "old"
    answer_files(run, request)
    assert len(read(request.output)) == 3
    assert not request.problems.exists()


def test_odd_names_and_relative_ones_are_found_again(run, pictures, tmp_path, monkeypatch):
    names = ["=1+1.png", "two\nlines.png", "ü.png", os.fsdecode(b"\xff.png"), "sub/x.png"]
    (tmp_path / "sub").mkdir()
    for name, path in zip(names, pictures, strict=False):
        (tmp_path / name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    request = Request(tmp_path / "out.csv", [Path(name) for name in names])
    assert answer_files(run, request)["num_problems"] == 0
    expected = ["./=1+1.png", "two\nlines.png", "ü.png", "\\udcff.png", "sub/x.png"]
    assert [row["file"] for row in read(request.output)] == expected


class Elsewhere:
    """Does the last task first, with what was packed to be sent."""

    def run(self, work, tasks):
        do = pickle.loads(pickle.dumps(work)).begin()
        for task in reversed(list(tasks)):
            yield pickle.loads(pickle.dumps(next(do([pickle.loads(pickle.dumps(task))]))))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_computed_elsewhere_is_the_same(run, pictures, tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    here, there = (Request(tmp_path / f"{name}.{kind}", pictures) for name in ("here", "there"))
    answer_files(run, here)
    with executors.using(Elsewhere()):
        found = answer_files(run, there)
    assert there.output.read_bytes() == here.output.read_bytes()
    assert found["num_computed"] == NUM_FILES
    assert "alone" not in found


def test_numbers_in_a_parquet_table_are_the_answers(run, pictures, tmp_path, cache):
    parquet = pytest.importorskip("pyarrow.parquet")
    request = Request(tmp_path / "out.parquet", pictures)
    answer_files(run, request)
    expected = predict_probabilities(
        volume.load_classifier(run), as_dataset(pictures), config=SMALL, cache=cache
    )
    table = parquet.read_table(request.output).to_pydict()
    np.testing.assert_array_equal(np.stack([table[f"p({c})"] for c in CLASSES], 1), expected)
    assert table["prediction"] == [CLASSES[i] for i in expected.argmax(1)]


def test_no_more_is_decoded_than_a_few_batches_ahead(classifier, pictures, monkeypatch):
    begun, answered = [], []

    def read_one(path, size):
        begun.append(path)
        return np.zeros((16, 16, 3), "float32")

    monkeypatch.setattr(bulk, "_read", read_one)
    predictor = BulkPredictor(classifier, CONFIG)
    chunks = (Chunk(number, [str(path) for path in pictures[:32]]) for number in range(9))
    for found in predictor.answer(chunks):
        answered += found.names
        assert len(begun) <= len(answered) + 32 * (bulk._AHEAD + 2)
    assert len(answered) == 9 * 32


def test_limits_are_rates(classifier, pictures):
    predictor = BulkPredictor(classifier, CONFIG)
    found = predictor.measure_limits(Chunk(0, [str(path) for path in pictures]))
    assert set(found) == {"decoding", "computing"}
    assert min(found.values()) > 0
    assert predictor.measure_limits(Chunk(0, ["nowhere.png"])) == {}


# --- the command


def test_the_command_answers_refuses_and_lists(run, pictures, tmp_path, call):
    classifier = volume.load_classifier(run)
    features = predict_features(
        classifier, as_dataset(pictures), config=SMALL, cache=FeatureCache(tmp_path / "c")
    )
    known = fit_familiarity(features[:30], widths=models.head_widths(classifier))
    (run.path / "familiarity.npz").write_bytes(known.to_bytes())
    (tmp_path / "list").write_text("\n".join([*map(str, pictures[30:]), "nowhere.png"]))
    output = tmp_path / "out.csv"
    command = ("transfer", "predict", run.path, "--list", tmp_path / "list", "--output", output)
    code, out, err = call(*command, "--refuse", 0.2)
    assert (code, err) == (1, "")
    assert "40 answered, 1 could not be read" in out
    rows = read(output)
    expected = known.p_values(features[30:])
    np.testing.assert_allclose([float(row["familiarity"]) for row in rows], expected, atol=1e-6)
    assert [row["refused"] == "true" for row in rows] == (expected <= 0.2).tolist()
    assert {row["prediction"] for row in rows if row["refused"] == "true"} == {""}
    assert call(*command, early=True)[0] == 2
    code, out, _ = call(*command, "--overwrite", "--json")
    assert code == 1
    assert '"num_answered": 40' in out


WRONG = {
    "--list without a table": (["x.png", "--list", "x"], "--output TABLE"),
    "a cluster without a table": (["x.png", "--executor", "ray"], "--output TABLE"),
    "workers without a cluster": (["x.png", "--workers", 4], "--executor ray"),
    "nothing": ([], "no picture is named"),
    "both kinds": (["x.png", "--output", "a.csv", "--explain", "d"], "expected one of them"),
    "workers here": (["x.png", "--output", "a.csv", "--workers", "2"], "--executor ray"),
    "an address here": (["x.png", "--output", "a.csv", "--address", "auto"], "--executor ray"),
    "nothing to overwrite": (["x.png", "--overwrite"], "--explain DIR or --output TABLE"),
}


@pytest.mark.parametrize(("flags", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_go_together_is_a_sentence(run, call, flags, message):
    code, _, err = call("transfer", "predict", run.path, *flags, early=True)
    assert code == 2
    assert message in err.replace("\n", " ")
