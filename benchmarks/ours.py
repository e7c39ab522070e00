"""Safelight in the benchmark: each call into the library stands in one small function."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from measuring import Assignment, Measured, run_variant


def measure(assignment: Assignment) -> Measured:
    """ENTRY POINT, not written yet: needs safelight.transfer."""
    raise NotImplementedError(f"variant {assignment.variant.letter} needs safelight.transfer")


if __name__ == "__main__":
    run_variant(measure)
