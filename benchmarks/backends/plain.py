"""The same work in plain PyTorch, as somebody would write it who has nothing else.

    python -m backends.plain --work block5 --precision bfloat16 --seconds 10 --output found.json

Convolutions with channels last in memory, fused Adam, pictures in memory; `bfloat16` is autocast.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from backends.clock import BATCH, DIGITS, IMAGE_SIZE, VAE_BATCH, rate

LATENT_DIM, HIDDEN = 40, 300
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def build_blocks(channels: int, *numbers: int) -> nn.Sequential:
    """Some of VGG16's blocks, counted from 1."""
    layers: list[nn.Module] = []
    for number in numbers:
        for filters in BLOCKS[number - 1]:
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _autocast(precision: str) -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")


def extract(seconds: float, precision: str) -> float:
    """VGG16's frozen part, pictures a second."""
    network = build_blocks(3, 1, 2, 3, 4, 5).eval()
    pictures = torch.rand(BATCH, 3, IMAGE_SIZE, IMAGE_SIZE)
    pictures = pictures.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode(), _autocast(precision):
            network(pictures).mean((2, 3))

    return rate(step, BATCH, seconds)


def block5(seconds: float, precision: str) -> float:
    """Training of block5 and a linear head from kept activations, pictures a second."""
    network = nn.Sequential(build_blocks(512, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(512, 2))
    optimizer = torch.optim.Adam(network.parameters(), 1e-5, fused=True)
    side = IMAGE_SIZE // 16
    kept = torch.rand(BATCH, 512, side, side).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 2, (BATCH,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(precision):
            logits = network(kept)
        functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()

    return rate(step, BATCH, seconds)


def _layers(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(nn.Module):
    """As wide and as deep as the defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _layers(784, HIDDEN, HIDDEN, 2 * LATENT_DIM)
        self.decoder = _layers(LATENT_DIM, HIDDEN, HIDDEN, 784)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Minus the ELBO, `(batch,)`."""
        mean, log_variance = self.encoder(x).float().chunk(2, 1)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        logits = self.decoder(z).float()
        reconstruction = functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
        return reconstruction.sum(1) + kl.sum(1)


def dense_vae(seconds: float, precision: str) -> float:
    """Training of a small autoencoder, dynamic binarisation, pictures a second."""
    model, images = Autoencoder(), torch.randint(0, 256, (DIGITS, 784)).to(torch.uint8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def step() -> None:
        rows = torch.randint(0, DIGITS, (VAE_BATCH,))
        x = torch.bernoulli(images[rows].float() / 255)
        optimizer.zero_grad(set_to_none=True)
        with _autocast(precision):
            loss = model(x).mean()
        loss.backward()
        optimizer.step()

    return rate(step, VAE_BATCH, seconds)


WORK = {"extract": extract, "block5": block5, "dense_vae": dense_vae}


def main() -> None:
    """Do one kind of work and write its rate."""
    parser = argparse.ArgumentParser(description="One kind of work; started by the driver.")
    parser.add_argument("--work", required=True, choices=list(WORK))
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--output", type=Path, required=True)
    call = parser.parse_args()
    torch.manual_seed(int(np.random.default_rng(0).integers(2**31)))
    do = functools.partial(WORK[call.work], call.seconds, call.precision)
    found = {"rate": do(), "torch": torch.__version__}
    call.output.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
