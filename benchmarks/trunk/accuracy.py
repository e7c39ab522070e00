"""What another engine's features do to accuracy: the default head fitted on each, side by side.

python -m trunk.accuracy --data FILE --features FILE --reference FILE --output FILE
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from measuring import read_parts, write_json
from safelight.metrics import paired_difference
from safelight.transfer.kernel_heads import KernelHead, fit_kernel_head
from safelight.transfer.roots import scaled_roots
from trunk.protocol import OUTPUTS, WIDTHS


def read_features(path: Path) -> np.ndarray:
    """All layers of all cells side by side, `(num_images, num_features)`."""
    with np.load(path) as arrays:
        return np.concatenate([arrays[name] for name in OUTPUTS], axis=1)


def predict(head: KernelHead, features: np.ndarray, widths: tuple[int, ...] = WIDTHS) -> np.ndarray:
    """Probabilities `(n, num_classes)`, by the formula of `KernelHead`."""
    from scipy.special import softmax

    rows = (scaled_roots(features, widths) - head.mean) / head.scale
    landmarks = head.landmarks.astype(np.float64)
    squares = (rows**2).sum(axis=1)[:, None] + (landmarks**2).sum(axis=1)
    distances = np.maximum(squares - 2 * rows @ landmarks.T, 0)
    return softmax(np.exp(-head.gamma * distances) @ head.kernel + head.bias, axis=1)


def fit_and_predict(
    features: np.ndarray, labels: np.ndarray, widths: tuple[int, ...] = WIDTHS
) -> np.ndarray:
    """Fit on the first rows, which have labels; probabilities of the rest."""
    num_train = len(labels)
    targets = np.eye(int(labels.max()) + 1)[labels]
    head = fit_kernel_head(features[:num_train, None], targets, widths=widths, seed=0)
    return predict(head, features[num_train:].astype(np.float64), widths)


def compare(features: np.ndarray, reference: np.ndarray, data: Path) -> dict[str, object]:
    """Accuracy of both, and the paired difference with its 95 % interval."""
    parts = read_parts(data)
    train, test = parts["train"].labels, parts["test"].labels
    ours, theirs = (fit_and_predict(each, train) for each in (features, reference))
    gap = paired_difference(test, ours, probabilities_b=theirs)
    return {
        "value": float((ours.argmax(1) == test).mean()),
        "reference": float((theirs.argmax(1) == test).mean()),
        "difference": {"value": gap.value, "low": gap.low, "high": gap.high},
        "num_train": len(train),
        "num_test": len(test),
    }


def main() -> None:
    """Compare two files of features."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("data", "features", "reference", "output"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    call = parser.parse_args()
    ours, reference = read_features(call.features), read_features(call.reference)
    write_json(call.output, compare(ours, reference, call.data))


if __name__ == "__main__":
    main()
