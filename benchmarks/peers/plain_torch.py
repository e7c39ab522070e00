"""The same recipe as peers/keras_guide.py in plain PyTorch: a loop, channels_last, no library.

The frozen trunk runs under no_grad, so that autograd keeps nothing of it; images stay decoded in
memory; the bfloat16 variant uses autocast. `compiled` puts torch.compile around trunk and tail.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from measuring import Assignment, Measured, Part, Stopwatch, read_parts, read_weights, run_variant
from protocol import VGG16_BLOCKS, Protocol

# Caffe's means, blue first: VGG16's Keras weights want BGR minus these, not pixels in [0, 1].
MEANS = (103.939, 116.779, 123.68)
History = dict[str, list[float]]


class Network(nn.Module):
    """VGG16 cut where the recipe cuts it: trunk (blocks 1 to 4), block5, head."""

    def __init__(self, weights: dict[str, np.ndarray], *, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*(build_block(weights, block) for block in (1, 2, 3, 4)))
        self.block5 = build_block(weights, 5)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(512, num_classes))
        nn.init.xavier_uniform_(self.head[1].weight)  # Keras' initialiser of a Dense layer
        nn.init.zeros_(self.head[1].bias)
        self.trunk.requires_grad_(False)
        self.block5.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Raw images (n, 3, height, width), 0 to 255, to logits (n, num_classes)."""
        with torch.no_grad():
            x = self.trunk(preprocess(images))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.block5_is_trainable):
            x = self.block5(x).mean(dim=(2, 3))
        return self.head(x)

    @property
    def block5_is_trainable(self) -> bool:
        """Whether the second stage has begun."""
        return self.block5[0].weight.requires_grad


