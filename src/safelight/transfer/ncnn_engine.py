"""A frozen trunk in ncnn: convolutions of 3 x 3 by Winograd's algorithm, in float32.

Winograd's minimal filtering computes a tile of outputs with 2.25 (4 x 4 tiles) to 5 (8 x 8) times
fewer products, at float32's own accuracy for VGG's sizes: the activations differ from Keras' by
some 1e-6 of their largest. TensorFlow's convolutions on a CPU multiply directly, with oneDNN or
without. One image runs on one thread, so what comes out does not depend on its neighbours in the
batch.

References: Lavin and Gray 2016, arXiv:1509.09308; ncnn, https://github.com/Tencent/ncnn.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from safelight.transfer import backbones

_MAGIC = 7767517
_FLOAT32 = np.zeros(1, "<u4")  # the tag in front of an array of float32 weights


def is_installed() -> bool:
    """Whether the package is there; it is not loaded."""
    return importlib.util.find_spec("ncnn") is not None


def translates(layers: Iterable[keras.layers.Layer]) -> bool:
    """Whether all of the layers can be said in ncnn's terms."""
    return all(_find_row(layer) is not None for layer in layers)


def version() -> str:
    """What the activations depend on: the package's name and version."""
    import importlib.metadata

    return f"ncnn {importlib.metadata.version('ncnn')}"


class NcnnTrunk:
    """A Keras model without branches that join, computed by ncnn.

    Args:
        model: From resized pixels, or from activations, to one or more layers' outputs; see
            `translates`. Its weights are copied.

    Raises:
        ValueError: A layer that cannot be translated.
    """

    def __init__(self, model: keras.Model) -> None:
        import ncnn

        self._preprocessing = _find_preprocessing(model)
        self._outputs = [f"out_{name}" for name in model.output_names]
        text, weights = _translate(model)
        self._net = ncnn.Net()
        self._net.opt.num_threads = 1
        self._net.opt.use_vulkan_compute = False
        for name in ("packed", "storage", "arithmetic"):
            setattr(self._net.opt, f"use_fp16_{name}", False)
        with tempfile.TemporaryDirectory() as folder:
            param, binary = Path(folder) / "trunk.param", Path(folder) / "trunk.bin"
            param.write_text(text, encoding="ascii")
            binary.write_bytes(weights)
            if self._net.load_param(str(param)) or self._net.load_model(str(binary)):
                raise ValueError(f"ncnn cannot read the translation of {model.name}.")
        self._threads = ThreadPoolExecutor(num_threads())

    def __call__(self, inputs: np.ndarray) -> list[np.ndarray]:
        """The outputs for `(batch, height, width, channels)`, float32, channels last."""
        if self._preprocessing is not None:
            inputs = keras.ops.convert_to_numpy(self._preprocessing(inputs))
        planes = np.ascontiguousarray(np.moveaxis(inputs, -1, 1), "float32")
        rows = list(self._threads.map(self._run, planes))
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def _run(self, planes: np.ndarray) -> list[np.ndarray]:
        import ncnn

        extractor = self._net.create_extractor()
        extractor.input("input", ncnn.Mat(planes))
        found = []
        for name in self._outputs:
            code, blob = extractor.extract(name)
            if code:
                raise MemoryError(f"ncnn could not compute {name} (code {code}).")
            array = np.array(blob)
            found.append(np.moveaxis(array, 0, -1) if array.ndim == 3 else array)
        return found


