"""A new model from a configuration: which networks, which likelihood, which prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from safelight.vae import likelihoods, networks
from safelight.vae.config import TrainConfig
from safelight.vae.flows import Flow
from safelight.vae.ladders import TwoLayers
from safelight.vae.models import VAE
from safelight.vae.priors import Mixture, Prior, StandardNormal, VampPrior


def build_vae(
    image_shape: Sequence[int],
    config: TrainConfig,
    *,
    num_classes: int = 0,
    mean_picture: np.ndarray | None = None,
    images: np.ndarray | None = None,
) -> VAE:
    """A model with new weights, as a configuration says.

    Where it says `"auto"`, pictures of one channel get the Bernoulli likelihood with dynamic
    binarisation, as for digits, and others the discretised logistic: for grey photographs say
    `likelihood="discretized_logistic"`, as `vae train` does. Where the binarisation is given, the
    likelihood is the one that suits it. The precision is Keras' global policy.

    Args:
        image_shape: `(height, width, channels)`.
        config: The settings. `binarization="static"` is the data's business: the model takes them
            as they come.
        num_classes: Number of labels; used if `config.conditional`.
        mean_picture: The training images' mean, `image_shape`, values in [0, 1]: where the decoder
            starts.
        images: Training images, uint8 `(n, *image_shape)`, of which some are where a VampPrior
            starts; without them from noise.

    Raises:
        ValueError: A conditional model without labels, a mean picture in other units, or a prior
            that the model does not allow.
    """
    if config.conditional and num_classes < 1:
        raise ValueError(
            f"conditional=True with num_classes={num_classes}: expected the number of labels. "
            "Pass labelled images, or conditional=False."
        )
    likelihood = likelihoods.choose_likelihood(
        config.likelihood, config.binarization, drawn=image_shape[-1] == 1
    )
    binarization = {"auto": None, "static": "none"}.get(config.binarization, config.binarization)
    options: dict[str, Any] = {
        "architecture": config.architecture,
        "hidden_units": config.hidden_units,
        "activation": config.activation,
        "num_classes": num_classes if config.conditional else 0,
        "dtype": {"auto": None, "bfloat16": "mixed_bfloat16"}.get(config.precision, "float32"),
    }
    keras.utils.set_random_seed(config.seed)
    location = _initial_location(likelihood, mean_picture)
    prior = build_prior(config)
    units = prior.num_encoded(config.latent_dim)
    model = VAE(
        networks.build_encoder(image_shape, units, **options),
        networks.build_decoder(
            image_shape, config.latent_dim, initial_location=location, **options
        ),
        likelihood=likelihood,
        binarization=binarization,
        prior=prior,
        seed=config.seed,
        beta=config.beta,
        num_samples=config.num_samples,
        free_bits=config.free_bits,
        gradient=config.gradient,
        backward_samples=config.backward_samples,
    )
    if images is not None:
        prior.start_from(images)
    return model


def build_prior(config: TrainConfig) -> Prior:
    """A new prior as a configuration says; the model connects it.

    Raises:
        ValueError: As `TrainConfig.check_new`.
    """
    config.check_new()
    kinds: dict[str, Callable[[], Prior]] = {
        "normal": StandardNormal,
        "mixture": lambda: Mixture(config.prior_components, seed=config.seed),
        "vamp": lambda: VampPrior(config.prior_components, seed=config.seed),
        "flow": lambda: Flow(config.flow_couplings, config.flow_units, seed=config.seed),
    }
    top = kinds[config.prior]()
    if not config.second_latent_dim:
        return top
    return TwoLayers(
        config.second_latent_dim, inference=config.inference, top=top, seed=config.seed
    )


def _initial_location(likelihood: str, mean_picture: np.ndarray | None) -> np.ndarray | None:
    if mean_picture is None:
        return None
    if not 0 <= np.min(mean_picture) <= np.max(mean_picture) <= 1:
        raise ValueError(
            f"mean_picture has values from {np.min(mean_picture)} to {np.max(mean_picture)}: "
            "expected 0 to 1. Divide the mean of uint8 images by 255."
        )
    return likelihoods.find_likelihood(likelihood).initial_location(mean_picture)