def build_block(weights: dict[str, np.ndarray], block: int) -> nn.Sequential:
    """Convolutions, ReLUs and the pooling of one VGG16 block, filled with Keras' arrays."""
    layers: list[nn.Module] = []
    for index in range(1, len(VGG16_BLOCKS[block - 1]) + 1):
        kernel = torch.from_numpy(weights[f"block{block}_conv{index}/kernel"])
        convolution = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
        with torch.no_grad():
            convolution.weight.copy_(kernel.permute(3, 2, 0, 1))
            convolution.bias.copy_(torch.from_numpy(weights[f"block{block}_conv{index}/bias"]))
        layers += [convolution, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


def preprocess(images: torch.Tensor) -> torch.Tensor:
    """RGB, 0 to 255, to BGR minus Caffe's means."""
    means = images.new_tensor(MEANS).reshape(1, 3, 1, 1)
    return (images.flip(1) - means).contiguous(memory_format=torch.channels_last)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(n, height, width, 3) uint8 to a float32 (n, 3, height, width) view, channels last."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def augment(images: torch.Tensor, protocol: Protocol, generator: torch.Generator) -> torch.Tensor:
    """Random flips and rotations as Keras' layers make them: bilinear, edges reflected."""
    count = len(images)
    angles = (torch.rand(count, generator=generator) * 2 - 1) * protocol.rotation * 2 * math.pi
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros(count)
    rows = (mirror * cosine, -sine, zero, mirror * sine, cosine, zero)
    transform = torch.stack(rows, dim=1).reshape(count, 2, 3)
    grid = functional.affine_grid(transform, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def training_batches(
    part: Part, protocol: Protocol, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch: a new order, fresh augmentation."""
    order = torch.randperm(len(part.labels), generator=generator).numpy()
    for start in range(0, len(order), protocol.batch_size):
        chosen = order[start : start + protocol.batch_size]
        images = augment(to_tensor(part.images[chosen]), protocol, generator)
        yield images, torch.from_numpy(part.labels[chosen])


class Trainer:
    """The hand-written loop that a PyTorch user would write, with its clock."""

    def __init__(self, network: Network, protocol: Protocol, *, bfloat16: bool) -> None:
        self.network = network
        self.protocol = protocol
        self.bfloat16 = bfloat16
        self.generator = torch.Generator().manual_seed(protocol.seed)
        self.validation_seconds = 0.0

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Forward pass under the variant's precision, answered in float32."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            return self.network(images).float()

    def train_epoch(self, part: Part, optimizer: torch.optim.Optimizer) -> float:
        """One pass over the training part; returns the mean loss."""
        self.network.train()
        total = 0.0
        for images, labels in training_batches(part, self.protocol, self.generator):
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(self.logits(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        return total / len(part.labels)

    @torch.no_grad()
    def predict(self, part: Part) -> torch.Tensor:
        """Logits (n, num_classes) with dropout off."""
        self.network.eval()
        size = self.protocol.batch_size
        starts = range(0, len(part.labels), size)
        return torch.cat([self.logits(to_tensor(part.images[i : i + size])) for i in starts])

    def validate(self, part: Part) -> float:
        """Validation loss, with its seconds put on the clock."""
        start = time.perf_counter()
        loss = functional.cross_entropy(self.predict(part), torch.from_numpy(part.labels)).item()
        self.validation_seconds += time.perf_counter() - start
        return loss

    def fit(self, parts: dict[str, Part], *, epochs: int, learning_rate: float) -> History:
        """Train one stage and leave the weights of the best validation loss in the network."""
        trainable = [weight for weight in self.network.parameters() if weight.requires_grad]
        # eps as in Keras, so that both frameworks take the same steps.
        optimizer = torch.optim.Adam(trainable, lr=learning_rate, eps=1e-7)
        history: History = {"loss": [], "val_loss": []}
        best: list[torch.Tensor] = []
        for _ in range(epochs):
            history["loss"].append(self.train_epoch(parts["train"], optimizer))
            history["val_loss"].append(self.validate(parts["validation"]))
            if history["val_loss"][-1] == min(history["val_loss"]):
                best = [weight.detach().clone() for weight in trainable]
        with torch.no_grad():
            for weight, kept in zip(trainable, best, strict=True):
                weight.copy_(kept)
        return history


def build_network(assignment: Assignment, *, num_classes: int) -> Network:
    """The network in channels_last, compiled where the variant asks for it."""
    dropout = assignment.protocol.dropout
    weights = read_weights(assignment.weights)
    network = Network(weights, num_classes=num_classes, dropout=dropout)
    network = network.to(memory_format=torch.channels_last)
    if assignment.variant.compiled:
        network.trunk.compile(dynamic=False)
        network.block5.compile(dynamic=False)
    return network


def train_and_predict(
    assignment: Assignment, watch: Stopwatch
) -> tuple[np.ndarray, dict[str, History]]:
    """Follow the recipe from pixels to the test part's probabilities."""
    protocol, history = assignment.protocol, {}
    with watch.stage("decode"):
        parts = read_parts(assignment.data)
    with watch.stage("head"):
        network = build_network(assignment, num_classes=int(parts["train"].labels.max()) + 1)
        bfloat16 = assignment.variant.precision == "bfloat16"
        trainer = Trainer(network, protocol, bfloat16=bfloat16)
        rate, epochs = protocol.head_learning_rate, protocol.head_epochs
        history["head"] = trainer.fit(parts, epochs=epochs, learning_rate=rate)
    with watch.stage("block5"):
        network.block5.requires_grad_(True)
        rate, epochs = protocol.block5_learning_rate, protocol.block5_epochs
        history["block5"] = trainer.fit(parts, epochs=epochs, learning_rate=rate)
    with watch.stage("evaluation"):
        probabilities = trainer.predict(parts["test"]).softmax(dim=1).numpy()
    watch.seconds["validation"] = trainer.validation_seconds
    return probabilities, history


def measure(assignment: Assignment) -> Measured:
    """Run the variant with PyTorch's threads set to the machine's cores."""
    torch.set_num_threads(assignment.num_threads)
    torch.manual_seed(assignment.protocol.seed)
    watch = Stopwatch()
    probabilities, history = train_and_predict(assignment, watch)
    settings = {
        "threads": assignment.num_threads,
        "memory_format": "channels_last",
        "dtype": assignment.variant.precision,
        "compiled": assignment.variant.compiled,
    }
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    return Measured(probabilities, watch.seconds, versions, settings, history)


if __name__ == "__main__":
    run_variant(measure)
