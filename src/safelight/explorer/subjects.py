"""What the page has to know of a model, whatever kind it is: an autoencoder, a GAN, a VAE/GAN.

Everything here is about the latents that the network takes; of two stochastic layers these are the
first one's, and the second one's only shape the prior from which samples are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy.special import ndtri

from safelight.gan import experiment as games
from safelight.gan.models import GAN
from safelight.runs import Run
from safelight.vae import experiment
from safelight.vae.latent_paths import prior_quantiles
from safelight.vae.models import VAE
from safelight.vae.priors import StandardNormal

Encode = Callable[[np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray]]

NUM_DRAWS = 3_000
# Of a normal prior these are the places of -3.3 and +3.3.
_ENDS = (0.0005, 0.5, 0.9995)
_PROBES = 16  # draws, around each of which every unit is moved
_TOGETHER = 512  # pictures, of several units


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model as the page sees it.

    Attributes:
        run: Where it comes from.
        network: From latents (and one-hot labels) to pictures.
        likelihood: Whose mean the picture is, or `None` where the network gives pictures itself.
        image_shape: `(height, width, channels)`.
        num_classes: That the network is told; 0 for none.
        num_units: Latents that it takes.
        hidden_units: Of a second stochastic layer, behind its prior.
        prior: What its prior is called.
        seed: Of the run.
        draws: `(NUM_DRAWS, num_units)` of a learned prior, which a browser does not know; `None`
            for N(0, 1).
        places: `(3, num_units)`, the prior's quantiles .0005, .5 and .9995.
        change: `(num_units,)`, how far a picture moves with a unit, in grey values of 255; `None`
            where the KL divergence says what a unit is worth.
        encode: Mean and log variance, `(n, num_units)` each, of uint8 pictures and their labels;
            `None` for a model that cannot.
    """

    run: Run
    network: keras.Model
    likelihood: str | None
    image_shape: tuple[int, ...]
    num_classes: int
    num_units: int
    hidden_units: int
    prior: str
    seed: int
    draws: NDArray[np.float32] | None
    places: NDArray[np.float64]
    change: NDArray[np.float64] | None
    encode: Encode | None


def find_subject(run: Run) -> Subject:
    """A run's model, ready to be shown.

    Raises:
        ValueError: It is no run of an autoencoder or a GAN, or has no model.
    """
    return _KINDS[check_kind(run)](run)


def check_kind(run: Run) -> str:
    """The kind of a run that has latents to walk in; cheap, its settings are looked at as well.

    Raises:
        ValueError: It is of another kind, or its settings are damaged.
    """
    kind = run.config.get("kind")
    if kind not in ("vae", "gan"):
        raise ValueError(
            f"{run.path} is a run of kind {kind!r}: expected one that `vae train` or `gan train` "
            "made."
        )
    (experiment if kind == "vae" else games).settings_of(run)
    return kind


def _of_vae(run: Run) -> Subject:
    config = experiment.settings_of(run)
    model = experiment.load_vae(run)
    seen = model.visible_dim

    def encode(images: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        told = labels if model.num_classes else None
        mean, log_variance = model.encode(experiment.learned_part(images, config), told)
        return mean[:, :seen], log_variance[:, :seen]

    return Subject(
        run=run,
        network=model.decoder,
        likelihood=model.likelihood.name,
        image_shape=model.image_shape,
        num_classes=model.num_classes,
        num_units=seen,
        hidden_units=model.latent_dim - seen,
        prior=type(model.prior).__name__,
        seed=config.seed,
        draws=_draw_from_prior(model, seed=config.seed),
        places=prior_quantiles(model, _ENDS)[:, :seen],
        change=None,
        encode=encode,
    )


def _of_gan(run: Run) -> Subject:
    config = games.settings_of(run)
    model = games.load_gan(run)
    change = find_change(model, seed=config.seed)
    if not np.isfinite(change).all():
        raise ValueError(
            f"{run.model_path}: draws something else than numbers; train the run again."
        )
    return Subject(
        run=run,
        network=model.generator,
        likelihood=None,
        image_shape=model.image_shape,
        num_classes=model.num_classes,
        num_units=model.latent_dim,
        hidden_units=0,
        prior=StandardNormal.__name__,
        seed=config.seed,
        draws=None,
        places=np.repeat(ndtri(_ENDS)[:, None], model.latent_dim, axis=1),
        change=change,
        encode=None if model.encoder is None else lambda images, _: model.encode(images),
    )


def _draw_from_prior(model: VAE, *, seed: int) -> NDArray[np.float32] | None:
    """Draws of a learned prior; of two layers the first one's, each given a draw of the second."""
    if isinstance(model.prior, StandardNormal):
        return None
    drawn = ops.convert_to_numpy(model.prior.sample((NUM_DRAWS, model.latent_dim), seed))
    return drawn[:, : model.visible_dim].astype("float32")


def find_change(model: GAN, *, seed: int) -> NDArray[np.float64]:
    """How far a picture moves when a unit goes from half a step below its draw to half above.

    Args:
        model: Trained.
        seed: Of the draws.

    Returns:
        `(latent_dim,)` mean distances of the pixels, in grey values of 255. The classes of a
        conditional model take turns.
    """
    units, rows = model.latent_dim, max(1, _TOGETHER // _PROBES)
    z = np.random.default_rng(seed).standard_normal((_PROBES, units), "float32")
    steps = 0.5 * np.eye(units, dtype="float32")
    labels: Any = np.arange(_PROBES) % model.num_classes if model.num_classes else None
    change = []
    for first in range(0, units, rows):
        some = steps[first : first + rows, None]
        told = None if labels is None else np.tile(labels, len(some))
        below, above = (
            model.decode_all((z + sign * some).reshape(-1, units), told) for sign in (-1, 1)
        )
        distance = np.abs(above - below).reshape(len(some), -1)
        change.append(255 * distance.mean(axis=1, dtype="float64"))
    return np.concatenate(change)


_KINDS: dict[str, Callable[[Run], Subject]] = {"vae": _of_vae, "gan": _of_gan}
