"""pythae's models trained for given minutes, for `vae_likelihood_per_minute.py`.

    python -m peers.vae_pythae_minutes --model vamp --minutes 10 --data mnist.npz --output w.npz

Kinder than its own scripts: pixels are drawn for a whole batch in one call, the rate falls along a
cosine to zero within the time, and batches are larger. Networks: two hidden tanh layers each way,
as wide as ours.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import IWAE, VAE, VAMP, IWAEConfig, VAEConfig, VAMPConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import nn

from measuring import num_cores, write_json
from peers.vae_pythae import collate

_SHAPE = (1, 28, 28)
_PIXELS = 784
MODELS = {
    "vae": lambda shared: (VAE, VAEConfig(**shared)),
    # The paper's number of pseudo-inputs; no warm-up, which would take half of a short training.
    "vamp": lambda shared: (
        VAMP,
        VAMPConfig(number_components=500, linear_scheduling_steps=0, **shared),
    ),
    "iwae": lambda shared: (IWAE, IWAEConfig(number_samples=5, **shared)),
}


class Encoder(BaseEncoder):
    """Pictures to mean and log variance."""

    def __init__(self, widths: tuple[int, ...], latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.hidden, last = make_hidden(_PIXELS, widths)
        self.mean, self.log_variance = nn.Linear(last, latent_dim), nn.Linear(last, latent_dim)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        hidden = self.hidden(x.reshape(len(x), -1))
        return ModelOutput(embedding=self.mean(hidden), log_covariance=self.log_variance(hidden))


class Decoder(BaseDecoder):
    """Latents to probabilities."""

    def __init__(self, widths: tuple[int, ...], latent_dim: int) -> None:
        super().__init__()
        self.hidden, last = make_hidden(latent_dim, widths)
        self.pixels = nn.Linear(last, _PIXELS)

    def forward(self, z: torch.Tensor) -> ModelOutput:
        logits = self.pixels(self.hidden(z))
        return ModelOutput(reconstruction=torch.sigmoid(logits).reshape(*z.shape[:-1], *_SHAPE))


def make_hidden(num_inputs: int, widths: tuple[int, ...]) -> tuple[nn.Sequential, int]:
    """Dense tanh layers, started as Keras starts them, and the width of the last."""
    layers: list[nn.Module] = []
    for width in widths:
        dense = nn.Linear(num_inputs, width)
        nn.init.xavier_uniform_(dense.weight)
        nn.init.zeros_(dense.bias)
        layers += [dense, nn.Tanh()]
        num_inputs = width
    return nn.Sequential(*layers), num_inputs


def build_model(name: str, latent_dim: int, widths: tuple[int, ...], mean: np.ndarray) -> VAE:
    """One of MODELS; the pixels' bias begins at the data's mean, as ours."""
    shared = {"input_dim": _SHAPE, "latent_dim": latent_dim, "reconstruction_loss": "bce"}
    kind, config = MODELS[name](shared)
    model = kind(config, encoder=Encoder(widths, latent_dim), decoder=Decoder(widths, latent_dim))
    probabilities = torch.from_numpy(mean.reshape(-1)).clip(1e-3, 1 - 1e-3)
    with torch.no_grad():
        model.decoder.pixels.bias.copy_(torch.logit(probabilities))
    return model


def read_weights(model: VAE) -> dict[str, np.ndarray]:
    """Kernels and biases in the order of ours: encoder, then decoder; pseudo-inputs if any."""
    parts = {"encoder": model.encoder, "decoder": model.decoder}
    weights = {}
    for part, network in parts.items():
        linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        for i, layer in enumerate(linear):
            weights[f"{part}/{i}/kernel"] = layer.weight.detach().numpy().T
            weights[f"{part}/{i}/bias"] = layer.bias.detach().numpy()
    if isinstance(model, VAMP):
        pictures = model.pseudo_inputs(model.idle_input).reshape(-1, *_SHAPE[1:], 1)
        weights["pseudo_inputs"] = pictures.detach().numpy()
    return weights


def train(model: VAE, images: np.ndarray, *, epochs: int, options: argparse.Namespace) -> VAE:
    """Pythae's trainer with its Adam, and a cosine over the epochs."""
    pixels = torch.from_numpy(images).unsqueeze(1).float().div(255)
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=options.learning_rate,
            per_device_train_batch_size=options.batch_size,
            scheduler_cls="CosineAnnealingLR",
            scheduler_params={"T_max": epochs},
            seed=options.seed,
            no_cuda=True,
        )
        trainer = BaseTrainer(
            model, BaseDataset(pixels, torch.zeros(len(pixels))), training_config=config
        )
        trainer.train_loader.collate_fn = collate
        trainer.train()
    return model


def measure(options: argparse.Namespace) -> None:
    """Two epochs to know the speed, then as many as fit into the time, from new weights."""
    torch.set_num_threads(num_cores())
    with np.load(options.data) as arrays:
        images = arrays["train"]
    widths = tuple(int(width) for width in options.hidden_units.split(","))
    build = (options.model, options.latent_dim, widths, (images.mean(0) / 255).astype("float32"))
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        train(build_model(*build), images, epochs=1, options=options)
        seconds.append(time.perf_counter() - started)
    epochs = max(1, round(60 * options.minutes / min(seconds)))
    torch.manual_seed(options.seed)
    started = time.perf_counter()
    model = train(build_model(*build), images, epochs=epochs, options=options)
    elapsed = time.perf_counter() - started
    np.savez(options.output, **read_weights(model))
    versions = {name: importlib.metadata.version(name) for name in ("pythae", "torch", "numpy")}
    content = {"epochs": epochs, "seconds": elapsed, "versions": versions}
    write_json(options.output.with_suffix(".json"), content)


def parse() -> argparse.Namespace:
    """The driver's call."""
    parser = argparse.ArgumentParser(description="A pythae model, trained for some minutes.")
    parser.add_argument("--model", choices=tuple(MODELS), required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--latent-dim", type=int, required=True)
    parser.add_argument("--hidden-units", required=True)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    for name in ("data", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    measure(parse())
