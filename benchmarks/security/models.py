"""Models and weights of a stranger: sound ones, and what reads them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from security import mutations as change
from security.mutations import Bytes

Files = Mapping[str, bytes]


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _h5(**arrays: np.ndarray) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return buffer.getvalue()


def model_parts() -> Files:
    layer = {
        "module": "keras.layers", "class_name": "Dense", "registered_name": None,
        "config": {"name": "d", "units": 3, "activation": "tanh"},
    }  # fmt: skip
    config = {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "s", "layers": [layer]},
    }  # fmt: skip
    weights = {"layers__dense__vars__0": np.ones((4, 3), "float32")}
    members = [
        ("metadata.json", b'{"keras_version": "3.15.1"}'),
        ("config.json", json.dumps(config).encode()),
        ("model.weights.h5", _h5(**weights, layers__dense__vars__1=np.zeros(3, "float32"))),
    ]
    return {"model.keras": change.pack(members)}


def check(folder: Path) -> None:
    from safelight.model_files import check_model

    check_model(folder / "model.keras")


def saved_model() -> Files:
    import tempfile

    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh", name="d")])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return {"model.keras": path.read_bytes()}


def load(folder: Path) -> None:
    from safelight.model_files import load_model

    load_model(folder / "model.keras")


def _change_member(rng: np.random.Generator, name: bytes) -> bytes:
    return (change.change_json if name[:1] == b"{" else change.change_bytes)(rng, name)


CHANGES: Mapping[str, Bytes] = {".keras": change.change_archive(_change_member)}


def weight_files() -> Files:
    import h5py
    import onnx

    array, bias = np.ones((3, 3, 3, 4), "float32"), np.zeros(4, "float32")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = np.array([b"conv"])
        group = file.create_group("conv")
        group.attrs["weight_names"] = np.array([b"conv_W_1:0", b"conv_b_1:0"])
        group["conv_W_1:0"], group["conv_b_1:0"] = array, bias
    tensors = [
        onnx.numpy_helper.from_array(
            each.transpose(3, 2, 0, 1).copy() if each.ndim == 4 else each, name
        )
        for name, each in (("conv/kernel", array), ("conv/bias", bias))
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    return {
        "w.h5": buffer.getvalue(),
        "w.onnx": model.SerializeToString(),
        "w.npz": npz(**{"conv/kernel": array, "conv/bias": bias}),
    }


def read_weights(folder: Path) -> None:
    from safelight import weight_files

    names = {"kernel": "{layer}/kernel", "bias": "{layer}/bias"}
    readers: tuple[Callable[[], object], ...] = (
        lambda: weight_files.read_h5(folder / "w.h5"),
        lambda: weight_files.read_onnx(folder / "w.onnx", ["conv"], names),
        lambda: weight_files.read_npz(folder / "w.npz"),
    )
    read_all(readers)


def read_all(readers: Iterable[Callable[[], object]]) -> None:
    """Calls each, whatever becomes of the others; raises the last refusal."""
    refused = None
    for read in readers:
        try:
            read()
        except ValueError as error:
            refused = error
    if refused is not None:
        raise refused


# --- runs of a GAN


def gan_run() -> Files:
    """A run folder with its model, a table and a picture, as a training leaves it."""
    import tempfile

    from safelight.datasets import ImageDataset
    from safelight.gan import TrainConfig, experiment
    from safelight.generative import pictures
    from safelight.generative.scores import Features

    images = np.random.default_rng(6).integers(0, 256, (80, 8, 8, 1), dtype=np.uint8)
    dataset = ImageDataset.from_arrays(
        images,
        np.zeros(len(images), int),
        class_names=["cloud"],
        name="clouds",
        near_duplicates=False,
    )
    parts = pictures.load_parts(dataset, pictures.split(dataset, seed=0, test_fraction=0.4))
    config = TrainConfig(latent_dim=2, filters=(3,), batch_size=8, epochs=1, precision="float32")
    features = Features(_pixels, "some pixels")
    with tempfile.TemporaryDirectory() as folder:
        run = experiment.open_run(Path(folder) / "run", parts, config)
        experiment.run_training(run, parts, config, features=features, report=lambda *_: None)
        return {
            f"run/{path.relative_to(run.path).as_posix()}": path.read_bytes()
            for path in run.path.rglob("*")
            if path.suffix in (".json", ".csv", ".keras")
        }


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.asarray(images, "float64").reshape(len(images), -1)[:, ::16]


def read_gan_run(folder: Path) -> None:
    """Its numbers, its settings, its pages, and what it draws."""
    from safelight.cli.data import damage
    from safelight.explorer.export import describe
    from safelight.explorer.onnx_graph import decoder_graph
    from safelight.explorer.subjects import find_subject
    from safelight.gan import experiment
    from safelight.report import write_report
    from safelight.runs import Run

    run = Run.open(folder / "run")

    def show() -> None:
        with damage(run.path):  # as `safelight export --web` has it
            subject = find_subject(run)
            describe(subject, None)
            decoder_graph(subject.network)

    readers: tuple[Callable[[], object], ...] = (
        lambda: (run.config, run.metrics, run.history),
        lambda: experiment.settings_of(run),
        lambda: write_report([run.path]),
        lambda: write_report([run.path, run.path], folder / "both.html"),
        lambda: experiment.load_gan(run).generate(2),
        show,
    )
    read_all(readers)
