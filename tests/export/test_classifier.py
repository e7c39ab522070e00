"""Every format answers as the original, on real files of many sizes, and says so."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from safelight import datasets
from safelight.export import classifier as exporting
from safelight.export import export_classifier, open_exported
from safelight.export.formats import FORMATS
from safelight.export.parity import Parity, check_parity
from safelight.images import read_image
from safelight.runs import Run
from safelight.transfer import experiment, prediction

pytestmark = pytest.mark.filterwarnings("ignore")
HERE = [
    row for row in FORMATS.values()
    if keras.backend.backend() in row.backends and not row.missing()
]  # fmt: skip


def names(rows):
    return [row.name for row in rows]


needs_onnx = pytest.mark.skipif("onnx" not in names(HERE), reason="tf2onnx is not installed")
needs_tensorflow = pytest.mark.skipif("saved_model" not in names(HERE), reason="not on TensorFlow")


@pytest.fixture(scope="module")
def exported(run, dataset, tmp_path_factory):
    """Each format once."""
    made = {}

    def export(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "model"
            made[name] = folder, export_classifier(run.path, folder, dataset=dataset, to=name)
        return made[name]

    return export


@pytest.mark.parametrize("name", names(row for row in HERE if not row.int8))
def test_it_answers_as_the_original_whatever_the_size_and_the_batch(exported, run, name):
    folder, found = exported(name)
    assert found.agreement == 1
    assert found.largest_difference < 1e-4
    assert found.num_images == 23  # a quarter of 90: those not learned from
    original, model = experiment.load_classifier(run), open_exported(folder, name)
    for shape in ((1, 24, 24, 3), (3, 61, 40, 3), (2, 9, 130, 3)):
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_allclose(
            model(images), original.predict(images, verbose=0), atol=1e-4, err_msg=str(shape)
        )


@pytest.mark.parametrize("name", names(HERE))
def test_what_it_is_stands_beside_it(exported, dataset, name):
    folder, found = exported(name)
    said = json.loads((folder / "safelight-model.json").read_text("utf-8"))
    assert said["class_names"] == list(dataset.class_names)
    assert (folder / said["file"]).exists()
    assert said["parity"]["largest_difference"] == pytest.approx(found.largest_difference)
    assert said["precision"] == ("int8" if name == "onnx-int8" else "float32")
    assert said["fingerprint"] == dataset.fingerprint


@needs_onnx
def test_eight_bits_are_smaller_and_their_cost_is_told(exported):
    folder, found = exported("onnx-int8")
    assert "DequantizeLinear" not in kinds(exported("onnx")[0])
    assert "DequantizeLinear" in kinds(folder)
    graph = onnx.load(folder / "model.onnx").graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    for node in graph.node:  # the head, which compares distances, stays as it was
        if node.op_type in ("MatMul", "Gemm"):
            assert "DequantizeLinear" not in [made_by.get(name) for name in node.input]
    assert 0 < found.largest_difference < 0.3
    change = found.accuracy_change
    assert change.low <= change.value <= change.high


def kinds(folder):
    return {node.op_type for node in onnx.load(folder / "model.onnx").graph.node}


@needs_onnx
def test_its_own_script_reads_odd_pictures_as_safelight_does_and_needs_it_not(
    exported, dataset, run, tmp_path
):
    folder, _ = exported("onnx")
    files = odd_pictures(tmp_path, dataset)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    blocked = tmp_path / "blocked"
    for name in ("keras", "safelight", "tensorflow", "onnx"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [sys.executable, folder / "predict.py", *files, broken],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(blocked)}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "broken.png: not a picture" in done.stderr
    assert "Traceback" not in done.stderr
    expected = prediction.predict(experiment.load_classifier(run), map(read_image, files))
    lines = [
        f"{file}  {dataset.class_names[row.argmax()]}  {row.max():.1%}"
        for file, row in zip(files, expected, strict=True)
    ]
    assert done.stdout.splitlines() == lines


def odd_pictures(folder, dataset):
    """Plain, transparent, 16-bit grey, of another size, turned by EXIF."""
    plain = Image.fromarray(dataset.read(0))
    alpha = plain.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(plain.size))
    grey = Image.fromarray(dataset.read(1)[..., 0].astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    plain.save(folder / "plain.png")
    alpha.save(folder / "alpha.png")
    grey.save(folder / "grey.png")
    plain.resize((91, 53)).save(folder / "turned.jpg", exif=turned)
    return sorted(folder.glob("*.[jp]*g"))


@needs_onnx
def test_names_are_inside_an_onnx_file_too(exported, dataset):
    model = onnx.load(exported("onnx")[0] / "model.onnx")
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == ["images"]
    assert [value.name for value in model.graph.output] == ["probabilities"]
    kept = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(kept["class_names"]) == list(dataset.class_names)


@needs_tensorflow
def test_a_model_that_answers_otherwise_is_not_written(run, dataset, tmp_path, monkeypatch):
    real = exporting.open_exported
    monkeypatch.setattr(
        exporting, "open_exported", lambda *where: lambda images: real(*where)(images)[:, ::-1]
    )
    with pytest.raises(ValueError, match="differ from the original's by up to"):
        export_classifier(run.path, tmp_path / "model", dataset=None, to="saved_model")
    assert list(tmp_path.iterdir()) == []


@needs_tensorflow
def test_an_export_that_fails_leaves_the_older_one(run, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    assert export_classifier(run.path, folder, dataset=None, to="saved_model") is None
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    def fail(*_, **__):
        raise RuntimeError("no word for Erf")

    monkeypatch.setattr(exporting, "write_model", fail)
    with pytest.raises(ValueError, match=r"cannot say this network.*no word for Erf"):
        export_classifier(run.path, folder, dataset=None, to="litert", overwrite=True)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert list(tmp_path.iterdir()) == [folder]


@needs_tensorflow
def test_folders_of_others_are_kept(run, dataset, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.tex, which no export wrote"):
        export_classifier(run.path, folder, dataset=None, to="saved_model", overwrite=True)
    assert (folder / "thesis.tex").read_text() == "years of work"
    (folder / "thesis.tex").unlink()
    for _ in range(2):  # the second finds nothing but what the first wrote
        export_classifier(run.path, folder, dataset=None, to="saved_model", overwrite=True)
    (folder / "saved_model" / "assets" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"saved_model/assets/thesis\.tex, which no export wrote"):
        export_classifier(run.path, folder, dataset=None, to="saved_model", overwrite=True)


@needs_onnx
def test_eight_bits_that_are_no_numbers_are_not_written(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(
        exporting, "open_exported", lambda *_: lambda images: np.full((len(images), 3), np.nan)
    )
    with pytest.raises(ValueError, match="by up to nan"):
        export_classifier(run.path, tmp_path / "m", dataset=dataset, to="onnx-int8", num_pictures=0)
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_eight_bits_need_pictures(run, tmp_path):
    with pytest.raises(ValueError, match="scaled on: pass the data set"):
        export_classifier(run.path, tmp_path / "other", dataset=None, to="onnx-int8")


def test_the_change_of_accuracy_is_paired():
    labels = np.array([0, 0, 1, 1])
    expected = np.eye(2)[[0, 0, 1, 0]]
    found = np.eye(2)[[0, 1, 1, 1]] * 0.8 + 0.1
    both = Parity(expected, found, labels)
    assert both.agreement == 0.5
    assert both.largest_difference == pytest.approx(0.9)
    with pytest.raises(ValueError, match=r"by up to 9\.0e-01, and 50\.0% get the same"):
        check_parity(both, "here")
    with pytest.raises(ValueError, match="by up to nan"):
        check_parity(Parity(expected, expected * np.nan), "here")
    assert (both.accuracy, both.accuracy_change.value) == (0.75, 0.0)


def test_runs_of_another_kind_are_told(tmp_path, call):
    other = Run.create(tmp_path / "run")
    other.write_config({"kind": "vae"})
    other.model_path.write_bytes(b"")
    arguments = ("export", other.path, "--format", "onnx", "--output", tmp_path / "model")
    code, _, err = call(*arguments, early=True)
    assert code == 2
    assert "'vae'" in err
    assert "--web" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "either --web DIR, or --format"),
        (["--web", "a", "--format", "onnx"], "either --web DIR, or --format"),
        (["--format", "onnx"], "--output DIR with it"),
        (["--web", "a", "--output", "b"], "go with --format"),
        (["--format", "onnx", "--output", "b"], "name the folder of these pictures after RUN"),
    ],
)
def test_wrong_flags_are_a_sentence(call, run, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("export", run.path, *arguments, early=True)
    assert code == 2
    assert expected in err
    assert "Traceback" not in err


@needs_tensorflow
def test_the_command_compares_on_what_was_not_learned_from(call, dataset, make_run, run, tmp_path):
    pictures = tmp_path / "pictures"
    for number in range(len(dataset)):
        name = dataset.class_names[dataset.labels[number]]
        (pictures / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.read(number)).save(pictures / name / f"{number:03}.png")
    made = make_run(
        tmp_path / "run", datasets.from_directory(pictures), experiment.load_classifier(run)
    )
    arguments = ("export", made.path, pictures, "--format", "saved_model")
    code, out, err = call(*arguments, "--output", tmp_path / "model")
    assert code == 0, err
    assert "100.0% of 23 unseen pictures" in out  # a quarter of 90
    assert "apart" in out


def test_pictures_to_compare_on_are_spread_over_what_was_not_learned_from(run, dataset):
    some, unseen = exporting.choose_pictures(run, dataset, 5), experiment.unseen_part(run, dataset)
    places = [unseen[0].digests.index(digest) for digest in some.digests]
    assert places == [0, 5, 11, 16, 22]
    digests = run.config["split"]["digests"]
    assert len(some) == 5
    assert {digest[:16] for digest in some.digests} <= set(digests["test"])
    assert len(exporting.choose_pictures(run, dataset, 500)) == 23
