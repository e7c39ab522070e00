"""Make the pixels that every variant of the VAE benchmarks reads, once, in a process of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from measuring import write_json
from prepare import digest, save_arrays
from vae.protocol import Protocol


def make_arrays(protocol: Protocol) -> dict[str, np.ndarray]:
    """MNIST's parts: grey training images, test images drawn black (0) or white (1) once."""
    from safelight.datasets import load
    from safelight.generative.pictures import binarize, load_images

    grey = {
        part: load_images(load(protocol.dataset, part=part)).images for part in ("train", "test")
    }
    # The same draw for every seed of a repeat: repeats differ in training, not in the yardstick.
    test = binarize(grey["test"][: protocol.num_test], seed=0) // 255
    return {
        "train": grey["train"][: protocol.num_train, :, :, 0],
        "test": test.reshape(len(test), -1),
    }


def main() -> None:
    """Write data.npz and data.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("protocol", "data"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    call = parser.parse_args()
    arrays = make_arrays(Protocol.read(call.protocol))
    save_arrays(call.data, arrays)
    write_json(call.data.with_suffix(".json"), {"digest": digest(arrays)})


if __name__ == "__main__":
    main()
