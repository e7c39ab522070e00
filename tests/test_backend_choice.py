"""The backend that is taken where nobody chose one: never against a choice, and the fastest."""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from safelight import backend_choice
from safelight.backend_choice import NAMES, SPEEDS, choose_backend, kind_of_work, name_faster
from safelight.cli import console
from safelight.runs import Run
from safelight.vae.config import CHOICES

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
MEASURED = RESULTS / (
    "backends_speed__intel-r-xeon-r-processor-family-6-amx-2-cores__keras-3.15.1-tensorflow"
    "__3rounds.json"
)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A process that has not loaded Keras, in a home without its file; all that is installed."""

    def install(*names, gpu=False):
        monkeypatch.setattr(backend_choice, "_is_installed", lambda name: name in names)
        monkeypatch.setattr(backend_choice, "_has_gpu", lambda: gpu)

    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    install(*NAMES)
    return install


def chosen():
    return os.environ["KERAS_BACKEND"]


def test_keras_own_default_stays_where_it_is_the_fastest(fresh):
    for work in SPEEDS:
        os.environ["KERAS_BACKEND"] = ""
        assert choose_backend(work, training=True) is None
        assert chosen() == "tensorflow"


@pytest.mark.parametrize("work", SPEEDS)
def test_of_those_installed_the_fastest_is_taken_and_told(fresh, work):
    names = ("torch", "jax")
    fresh(*names)
    said = choose_backend(work)
    best = max(names, key=SPEEDS[work].__getitem__)
    assert chosen() == best
    assert said == (
        f"computing with {NAMES[best]}: TensorFlow is not installed; KERAS_BACKEND chooses another"
    )


def test_one_backend_alone_is_enough(fresh):
    fresh("jax")
    said = choose_backend("convolutions")
    assert said == "computing with JAX: TensorFlow and PyTorch are not installed"
    assert chosen() == "jax"


def test_without_any_the_error_is_keras_own(fresh):
    fresh()
    assert choose_backend() is None


def test_a_gpu_is_taken_for_trainings_alone(fresh):
    fresh(*NAMES, gpu=True)
    assert choose_backend("dense") is None
    os.environ["KERAS_BACKEND"] = ""
    assert "GPU" in choose_backend("dense", training=True)
    assert chosen() == "jax"


@pytest.mark.parametrize("file", [None, {"backend": "torch"}])
def test_a_choice_is_never_overruled(fresh, monkeypatch, tmp_path, file):
    fresh("jax", gpu=True)
    if file:
        (tmp_path / "keras.json").write_text(json.dumps(file))
    else:
        monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    before = chosen()
    assert choose_backend("dense", training=True) is None
    assert chosen() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"backend": "tensorflow"}', "\udce4"])
def test_kerass_own_file_is_no_choice_and_a_damaged_one_no_error(fresh, tmp_path, text):
    (tmp_path / "keras.json").write_text(text, errors="surrogateescape")
    fresh("jax")
    assert choose_backend() is not None


def test_a_loaded_keras_stays(fresh, monkeypatch):
    fresh("jax")
    monkeypatch.setitem(sys.modules, "keras", object())
    assert choose_backend() is None


def test_a_slow_choice_is_told_on_a_processor(fresh):
    assert "28 times as fast as JAX" in name_faster("jax", "convolutions", accelerator=None)
    assert "KERAS_BACKEND=tensorflow" in name_faster("torch", "dense", accelerator=None)
    for backend, work in (("tensorflow", "dense"), ("jax", "dense"), ("torch", "convolutions")):
        assert name_faster(backend, work, accelerator=None) is None
    assert name_faster("jax", "convolutions", accelerator="NVIDIA H200") is None
    fresh("jax", "torch")
    assert "KERAS_BACKEND=torch" in name_faster("jax", "convolutions", accelerator=None)
    fresh("torch")
    assert name_faster("torch", "dense", accelerator=None) is None


def test_the_speeds_are_those_that_were_measured():
    work = json.loads(MEASURED.read_text())["work"]
    for kind, row in (("dense", "dense_vae"), ("convolutions", "conv_vae")):
        rates = {name: work[row][name]["median"] for name in NAMES}
        for name, speed in SPEEDS[kind].items():
            assert speed == pytest.approx(rates[name] / rates["tensorflow"], rel=0.02)
        assert list(SPEEDS[kind]) == sorted(rates, key=rates.get, reverse=True)


def test_what_goes_on_keeps_its_backend_if_it_is_there(fresh):
    fresh(*NAMES, gpu=True)
    assert choose_backend("dense", training=True, before="tensorflow") is None
    assert chosen() == "tensorflow"
    os.environ["KERAS_BACKEND"] = ""
    assert "it began this training" in choose_backend("dense", training=True, before="torch")
    assert chosen() == "torch"
    for before in ("theano", None, ["jax"]):
        fresh("torch")
        os.environ["KERAS_BACKEND"] = ""
        assert "not installed" in choose_backend("dense", training=True, before=before)


def test_several_devices_need_jax(fresh):
    assert "devices" in choose_backend("convolutions", training=True, devices=2)
    assert chosen() == "jax"
    fresh("torch")
    os.environ["KERAS_BACKEND"] = ""
    choose_backend("convolutions", training=True, devices=2)
    assert chosen() == "torch"


def test_architectures_are_of_one_kind_or_the_other():
    kinds = {name: kind_of_work(name) for name in CHOICES["architecture"]}
    assert kinds["dense"] == kinds["residual"] == "dense"
    assert kinds["conv"] == kinds["resnet"] == kind_of_work("dcgan") == "convolutions"
    assert set(kinds.values()) == set(SPEEDS)


@pytest.fixture
def package(monkeypatch, tmp_path):
    """Makes packages on an otherwise empty path."""

    def make(name):
        folder = tmp_path.joinpath(*name.split("."))
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()

    for name in ("jax_plugins", "jax"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return make


def test_a_folder_of_a_backends_name_is_no_backend(package, tmp_path):
    (tmp_path / "jax").mkdir()
    assert not backend_choice._is_installed("jax")
    (tmp_path / "jax").rmdir()
    package("jax")
    sys.path_importer_cache.clear()
    assert backend_choice._is_installed("jax")


@pytest.mark.parametrize("driver", ["xla_cuda12", "xla_rocm7"])
def test_a_gpu_needs_its_driver_and_jaxs_part(package, monkeypatch, tmp_path, driver):
    devices = {"xla_cuda": tmp_path / "nvidiactl", "xla_rocm": tmp_path / "kfd"}
    hiding = {"xla_cuda": "CUDA_VISIBLE_DEVICES", "xla_rocm": "ROCR_VISIBLE_DEVICES"}
    gpus = {name: ((str(path),), (hiding[name],)) for name, path in devices.items()}
    monkeypatch.setattr(backend_choice, "_GPUS", gpus)
    for name in (*hiding.values(), "JAX_PLATFORMS"):
        monkeypatch.delenv(name, raising=False)
    for path in devices.values():
        path.touch()
    assert not backend_choice._has_gpu()
    package(f"jax_plugins.{driver}")
    sys.path_importer_cache.clear()
    assert backend_choice._has_gpu()
    mine = next(name for name in devices if driver.startswith(name))
    for name, value, there in (
        (hiding[mine], "", False),
        (hiding[mine], "-1", False),
        (hiding[mine], "1", True),
        ("JAX_PLATFORMS", "cpu", False),
        ("JAX_PLATFORMS", "cuda,cpu", True),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert backend_choice._has_gpu() is there, (name, value)
    devices[mine].unlink()  # that of the other maker is no help
    assert not backend_choice._has_gpu()


@pytest.fixture
def told(monkeypatch):
    """What commands ask `start_keras` for; none of them comes further."""
    asked = []

    def start(*args, **named):
        asked.append((*args, named))
        raise ValueError("far enough")

    monkeypatch.setattr(console, "start_keras", start)
    return asked


def test_trainings_ask_for_what_suits_them_and_go_on_as_they_began(call, told, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(80):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype="uint8")
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    output = tmp_path / "run"
    begun = Run.create(tmp_path / "begun")
    begun.write_config({"kind": "vae"})
    (begun.path / "checkpoint.npz").touch()
    (begun.path / "environment.json").write_text('{"backend": "torch"}')
    for words, work, before, devices in (
        (("vae", "train"), "dense", None, 1),
        (("vae", "train", "--devices", 2), "dense", None, 2),
        (("vae", "train", "--architecture", "conv"), "convolutions", None, 1),
        (("vae", "train", "--output", begun.path), "dense", "torch", 1),
        (("vae", "train", "--output", begun.path, "--overwrite"), "dense", None, 1),
        (("vae", "rate-distortion", "--architecture", "residual"), "dense", None, 1),
        (("gan", "train"), "convolutions", None, 1),
        (("gan", "train", "--output", begun.path), "convolutions", "torch", 1),
    ):
        place = () if "--output" in words else ("--output", output)
        code, _, err = call(*words[:2], tmp_path / "photos", *words[2:], *place)
        assert (code, "far enough" in err) == (2, True), err
        named = {"training": True, "before": before, "devices": devices}
        assert told.pop() == (work, named), words


def test_processes_that_share_a_training_meet_before_anything_is_computed(monkeypatch):
    """JAX refuses to join them afterwards."""
    asked = []
    monkeypatch.setattr(keras.ops, "zeros", asked.append)
    monkeypatch.setattr(keras.ops, "convert_to_numpy", asked.append)
    monkeypatch.setattr(console, "find_accelerator", lambda: asked.append("accelerator"))
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    console.start_keras("dense", training=True, devices=2)
    assert asked == []
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "1")
    console.start_keras("dense", training=True)
    assert "accelerator" in asked
    assert 1 in asked


def test_both_sentences_are_said(monkeypatch):
    said = []
    monkeypatch.setattr(console, "remark", said.append)
    monkeypatch.setattr(backend_choice, "choose_backend", lambda *_, **__: "chosen")
    monkeypatch.setattr(backend_choice, "name_faster", lambda *_, **__: "faster")
    console.start_keras()
    assert said == ["chosen"]
    console.start_keras(training=True, devices=2)
    console.start_keras(training=True)
    assert said == ["chosen", "chosen", "chosen", "faster"]
