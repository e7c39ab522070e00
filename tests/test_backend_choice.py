"""The backend that is taken where nobody chose one: never against a choice, and the fastest."""

import json
import sys
from pathlib import Path

import pytest

from safelight import backend_choice
from safelight.backend_choice import NAMES, SPEEDS, choose_backend, name_faster

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


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
    return backend_choice.os.environ["KERAS_BACKEND"]


def test_keras_own_default_stays_where_it_is_the_fastest(fresh):
    for work in SPEEDS:
        assert choose_backend(work, training=True) is None
        assert chosen() == ""


@pytest.mark.parametrize("work", SPEEDS)
def test_of_those_installed_the_fastest_is_taken_and_told(fresh, work):
    names = ("torch", "jax")
    fresh(*names)
    said = choose_backend(work)
    best = max(names, key=SPEEDS[work].__getitem__)
    assert chosen() == best
    assert said.startswith(f"computing with {NAMES[best]}: TensorFlow is not installed;")


def test_one_backend_alone_is_enough(fresh):
    fresh("jax")
    assert "TensorFlow and PyTorch are not installed" in choose_backend("convolutions")
    assert chosen() == "jax"


def test_without_any_the_error_is_keras_own(fresh):
    fresh()
    assert choose_backend() is None


def test_a_gpu_is_taken_for_trainings_alone(fresh):
    fresh(*NAMES, gpu=True)
    assert choose_backend("dense") is None
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
    (path,) = RESULTS.glob("backends_speed__*.json")
    work = json.loads(path.read_text())["work"]
    for kind, row in (("dense", "dense_vae"), ("convolutions", "conv_vae")):
        rates = {name: work[row][name]["median"] for name in NAMES}
        for name, speed in SPEEDS[kind].items():
            assert speed == pytest.approx(rates[name] / rates["tensorflow"], rel=0.02)
        assert list(SPEEDS[kind]) == sorted(rates, key=rates.get, reverse=True)


def test_a_gpu_needs_its_driver_and_jaxs_part(monkeypatch, tmp_path):
    (tmp_path / "jax_plugins" / "xla_cuda12").mkdir(parents=True)
    (tmp_path / "jax_plugins" / "xla_cuda12" / "__init__.py").touch()
    device = tmp_path / "nvidiactl"
    monkeypatch.setattr(backend_choice, "_GPUS", (str(device),))
    monkeypatch.delitem(sys.modules, "jax_plugins", raising=False)
    device.touch()
    monkeypatch.setattr(sys, "path", [])
    assert not backend_choice._has_gpu()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert backend_choice._has_gpu()
    device.unlink()
    assert not backend_choice._has_gpu()
