"""Models and weights of a stranger that would do more than hold numbers."""

import base64
import io
import json
import marshal
import zipfile

import h5py
import numpy as np
import pytest

from safelight import weight_files
from safelight.model_files import check_config, check_model


def dense(**changes):
    return {
        "module": "keras.layers", "class_name": "Dense", "registered_name": None,
        "config": {"units": 3}, **changes,
    }  # fmt: skip


def sequential(*layers):
    return {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "s", "layers": list(layers)},
    }  # fmt: skip


def weights(fill=lambda file: None):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"] = np.ones((4, 3), "float32")
        fill(file)
    return buffer.getvalue()


def write_model(path, config=None, *, inside=None, more=(), kind=zipfile.ZIP_STORED):
    members = {
        "metadata.json": b"{}",
        "config.json": json.dumps(config or sequential(dense())).encode(),
        "model.weights.h5": inside or weights(),
        **dict(more),
    }
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# --- models


def code(path):
    """A function that would leave a file behind, as Keras wraps it."""
    compiled = compile(f"open({str(path)!r}, 'w')", "x", "exec")
    text = base64.b64encode(marshal.dumps(compiled)).decode()
    return {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}}


DANGEROUS = {
    "a lambda": lambda path: dense(class_name="Lambda", config={"function": code(path)}),
    "a lambda as an activation": lambda path: dense(config={"units": 3, "activation": code(path)}),
    "a function of Keras' own": lambda path: dense(
        class_name="Lambda",
        config={
            "function": {
                "class_name": "function",
                "module": "keras.utils",
                "config": "plot_model",
                "registered_name": "plot_model",
            },
            "arguments": {"to_file": str(path)},
        },
    ),
    "a function of the system": lambda path: dense(
        config={
            "units": 3,
            "activation": {
                "class_name": "function",
                "module": "os",
                "config": "system",
                "registered_name": "system",
            },
        }
    ),
    "a class of the system": lambda path: dense(module="subprocess", class_name="Popen"),
    "a graph elsewhere": lambda path: dense(class_name="TFSMLayer", config={"filepath": str(path)}),
    "its inner name": lambda path: dense(
        module="keras.src.export.tfsm_layer", class_name="TFSMLayer", config={}
    ),
    "a pickled module": lambda path: dense(class_name="TorchModuleWrapper", config={"module": "x"}),
    "a list of words": lambda path: dense(
        class_name="StringLookup", config={"vocabulary": "/etc/passwd"}
    ),
    "a name that hides": lambda path: dense(class_name="Lambda", registered_name="safelight>VAE"),
    "somebody's own class": lambda path: dense(module="x", registered_name="x>Y"),
    "a program of other packages": lambda path: dense(module="keras_hub.models", class_name="Y"),
    "no name": lambda path: dense(class_name=["Dense"]),
}


@pytest.mark.parametrize("name", DANGEROUS)
def test_a_model_that_holds_more_than_layers_is_not_let_in(tmp_path, name):
    trace = tmp_path / "trace"
    layer = DANGEROUS[name](trace)
    for config in (sequential(layer), sequential(sequential(dense(), layer))):
        path = write_model(tmp_path / "model.keras", config)
        with pytest.raises(ValueError, match=r"model\.keras cannot be read as a Keras model: it "):
            check_model(path)
    assert not trace.exists()


def test_layers_of_keras_and_of_ours_are_let_in(tmp_path):
    own = dense(module="safelight.vae.models", class_name="VAE", registered_name="safelight>VAE")
    inner = dense(module="keras.src.models.functional", class_name="Functional")
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [None, 4], "dtype": "float32"}}
    activation = {"class_name": "function", "module": "builtins", "config": "relu"}
    check_config(sequential(own, inner, dense(config={"a": [tensor], "activation": activation})))
    check_model(write_model(tmp_path / "model.keras"))


def link(file):
    file["layers/link"] = h5py.ExternalLink("/etc/passwd", "/x")


def outside(file):
    file.create_dataset("outside", (8,), "u1", external=[("/etc/passwd", 0, 8)])


def virtual(file):
    layout = h5py.VirtualLayout((4, 3), "float32")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 3))
    file.create_virtual_dataset("virtual", layout)


def huge(file):
    file.create_dataset("huge", (10**6, 10**6), "float32", chunks=(100, 100), compression="gzip")


def soft(file):
    file["soft"] = h5py.SoftLink("/layers/dense/vars/0")


def circle(file):
    file["layers/circle"] = file["layers"]


def texts(file):
    file["texts"] = ["a", "b"]


def heap(file):
    """Text of variable length lies in a heap whose sizes HDF5 believes."""
    file["layers/more"] = np.zeros(3, "float32")
    file["layers/more"].attrs["dtype"] = "bfloat16"


@pytest.mark.parametrize("fill", [link, outside, virtual, huge, soft, circle, texts, heap])
def test_weights_lie_in_their_file_and_are_no_larger(tmp_path, fill):
    path = write_model(tmp_path / "model.keras", inside=weights(fill))
    with pytest.raises(ValueError, match=r"model\.keras cannot be read .*: its model\.weights\.h5"):
        check_model(path)


def test_names_of_layers_lie_in_no_heap_of_their_file(tmp_path):
    for names, known in ((np.array([b"conv"]), True), (["conv"], False)):
        with h5py.File(tmp_path / "w.h5", "w") as file:
            file.attrs["layer_names"] = names
            file.create_group("conv").attrs["weight_names"] = np.array([b"W", b"b"])
            file["conv/W"], file["conv/b"] = np.ones((1, 1, 2, 3)), np.ones(3)
        if known:
            assert list(weight_files.read_h5(tmp_path / "w.h5")) == ["conv/kernel", "conv/bias"]
        else:
            with pytest.raises(ValueError, match="'layer_names' is neither numbers nor text of a"):
                weight_files.read_h5(tmp_path / "w.h5")


@pytest.mark.parametrize("more", ["../outside", "/outside", "assets/words.txt", "x.py"])
def test_nothing_else_is_in_a_model(tmp_path, more):
    path = write_model(tmp_path / "model.keras", more={more: b"x"}.items())
    with pytest.raises(ValueError, match="is missing, or too many"):
        check_model(path)


def test_a_model_does_not_unfold(tmp_path):
    path = write_model(
        tmp_path / "model.keras",
        inside=bytes(30_000_000),
        kind=zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="compressed, which Keras does not do"):
        check_model(path)
