"""What is sent to other processes: a model as bytes, some pictures of a data set."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from safelight.datasets import ImageDataset


def pack_model(model: keras.Model) -> bytes:
    """A model as the bytes of a .keras file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def unpack_model(packed: bytes) -> keras.Model:
    """The model of `pack_model`, in Keras' safe mode: it can execute nothing."""
    # The head of a classifier has layers of ours, which Keras knows when their module is loaded;
    # by its name, as it stands above this one.
    importlib.import_module("safelight.transfer.models")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(packed)
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def cut_out(dataset: ImageDataset, indices: Sequence[int]) -> ImageDataset:
    """Some pictures, with what reading and naming them takes and nothing else.

    Args:
        dataset: The whole, however large.
        indices: Positions in it.

    Returns:
        A data set without classes and without what is known of copies.
    """
    return ImageDataset(
        name=dataset.name,
        class_names=(),
        labels=np.zeros(len(indices), np.int64),
        digests=tuple(dataset.digests[i] for i in indices),
        files=tuple(dataset.files[i] for i in indices),
        source=dataset.source.subset(np.asarray(indices, np.int64)),
    )
