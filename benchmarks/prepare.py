"""Make the pixels, labels and weights that every variant reads, once, in a process of its own.

Apart from the driver because a child's peak memory is never below its parent's at the fork.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

import numpy as np

from measuring import write_json
from protocol import PARTS, Protocol


def draw(num_available: int, num_wanted: int, seed: int) -> np.ndarray:
    """Choose `num_wanted` positions at random, in ascending order.

    Raises:
        ValueError: If the part of the split is smaller than what was asked for.
    """
    if num_wanted > num_available:
        raise ValueError(
            f"{num_wanted} images were asked for, but this part of the split has {num_available}; "
            "lower --num-train, --num-validation or --num-test."
        )
    return np.sort(np.random.default_rng(seed).permutation(num_available)[:num_wanted])


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].shape} {arrays[name].dtype}".encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz under a temporary name and move it into place."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(temporary, path)


def make_arrays(protocol: Protocol) -> dict[str, np.ndarray]:
    """Split with Safelight, draw each part, decode and resize to uint8 RGB."""
    from safelight.datasets import load, split
    from safelight.images import resize

    dataset = load(protocol.dataset)
    splits = split(dataset, seed=protocol.split_seed)
    size = (protocol.image_size, protocol.image_size)
    arrays: dict[str, np.ndarray] = {}
    for name in PARTS:
        available = splits.indices[name]
        wanted = getattr(protocol, f"num_{name}")
        chosen = available[draw(len(available), wanted, protocol.split_seed)]
        pixels = [np.rint(resize(dataset.read(int(i)), size)).astype(np.uint8) for i in chosen]
        arrays[f"{name}_images"] = np.stack(pixels)
        arrays[f"{name}_labels"] = dataset.labels[chosen].astype(np.int64)
        arrays[f"{name}_indices"] = np.asarray(chosen, dtype=np.int64)
    return arrays


def main() -> None:
    """Write data.npz and data.json, and the weights where they are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("protocol", "data", "weights"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    call = parser.parse_args()
    if not call.weights.exists():
        from safelight.assets import read_weights

        save_arrays(call.weights, read_weights("vgg16-imagenet-notop"))
    arrays = make_arrays(Protocol.read(call.protocol))
    save_arrays(call.data, arrays)
    write_json(call.data.with_suffix(".json"), {"digest": digest(arrays)})


if __name__ == "__main__":
    main()
