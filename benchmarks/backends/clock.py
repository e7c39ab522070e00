"""What both sides of the comparison share: sizes, and how a rate is taken. NumPy not needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

IMAGE_SIZE, BATCH = 224, 16  # of VGG16
DIGITS, VAE_BATCH = 20_000, 128


def rate(step: Callable[[], Any], amount: int, seconds: float) -> float:
    """Units a second: `step` does `amount` of them; once before the clock starts.

    Whole steps are counted, and the clock is read after each.
    """
    step()
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        step()
        done += amount
    return done / elapsed
