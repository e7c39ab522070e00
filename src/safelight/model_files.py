"""A model.keras that somebody else may have made: looked through first, then opened in safe mode.

Keras' safe mode refuses code that lies in a file. Our own look comes before it and is narrower: a
file holds three members as Keras writes them and nothing else; its layers are Keras' own, but for
those that wrap code or other files, or registered ones; its weights are numbers that lie in it.
"""

from __future__ import annotations

import os
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safelight import untrusted, weight_files

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = {"metadata.json", CONFIG, WEIGHTS}
_MAX_CONFIG = 16 * 2**20  # bytes; that of ResNet-50 has 100,000
_MAX_NAME = 80  # letters that are shown

# What wraps code, a model of another kind, or the name of a file.
_REFUSED = frozenset(
    """__lambda__ __typespec__ FeatureSpace FlaxLayer HashedCrossing Hashing IntegerLookup JaxLayer
    IndexLookup Lambda StringLookup TFSMLayer TextVectorization TorchModuleWrapper""".split()
)
# Of values, which Keras makes itself.
_VALUES = frozenset(
    ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__slice__", "__ellipsis__")
)
_MODULES = frozenset(
    f"keras{name}"
    for name in (
        "",
        *(".activations", ".constraints", ".dtype_policies", ".initializers", ".layers"),
        *(".ops", ".random", ".regularizers"),
    )
)
_INNER_MODULES = tuple(
    f"keras.src.{name}." for name in ("applications", "layers", "models", "ops", "random")
)


def load_model(path: Path) -> Any:
    """The model of a file; nothing that lies in it is executed.

    Args:
        path: A file that `keras.Model.save` wrote. Classes that it names must be registered.

    Returns:
        A `keras.Model`, not compiled.

    Raises:
        ValueError: It is damaged, or holds what no model of ours does; one line.
    """
    check_model(path)
    import keras

    try:
        with warnings.catch_warnings():
            # What becomes of Keras' own calls in a later NumPy is nothing to whoever opens a file.
            warnings.simplefilter("ignore", DeprecationWarning)
            # Layers whose weights are missing would keep random ones.
            warnings.filterwarnings("error", message="Skipping nested container")
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        said = untrusted.one_line(error)
        raise ValueError(f"{path} cannot be read as a Keras model: {said}") from error


def check_model(path: Path) -> None:
    """Looks through a model's file without Keras.

    Args:
        path: The file.

    Raises:
        ValueError: It is damaged, or holds what no model of ours does.
    """
    try:
        with untrusted.open_file(path) as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is no archive")
            _check_archive(file)
    except _RefusedError as error:
        raise ValueError(f"{path} cannot be read as a Keras model: {error}") from error
    except Exception as error:  # zipfile and HDF5 raise almost anything on damaged files
        raise ValueError(
            f"{path} is damaged: expected the file that training wrote "
            f"({untrusted.one_line(error)})."
        ) from error


class _RefusedError(ValueError):
    """Sound, and not let in."""


def _check_archive(file: Any) -> None:
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = {each.filename: each for each in archive.infolist()}
        if set(members) != _MEMBERS or len(members) != len(archive.infolist()):
            names = sorted(set(members) ^ _MEMBERS) or ["something"]
            raise _RefusedError(
                f"{untrusted.one_line(names[0], 80)!r} is missing, or too many in it."
            )
        # Keras compresses none, and what is not compressed cannot unfold.
        if any(each.compress_type != zipfile.ZIP_STORED for each in members.values()):
            raise _RefusedError("it is compressed, which Keras does not do; save it anew.")
        if max(each.file_size for each in members.values()) > size:
            raise ValueError("its members are larger than the file")
        if members[CONFIG].file_size > _MAX_CONFIG:
            raise _RefusedError(f"its {CONFIG} has {members[CONFIG].file_size:,} bytes.")
        check_config(untrusted.parse_json(archive.read(CONFIG), finite=False))
        _check_weights(archive)


def _check_weights(archive: zipfile.ZipFile) -> None:
    import h5py

    with archive.open(WEIGHTS) as stream, h5py.File(stream, "r") as weights:
        try:
            weight_files.check_h5(weights, archive.getinfo(WEIGHTS).file_size)
        except ValueError as error:
            raise _RefusedError(f"its {WEIGHTS}: {error}.") from error


def check_config(config: Any) -> None:
    """Looks through what a model is made of.

    Args:
        config: The content of `config.json`.

    Raises:
        ValueError: A class of it is none that a model of ours is made of.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        raise _RefusedError("it names no class of a model.")
    for each in _objects(config):
        name, module = each["class_name"], each.get("module")
        if not isinstance(name, str) or name in _REFUSED:
            raise _RefusedError(
                f"it holds a {_shown(name)}, which may hold code or read other files."
            )
        if name not in _VALUES and not _is_known(name, module, each.get("registered_name")):
            raise _RefusedError(
                f"it holds a {_shown(name)} of {_shown(module)}, which is neither a layer of "
                "Keras' own nor registered."
            )


def _shown(name: object) -> str:
    return untrusted.one_line(name, _MAX_NAME)


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a configuration that says what class it is of."""
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _is_known(name: str, module: object, registered: object) -> bool:
    if name == "function":  # an activation by its name: Keras looks among its own alone
        return module == "builtins"
    if isinstance(registered, str) and ">" in registered:
        return registered.startswith("safelight>") or _is_registered(registered)
    if not isinstance(module, str):
        return False
    return module in _MODULES or f"{module}.".startswith(_INNER_MODULES)


def _is_registered(name: str) -> bool:
    """Whether the program that reads the file has brought such a class along."""
    keras = sys.modules.get("keras")
    return keras is not None and keras.saving.get_registered_object(name) is not None