def num_threads() -> int:
    """One for each processor that this process may use, unless SAFELIGHT_NUM_THREADS says less."""
    wanted = os.environ.get("SAFELIGHT_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _find_preprocessing(model: keras.Model) -> keras.layers.Layer | None:
    kinds = backbones.ImageNetPreprocessing
    return next((layer for layer in model.layers if isinstance(layer, kinds)), None)


def _translate(model: keras.Model) -> tuple[str, bytes]:
    """The network as ncnn's two files say it: a line per layer, and the weights in that order."""
    graph = backbones.parents(model)
    lines, weights = ["Input input 0 1 input"], []
    blobs = {name: "input" for name, above in graph.items() if not above}
    for layer in model.layers:
        row = _find_row(layer)
        if row is None:
            raise ValueError(f"{layer.name} ({type(layer).__name__}) has no translation to ncnn.")
        if not graph[layer.name]:
            continue
        source, kind = blobs[graph[layer.name][0]], row(layer)
        if kind is None:
            blobs[layer.name] = source
            continue
        blobs[layer.name] = layer.name
        lines.append(f"{kind[0]} {layer.name} 1 1 {source} {layer.name} {kind[1]}".rstrip())
        weights += kind[2]
    ends = [f"Noop out_{n} 1 1 {blobs[n]} out_{n}" for n in model.output_names]
    lines = _split(lines + ends)
    num_blobs = sum(int(line.split()[3]) for line in lines)
    text = "\n".join([str(_MAGIC), f"{len(lines)} {num_blobs}", *lines, ""])
    return text, b"".join(np.ascontiguousarray(array).tobytes() for array in weights)


def _split(lines: list[str]) -> list[str]:
    """A blob of ncnn is read once: those that several layers read get a Split behind them."""
    sources = [line.split()[4] for line in lines if line.split()[2] == "1"]
    shared = {name for name in sources if sources.count(name) > 1}
    used = dict.fromkeys(shared, 0)
    found = []
    for line in lines:
        words = line.split()
        if words[2] == "1" and words[4] in shared:
            used[words[4]] += 1
            words[4] += f"_{used[words[4]]}"
        found.append(" ".join(words))
        made = words[4 + int(words[2])]
        if made in shared:
            copies = [f"{made}_{k + 1}" for k in range(sources.count(made))]
            found.append(f"Split split_{made} 1 {len(copies)} {made} {' '.join(copies)}")
    return found


# Kind, parameters by number, weights; None for a layer that changes nothing in inference.
_Said = tuple[str, str, list[np.ndarray]] | None
_Row = Callable[[Any], _Said]


def _say_convolution(layer: keras.layers.Conv2D) -> _Said:
    kernel = layer.get_weights()[0]
    height, width, _, filters = kernel.shape
    same = layer.padding == "same"
    top, left = (height // 2, width // 2) if same else (0, 0)
    parameters = (
        f"0={filters} 1={width} 11={height} 3={layer.strides[1]} 13={layer.strides[0]} 4={left} "
        f"14={top} 5={int(layer.use_bias)} 6={kernel.size} 9={int(_is_relu(layer))}"
    )
    planes = kernel.transpose(3, 2, 0, 1).astype("<f4")
    return "Convolution", parameters, [_FLOAT32, planes, *map(_little, layer.get_weights()[1:])]


def _say_pooling(layer: keras.layers.MaxPooling2D) -> _Said:
    (height, width), (down, right) = layer.pool_size, layer.strides
    # 5=1: as "valid" in Keras, what does not fill a window is left out.
    return "Pooling", f"0=0 1={width} 11={height} 2={right} 12={down} 5=1", []


def _say_global(kind: int) -> _Row:
    return lambda layer: ("Pooling", f"0={kind} 4=1", [])


def _say_nothing(layer: keras.layers.Layer) -> _Said:
    return None


def _little(array: np.ndarray) -> np.ndarray:
    return array.astype("<f4")


def _is_relu(layer: Any) -> bool:
    return getattr(layer.activation, "__name__", "") == "relu"


def _suits_convolution(layer: Any) -> bool:
    kernel, strides = layer.kernel_size, layer.strides
    plain = tuple(layer.dilation_rate) == (1, 1) and layer.groups == 1
    known = _is_relu(layer) or getattr(layer.activation, "__name__", "") == "linear"
    centred = layer.padding == "valid" or (max(strides) == 1 and all(k % 2 for k in kernel))
    return plain and known and centred


def _find_row(layer: keras.layers.Layer) -> _Row | None:
    """How to say a layer; None if it cannot be said."""
    kinds = keras.layers
    nothing = (kinds.InputLayer, kinds.Dropout, backbones.ImageNetPreprocessing)
    if isinstance(layer, nothing):
        return _say_nothing
    if isinstance(layer, kinds.Conv2D) and _suits_convolution(layer):
        return _say_convolution
    if isinstance(layer, kinds.MaxPooling2D) and layer.padding == "valid":
        return _say_pooling
    if isinstance(layer, kinds.GlobalAveragePooling2D | kinds.GlobalMaxPooling2D):
        return _say_global(1 if isinstance(layer, kinds.GlobalAveragePooling2D) else 0)
    return None
