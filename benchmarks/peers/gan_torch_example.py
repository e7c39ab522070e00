"""The DCGAN example of PyTorch (pytorch/examples, dcgan) on MNIST.

    python -m peers.gan_torch_example --minutes 20 --data mnist.npz --output samples.npz

Networks, initialisation, losses and rates as there: transposed convolutions of 4 pixels with batch
normalization, 100 latents, 64 filters at the largest size, Adam at 2e-4 with beta_1 = .5, batches
of 64. Departures, all of which help it here: pictures are padded to 32 pixels and the networks have
one layer less each, where the example resizes them to 64 and computes four times as much; they lie
in memory; channels last, and bfloat16 where the processor multiplies it. Samples are cut to 28.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from measuring import machine, num_cores, write_json

LATENT_DIM, FILTERS, BATCH_SIZE, RATE, BETA_1 = 100, 64, 64, 2e-4, 0.5


def start(module: nn.Module) -> None:
    """The weights that the example begins with."""
    kind = type(module).__name__
    if "Conv" in kind:
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif "BatchNorm" in kind:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def build_generator() -> nn.Module:
    widths, parts = (LATENT_DIM, 4 * FILTERS, 2 * FILTERS, FILTERS), []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        stride, padding = (1, 0) if i == 0 else (2, 1)
        parts += [
            nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(True),
        ]
    return nn.Sequential(*parts, nn.ConvTranspose2d(FILTERS, 1, 4, 2, 1, bias=False), nn.Tanh())


def build_discriminator() -> nn.Module:
    widths, parts = (1, FILTERS, 2 * FILTERS, 4 * FILTERS), []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        parts.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False))
        if i:
            parts.append(nn.BatchNorm2d(outputs))
        parts.append(nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(*parts, nn.Conv2d(4 * FILTERS, 1, 4, 1, 0, bias=False), nn.Flatten(0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(num_cores())
    with np.load(options.data) as arrays:
        images = torch.tensor(arrays["train"])[:, None]
    images = nn.functional.pad(images, (2, 2, 2, 2))
    nets = [build_generator(), build_discriminator()]
    for net in nets:
        net.apply(start)
        net.to(memory_format=torch.channels_last)
    generator, discriminator = nets
    optimizers = [torch.optim.Adam(n.parameters(), lr=RATE, betas=(BETA_1, 0.999)) for n in nets]
    loss = nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(BATCH_SIZE), torch.zeros(BATCH_SIZE)
    fast = bool(machine()["bfloat16"])
    precision = (lambda: torch.autocast("cpu", torch.bfloat16)) if fast else contextlib.nullcontext
    started, steps, order = time.perf_counter(), 0, torch.empty(0, dtype=torch.long)
    while time.perf_counter() - started < 60 * options.minutes:
        if len(order) < BATCH_SIZE:
            order = torch.randperm(len(images))
        rows, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        real = (images[rows].float() / 127.5 - 1).to(memory_format=torch.channels_last)
        discriminator.zero_grad()
        with precision():
            fake = generator(torch.randn(BATCH_SIZE, LATENT_DIM, 1, 1))
            answers = discriminator(real), discriminator(fake.detach())
        value = loss(answers[0].float(), ones) + loss(answers[1].float(), zeros)
        value.backward()
        optimizers[1].step()
        generator.zero_grad()
        with precision():
            answer = discriminator(fake)
        loss(answer.float(), ones).backward()
        optimizers[0].step()
        steps += 1
    seconds = time.perf_counter() - started
    # As the example draws: batch normalization by the batch it sees.
    with torch.no_grad():
        parts = [generator(torch.randn(500, LATENT_DIM, 1, 1)) for _ in range(options.num // 500)]
    samples = torch.cat(parts)[:, 0, 2:-2, 2:-2, None].float().numpy() / 2 + 0.5
    np.savez(options.output, samples=samples)
    said = {"seconds": seconds, "images_per_second": steps * BATCH_SIZE / seconds}
    write_json(
        options.output.with_suffix(".json"), {**said, "version": f"torch {torch.__version__}"}
    )


if __name__ == "__main__":
    main()
