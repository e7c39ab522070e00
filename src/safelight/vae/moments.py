"""What a training shows of itself while it runs: a line of words, and the model as it is."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from safelight.vae.config import TrainConfig, ways_to_wake_units
from safelight.vae.loops import ACTIVE_VARIANCE
from safelight.vae.models import VAE
from safelight.vae.objectives import warmup_weight
from safelight.vae.priors import StandardNormal

logger = logging.getLogger(__name__)

Report = Callable[[str, int, int, str], None]
"""Called with (stage, done, total, a few words); a progress bar for instance."""
EpochCallback = Callable[[int, dict[str, list[float]]], None]
"""Called after each epoch with its number, from 1, and the history so far."""


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """A training between two of its steps.

    Attributes:
        epochs: Done so far, the share of the one that is going on included.
        seconds: Since it began, those of the runs before included.
        finished: Whether this is what the training leaves.
        model: That is trained. Its own weights are not those of the moment, see `load`.
        average: Reads the averaged weights, in the order of the model's trainable variables.
    """

    epochs: float
    seconds: float
    finished: bool
    model: VAE
    average: Callable[[], list[np.ndarray]]

    def load(self) -> VAE:
        """Gives the model the averaged weights of this moment. The training does not notice."""
        for variable, value in zip(self.model.trainable_variables, self.average(), strict=True):
            variable.assign(value)
        return self.model


@runtime_checkable
class Watcher(Protocol):
    """Who is shown a training before its first step, about every second, and when it has ended."""

    def look(self, moment: Moment) -> None:
        """Is shown a moment; the time this takes is the training's own."""


def silent(stage: str, done: int, total: int, words: str) -> None:
    """Reports nothing."""


def describe(
    means: Mapping[str, float], active: int | None, latent_dim: int, images_per_second: float
) -> str:
    """A line of progress, such as "ELBO -98.2 = reconstruction -73.1 - KL 25.1 nats, 17/20 ...".

    Args:
        means: `elbo`, `reconstruction` and `kl`, nats per image.
        active: Active units, if known.
        latent_dim: Units.
        images_per_second: 0 if not known.
    """
    words = (
        f"ELBO {means['elbo']:.1f} = reconstruction {means['reconstruction']:.1f} "
        f"- KL {means['kl']:.1f} nats"
    )
    if active is not None:
        words += f", {active}/{latent_dim} units active"
    if images_per_second:
        speed = images_per_second
        number = f"{speed / 1000:.0f}k" if speed >= 10_000 else f"{speed:.0f}"
        words += f", {number} images/s"
    return words


def advise_on_collapse(model: VAE, config: TrainConfig, active: int) -> str:
    """What to do if hardly any latent unit tells pictures apart.

    Args:
        model: Its own beta, samples and prior are what is trained with.
        config: What is not the model's: warm-up, and samples at the end.
        active: Units.
    """
    settings = {
        "prior": "normal" if isinstance(model.prior, StandardNormal) else "learned",
        "final_samples": config.final_samples,
        "final_gradient": config.final_gradient,
        "warmup_epochs": config.warmup_epochs,
        "epochs": config.epochs,
        **{name: getattr(model, name) for name in ("num_samples", "free_bits", "gradient", "beta")},
    }
    ways = [f"{name}={value:g}" for name, value in ways_to_wake_units(settings).items()]
    return (
        f"{active} of {model.latent_dim} latent units are active (over the pictures their means "
        f"have a variance above {ACTIVE_VARIANCE:g}): the KL divergence has driven the others to "
        f"the prior, and the decoder ignores them. Try {' or '.join(ways or ['more epochs'])}, and "
        "look whether the pictures use the whole range from 0 to 255."
    )


def warn_of_warmup(epochs: int, warmup_epochs: int) -> None:
    """Says that a training is over before the KL divergence had its whole weight.

    Args:
        epochs: Done, the last of them perhaps in part.
        warmup_epochs: As in the settings.
    """
    if 0 < epochs <= warmup_epochs:
        logger.warning(
            "the training ended in epoch %d, and its warm-up would have taken %d: the weight of "
            "the KL divergence was %.2g at last, as if beta were smaller. Train for longer, or "
            "with fewer warmup_epochs.",
            epochs,
            warmup_epochs,
            warmup_weight(epochs - 1, warmup_epochs),
        )
