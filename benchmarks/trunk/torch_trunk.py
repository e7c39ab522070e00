"""The same trunk in plain PyTorch: channels last, inference mode, autocast where asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from measuring import read_weights
from peers.plain_torch import build_block, preprocess, to_tensor

if TYPE_CHECKING:
    from trunk.child import Assignment, Run


def build(assignment: Assignment) -> tuple[Run, dict[str, object]]:
    """The function that is timed, and what a reader must know of it."""
    torch.set_num_threads(assignment.num_threads)
    weights = read_weights(assignment.weights)
    blocks = torch.nn.ModuleList(build_block(weights, block) for block in (1, 2, 3, 4, 5))
    blocks = blocks.requires_grad_(False).eval().to(memory_format=torch.channels_last)
    bfloat16 = assignment.variant.precision == "bfloat16"

    @torch.inference_mode()
    def run(images: np.ndarray) -> list[np.ndarray]:
        found = []
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            x = preprocess(to_tensor(images))
            for block, layers in enumerate(blocks, start=1):
                x = layers(x)
                if block >= 3:
                    # Pooled in float32, as Safelight does.
                    found += [x.float().mean(dim=(2, 3)), x.float().amax(dim=(2, 3))]
        return [each.numpy() for each in found]

    return run, {"memory_format": "channels_last", "autocast": bfloat16}
