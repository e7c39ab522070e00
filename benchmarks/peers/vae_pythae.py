"""pythae's VAE and its own trainer on the benchmark's network; networks as its users write them.

Kinder than its own scripts on binarised MNIST: pixels are drawn black or white for a whole batch
in one call, where those draw image by image. Data lie in memory as floats, as its pipeline leaves
them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata

import numpy as np
import torch
from pythae.data.datasets import BaseDataset, DatasetOutput, collate_dataset_output
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import nn
from torch.nn import functional

from vae.measuring import Assignment, Clock, Measured, run_variant
from vae.network import LATENT_DIM, LAYERS, Weights

_SHAPE = (1, 28, 28)


class Encoder(BaseEncoder):
    """Pictures to mean and log variance."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = LATENT_DIM
        for name in ("hidden", "mean", "log_variance"):
            self.add_module(name, nn.Linear(*LAYERS[name]))

    def forward(self, x: torch.Tensor) -> ModelOutput:
        hidden = functional.relu(self.hidden(x.reshape(len(x), -1)))
        return ModelOutput(embedding=self.mean(hidden), log_covariance=self.log_variance(hidden))


class Decoder(BaseDecoder):
    """Latents to probabilities."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("decoder_hidden", "pixels"):
            self.add_module(name, nn.Linear(*LAYERS[name]))

    def forward(self, z: torch.Tensor) -> ModelOutput:
        logits = self.pixels(functional.relu(self.decoder_hidden(z)))
        return ModelOutput(reconstruction=torch.sigmoid(logits).reshape(len(z), *_SHAPE))


def build_model(weights: Weights) -> VAE:
    """The library's VAE around our two networks, with given weights."""
    config = VAEConfig(input_dim=_SHAPE, latent_dim=LATENT_DIM, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder())
    with torch.no_grad():
        for name, layer in layers_of(model).items():
            layer.weight.copy_(torch.from_numpy(weights[f"{name}/kernel"].T))
            layer.bias.copy_(torch.from_numpy(weights[f"{name}/bias"]))
    return model


def layers_of(model: VAE) -> dict[str, nn.Linear]:
    """The layers under the names that all variants share."""
    parts = (model.encoder, model.decoder)
    return {name: layer for part in parts for name, layer in part.named_children()}


def read_weights(model: VAE) -> Weights:
    """The weights in the layout of all variants."""
    weights: Weights = {}
    for name, layer in layers_of(model).items():
        weights[f"{name}/kernel"] = layer.weight.detach().numpy().T
        weights[f"{name}/bias"] = layer.bias.detach().numpy()
    return weights


class TimeIsUpError(Exception):
    """Ends the trainer, which knows no other way to stop early."""


class EpochEnds(TrainingCallback):
    """Tells the benchmark's clock when an epoch is over."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_epoch_end(self, training_config: BaseTrainerConfig, **kwargs: VAE) -> None:
        """Note the time.

        Raises:
            TimeIsUpError: If the clock says so.
        """
        if self.clock.end_epoch(lambda: read_weights(kwargs["model"])):
            raise TimeIsUpError


def collate(items: list[DatasetOutput]) -> DatasetOutput:
    """A batch, its pixels drawn black or white."""
    batch = collate_dataset_output(items)
    return DatasetOutput(data=torch.bernoulli(batch["data"]), labels=batch["labels"])


def make_trainer(assignment: Assignment, clock: Clock) -> BaseTrainer:
    """The trainer with its defaults, but for learning rate, batch, epochs and seed."""
    protocol = assignment.protocol
    pixels = torch.from_numpy(assignment.images).unsqueeze(1).float().div(255)
    dataset = BaseDataset(pixels, torch.zeros(len(pixels)))
    config = BaseTrainerConfig(
        output_dir=str(assignment.work),
        num_epochs=protocol.epochs,
        learning_rate=protocol.learning_rate,
        per_device_train_batch_size=protocol.batch_size,
        seed=protocol.seed,
        no_cuda=True,
    )
    model = build_model(assignment.weights)
    trainer = BaseTrainer(model, dataset, training_config=config, callbacks=[EpochEnds(clock)])
    trainer.train_loader.collate_fn = collate
    return trainer


def measure(assignment: Assignment, clock: Clock) -> Measured:
    """Run pythae's trainer with a thread a core."""
    torch.set_num_threads(assignment.num_threads)
    torch.manual_seed(assignment.protocol.seed)
    clock.start()
    trainer = make_trainer(assignment, clock)
    with contextlib.suppress(TimeIsUpError):
        trainer.train()
    settings = {
        "threads": assignment.num_threads,
        "dtype": "float32",
        "data": "floats in memory, DataLoader, no workers",
        "trainer": "BaseTrainer without evaluation data",
    }
    versions = {
        "pythae": importlib.metadata.version("pythae"),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return Measured(versions, settings)


if __name__ == "__main__":
    run_variant(measure)
