"""Read a network's weights from Keras .h5 and ONNX files, and keep them as one plain .npz."""

import hashlib
import io
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safelight import untrusted

Weights = dict[str, NDArray[np.float32]]


def array_digest(array: NDArray[np.float32]) -> str:
    """Hash an array's values, whatever file they came in.

    Args:
        array: any shape.

    Returns:
        SHA-256 (hex) of the values as little-endian float32 in C order.
    """
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").tobytes()).hexdigest()


def read_h5(path: Path) -> Weights:
    """Read a Keras weights file of the old .h5 layout (as keras.applications publishes them).

    Args:
        path: the .h5 file.

    Returns:
        "layer/kernel" and "layer/bias" for layers with one kernel and one bias, "layer/<own name>"
        for others; in the file's order, in Keras' layout.

    Raises:
        ValueError: if the file is not of that layout.
    """
    import h5py

    weights: Weights = {}
    try:
        with h5py.File(path, "r") as file:
            check_h5(file, path.stat().st_size, of_groups=True)
            for layer in _texts(file.attrs["layer_names"]):
                names = _texts(file[layer].attrs["weight_names"])
                arrays = [np.asarray(file[layer][name], dtype=np.float32) for name in names]
                for leaf, array in zip(_leaves(names, arrays), arrays, strict=True):
                    weights[f"{layer}/{leaf}"] = array
    except Exception as error:  # HDF5 raises almost anything on damaged files
        said = untrusted.one_line(error)
        raise ValueError(f"{path.name} is not a Keras .h5 weights file ({said})") from error
    return weights


def check_h5(file: Any, size: int, *, of_groups: bool = False) -> None:
    """Looks through an HDF5 file before an array of it is read.

    Args:
        file: An open `h5py.File`.
        size: Its bytes.
        of_groups: Whether attributes of groups, not only of arrays, will be read too.

    Raises:
        ValueError: It leads to other files, holds something else than numbers, unfolds to more than
            it weighs, or has attributes to read that are of variable length.
    """
    import h5py

    seen: set[Any] = set()
    groups, total = [file["/"]], 0
    while groups:
        group = groups.pop()
        total += _attribute_bytes(group) if of_groups else 0
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{untrusted.one_line(name, 80)!r} is a link")
            found = group[name]
            place = h5py.h5o.get_info(found.id).addr
            if place in seen:
                raise ValueError(f"{untrusted.one_line(name, 80)!r} is there twice")
            seen.add(place)
            if isinstance(found, h5py.Group):
                groups.append(found)
            else:
                total += _stored_bytes(found) + _attribute_bytes(found)
    if total > size:
        raise ValueError(f"{size:,} bytes claim to unfold to {total:,}")


def _stored_bytes(found: Any) -> int:
    """The bytes of an array of numbers that lies in the file itself."""
    import h5py

    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "biuf" or found.shape is None:
        raise ValueError("it holds something else than numbers")
    if found.external or found.is_virtual:
        raise ValueError("it leads to another file")
    return math.prod(found.shape) * found.dtype.itemsize


def _attribute_bytes(found: Any) -> int:
    """The bytes of an object's attributes.

    Where their length varies they lie in a heap, which HDF5 believes whatever it says: a wrong byte
    there takes gigabytes, or turns in a circle for ever. Those of the weights of 2016 have a fixed
    length; in a `.keras` file only those of groups vary, which nobody reads.
    """
    import h5py

    total = 0
    for name in found.attrs:
        attribute = found.attrs.get_id(name)
        kind = attribute.get_type()
        text = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
        if not text and not isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID):
            raise ValueError(
                f"its attribute {untrusted.one_line(name, 80)!r} is neither numbers nor text of a "
                "fixed length"
            )
        total += math.prod(attribute.shape) * kind.get_size()
    return total


def _texts(names: Iterable[object]) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _leaves(names: list[str], arrays: list[NDArray[np.float32]]) -> list[str]:
    # The files of 2016 call them block1_conv1_W_1:0 and block1_conv1_b_1:0.
    if [array.ndim for array in arrays] in ([4, 1], [2, 1]):
        return ["kernel", "bias"]
    return [name.rpartition("/")[2].removesuffix(":0") for name in names]


def read_onnx(path: Path, layers: Iterable[str], initialisers: Mapping[str, str]) -> Weights:
    """Read convolution layers from an ONNX file and bring them to Keras' layout.

    Args:
        path: the .onnx file.
        layers: names of the layers, in the wanted order.
        initialisers: names of "kernel" and "bias" in the file, with {layer} to fill in.

    Returns:
        "layer/kernel" (kh, kw, in, out) and "layer/bias" (out,), float32.

    Raises:
        ValueError: if the file lacks a layer.
    """
    import onnx

    try:
        # Nothing beside the file is read, whatever it names.
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf has errors of its own
        said = untrusted.one_line(error)
        raise ValueError(f"{path.name} is not an ONNX file ({said})") from error
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights: Weights = {}
    for layer in layers:
        for leaf in ("kernel", "bias"):
            name = initialisers[leaf].format(layer=layer)
            if name not in tensors:
                raise ValueError(f"{path.name} holds no {name}")
            try:
                array = onnx.numpy_helper.to_array(tensors[name])
            except Exception as error:  # it raises almost anything on damaged ones
                said = untrusted.one_line(error)
                raise ValueError(f"{path.name}: {name} is damaged ({said})") from error
            weights[f"{layer}/{leaf}"] = _keras_layout(array)
    return weights


def _keras_layout(array: NDArray[np.float32]) -> NDArray[np.float32]:
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)  # (out, in, kh, kw) -> (kh, kw, in, out)
    return np.ascontiguousarray(array, dtype=np.float32)


def write_npz(path: Path, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Write arrays so that equal arrays give equal files, byte for byte.

    Args:
        path: file to write; numpy.load reads it.
        weights: name to array.
    """
    with path.open("wb") as output:
        with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
            for name, array in weights.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.ascontiguousarray(array, "<f4"), (1, 0))
                # numpy.savez would stamp the present time into every member.
                member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                archive.writestr(member, buffer.getvalue())
        output.flush()
        os.fsync(output.fileno())


def read_npz(path: Path) -> Weights:
    """Read what `write_npz` wrote.

    Args:
        path: the .npz file.

    Returns:
        Name to float32 array, in the file's order.

    Raises:
        ValueError: if the file is broken.
    """
    try:
        return untrusted.read_arrays(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read ({error})") from error


def check_arrays(weights: Mapping[str, NDArray[np.float32]], digests: Mapping[str, str]) -> Weights:
    """Keep the wanted arrays in the wanted order, each checked by its hash.

    Args:
        weights: name to array, at least those wanted.
        digests: name to expected SHA-256 of `array_digest`.

    Returns:
        The wanted arrays.

    Raises:
        ValueError: naming the first array that is missing or differs.
    """
    for name, digest in digests.items():
        if name not in weights:
            raise ValueError(f"the weights lack {name}")
        if array_digest(weights[name]) != digest:
            raise ValueError(f"the values of {name} are not the expected ones")
    return {name: weights[name] for name in digests}
