"""A VAE in plain PyTorch, in the manner of pytorch/examples' vae/main.py, and the same made fast.

Our own script. As written there: a DataLoader over single images, no workers, Adam, sums of
`binary_cross_entropy` on probabilities, `loss.item()` in every step. Kinder than there: images lie
decoded in memory instead of passing through PIL one by one, and its test pass is left out. Added:
the draw of black and white pixels, one call for each batch.

`in_memory` keeps the bytes in one tensor and picks a batch's rows by index; Adam is fused, the
products run under bfloat16 autocast, the loss is taken from logits, and nothing is read back within
an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from vae.measuring import Assignment, Clock, Measured, run_variant
from vae.network import LAYERS, Weights

_LOG_INTERVAL = 10


class Network(nn.Module):
    """784-400-20-400-784 with ReLU; gives logits."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        for name, (inputs, outputs) in LAYERS.items():
            layer = nn.Linear(inputs, outputs)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weights[f"{name}/kernel"].T))
                layer.bias.copy_(torch.from_numpy(weights[f"{name}/bias"]))
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pixels (n, 784) to logits (n, 784), mean and log variance (n, 20)."""
        hidden = functional.relu(self.hidden(x))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.pixels(functional.relu(self.decoder_hidden(z))), mean, log_variance


def read_weights(network: nn.Module) -> Weights:
    """The weights in the layout of all variants."""
    weights: Weights = {}
    for name in LAYERS:
        layer = network.get_submodule(name)
        weights[f"{name}/kernel"] = layer.weight.detach().numpy().T
        weights[f"{name}/bias"] = layer.bias.detach().numpy()
    return weights


def kl_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Summed over batch and latents."""
    return -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())


class Images(Dataset):
    """One picture at a time, as floats in [0, 1], with a label that nobody uses."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index].unsqueeze(0).float().div(255), 0


def train_as_written(assignment: Assignment, clock: Clock) -> None:
    """The example's loop."""
    protocol, network = assignment.protocol, Network(assignment.weights)
    loader = DataLoader(Images(assignment.images), batch_size=protocol.batch_size, shuffle=True)
    optimizer = optim.Adam(network.parameters(), lr=protocol.learning_rate)
    network.train()
    for epoch in range(1, protocol.epochs + 1):
        total = 0.0
        for batch, (data, _) in enumerate(loader):
            x = torch.bernoulli(data).view(-1, 784)
            optimizer.zero_grad()
            logits, mean, log_variance = network(x)
            probabilities = torch.sigmoid(logits)
            likelihood = functional.binary_cross_entropy(probabilities, x, reduction="sum")
            loss = likelihood + kl_divergence(mean, log_variance)
            loss.backward()
            total += loss.item()
            optimizer.step()
            if batch % _LOG_INTERVAL == 0:
                print(f"Epoch {epoch} [{batch * len(x)}]  Loss: {loss.item() / len(x):.6f}")
        print(f"Epoch {epoch}  Average loss: {total / len(assignment.images):.4f}")
        if clock.end_epoch(lambda: read_weights(network)):
            break


def binary_batches(images: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """One epoch in a new order, pixels drawn with bytes: P(byte of 0 to 254 < k) is k / 255."""
    for rows in torch.randperm(len(images)).split(batch_size):
        grey = images[rows]
        yield (torch.empty_like(grey).random_(0, 255) < grey).float()


def train_in_memory(assignment: Assignment, clock: Clock) -> None:
    """The same with everything that PyTorch offers to make a small network fast."""
    protocol, network = assignment.protocol, Network(assignment.weights)
    images = torch.from_numpy(assignment.images).reshape(-1, 784)
    optimizer = optim.Adam(network.parameters(), lr=protocol.learning_rate, fused=True)
    is_bfloat16 = assignment.variant.precision == "bfloat16"
    for _ in range(protocol.epochs):
        for x in binary_batches(images, protocol.batch_size):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bfloat16):
                logits, mean, log_variance = network(x)
            likelihood = functional.binary_cross_entropy_with_logits(
                logits.float(), x, reduction="sum"
            )
            loss = likelihood + kl_divergence(mean.float(), log_variance.float())
            loss.backward()
            optimizer.step()
        if clock.end_epoch(lambda: read_weights(network)):
            break


def measure(assignment: Assignment, clock: Clock) -> Measured:
    """Run the loop that the variant asks for, with a thread a core."""
    torch.set_num_threads(assignment.num_threads)
    torch.manual_seed(assignment.protocol.seed)
    clock.start()
    variant = assignment.variant
    (train_in_memory if variant.in_memory else train_as_written)(assignment, clock)
    settings = {
        "threads": assignment.num_threads,
        "dtype": variant.precision,
        "data": "bytes in one tensor" if variant.in_memory else "DataLoader, no workers",
        "optimizer": "fused Adam" if variant.in_memory else "Adam",
    }
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    return Measured(versions, settings)


if __name__ == "__main__":
    run_variant(measure)
