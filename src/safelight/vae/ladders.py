"""Two stochastic layers: z = (z1, z2), p(z) = p(z1|z2) p(z2), of which the decoder sees z1.

The second layer is a prior like another: the model, its bounds and its estimates stay as they are,
because a prior proposes the latents (`Prior.propose`) and the encoder only says what it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from safelight.vae import objectives
from safelight.vae.networks import apply_to_rows
from safelight.vae.priors import (
    Prior,
    StandardNormal,
    VampPrior,
    as_generator,
    posterior_log_density,
)

INFERENCE = ("top_down", "bottom_up")


@keras.saving.register_keras_serializable(package="safelight")
class TwoLayers(Prior):
    """p(z1|z2) is a diagonal Gaussian whose parameters a network makes of z2.

    Inference, given an encoder of pictures:

    * `"top_down"` (Sonderby et al. 2016, arXiv 1602.02282): z2 first; then q(z1|z2, x) is the
      product of p(z1|z2) with what the encoder has seen, each weighed by its precision.
    * `"bottom_up"` (Burda et al. 2016, arXiv 1509.00519): z1 first, then q(z2|z1) by a network; the
      encoder gives z1 alone.

    Args:
        second_units: Units of z2; z1 has those that the decoder takes.
        hidden_units: Widths of the hidden layers between z2 and z1.
        inference: `"top_down"` or `"bottom_up"`.
        top: p(z2), another `Prior`; `None` for the standard normal.
        seed: Of the networks' first weights.
    """

    one_layer = False

    def __init__(
        self,
        second_units: int,
        *,
        hidden_units: Sequence[int] = (100, 100),
        inference: str = "top_down",
        top: Prior | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if inference not in INFERENCE:
            raise ValueError(f"inference={inference!r}: expected one of {', '.join(INFERENCE)}.")
        if second_units < 1:
            raise ValueError(f"second_units={second_units}: expected at least 1.")
        if inference == "bottom_up" and isinstance(top, VampPrior):
            raise ValueError(
                "A VampPrior above and inference='bottom_up': the encoder says nothing of z2, and "
                "q(z2|u) of a pseudo-input u has no closed form; expected inference='top_down', or "
                "another prior."
            )
        self.second_units, self.hidden_units = second_units, tuple(hidden_units)
        self.inference, self.seed = inference, seed
        self.top = StandardNormal() if top is None else top

    def connect(self, encoder: keras.Model, latent_dim: int) -> None:
        """As `Prior.connect`."""
        self.first_units = latent_dim
        self.top.connect(encoder, self.second_units)
        sizes = (self.second_units, latent_dim)
        self.down = _gaussian(*sizes, self.hidden_units, self.seed, "first_given_second")
        self.up = None
        if self.inference == "bottom_up":
            widths = self.hidden_units[::-1]
            self.up = _gaussian(*sizes[::-1], widths, self.seed + 1, "second_given_first")
        self.built = True

    def num_latents(self, visible: int) -> int:
        """Units of both layers."""
        return visible + self.second_units

    def num_encoded(self, visible: int) -> int:
        """Units of both layers, or of the first where inference goes bottom up."""
        return visible + (self.second_units if self.inference == "top_down" else 0)

    def visible(self, z: Any) -> Any:
        """The first layer's."""
        return z[..., : self.first_units]

    def start_from(self, images: np.ndarray) -> None:
        """Passes them on to the second layer's prior."""
        self.top.start_from(images)

    def log_density(self, z: Any) -> Any:
        """As `Prior.log_density`."""
        first, second = self._split(z)
        conditional = objectives.normal_log_density(first, *apply_to_rows(self.down, second))
        return conditional + self.top.log_density(second)

    def sample(self, shape: tuple[int, ...], seed: Any, *, temperature: float = 1.0) -> Any:
        """As `Prior.sample`."""
        seed = as_generator(seed)
        second = self.top.sample((*shape[:-1], self.second_units), seed, temperature=temperature)
        mean, log_variance = apply_to_rows(self.down, second)
        noise = keras.random.normal((*shape[:-1], self.first_units), dtype="float32", seed=seed)
        first = mean + temperature * ops.exp(0.5 * log_variance) * noise
        return ops.concatenate([first, second], axis=-1)

    def propose(
        self, mean: Any, log_variance: Any, noise: Any, *, fixed: bool = False
    ) -> tuple[Any, Any, Any]:
        """As `Prior.propose`."""
        # E[d log q(z1|z2) / d z2] is 0 as well: with `fixed` nothing is missed by leaving it out.
        first, second, log_prior = self._draw(mean, log_variance, noise)
        log_posterior = sum(
            posterior_log_density(z, mean, log_variance, epsilon, fixed=fixed)
            for z, (mean, log_variance), epsilon in (first, second)
        )
        return ops.concatenate([first[0], second[0]], axis=-1), log_prior, log_posterior

    def posterior(self, mean: Any, log_variance: Any) -> tuple[Any, Any]:
        """As `Prior.posterior`."""
        shape = (*ops.shape(mean)[:-1], self.first_units + self.second_units)
        noise = ops.zeros(shape)
        (_, known_1, _), (_, known_2, _), _ = self._draw(mean, log_variance, noise)
        joined = [ops.concatenate(pair, axis=-1) for pair in zip(known_1, known_2, strict=True)]
        return joined[0], joined[1]

    def settled(self) -> Prior:
        """As `Prior.settled`."""
        top = self.top.settled()
        if top is self.top:
            return self
        found = TwoLayers(self.second_units, inference=self.inference, top=top)
        found.first_units, found.down, found.up = self.first_units, self.down, self.up
        found.built = True
        return found

    def _split(self, z: Any) -> tuple[Any, Any]:
        return z[..., : self.first_units], z[..., self.first_units :]

    def _draw(self, mean: Any, log_variance: Any, noise: Any) -> tuple[Any, Any, Any]:
        """(z, (mean, log variance), noise) of each layer, and log p(z1, z2)."""
        draw = self._top_down if self.up is None else self._bottom_up
        return draw(*map(ops.convert_to_tensor, (mean, log_variance, noise)))

    def _top_down(self, mean: Any, log_variance: Any, noise: Any) -> tuple[Any, Any, Any]:
        (seen, mean_2), (log_unsure, log_variance_2) = self._split(mean), self._split(log_variance)
        noise_1, noise_2 = self._split(noise)
        second = mean_2 + ops.exp(0.5 * log_variance_2) * noise_2
        expected, log_spread = apply_to_rows(self.down, second)
        log_variance_1 = -ops.logaddexp(-log_unsure, -log_spread)
        weighed = seen * ops.exp(-log_unsure) + expected * ops.exp(-log_spread)
        mean_1 = ops.exp(log_variance_1) * weighed
        first = mean_1 + ops.exp(0.5 * log_variance_1) * noise_1
        log_prior = objectives.normal_log_density(first, expected, log_spread)
        return (
            (first, (mean_1, log_variance_1), noise_1),
            (second, (mean_2, log_variance_2), noise_2),
            log_prior + self.top.log_density(second),
        )

    def _bottom_up(self, mean: Any, log_variance: Any, noise: Any) -> tuple[Any, Any, Any]:
        noise_1, noise_2 = self._split(noise)
        first = mean + ops.exp(0.5 * log_variance) * noise_1
        mean_2, log_variance_2 = apply_to_rows(self.up, first)
        second = mean_2 + ops.exp(0.5 * log_variance_2) * noise_2
        log_prior = self.log_density(ops.concatenate([first, second], axis=-1))
        return (
            (first, (mean, log_variance), noise_1),
            (second, (mean_2, log_variance_2), noise_2),
            log_prior,
        )

    def get_config(self) -> dict[str, Any]:
        names = ("second_units", "hidden_units", "inference", "seed")
        top = keras.saving.serialize_keras_object(self.top)
        return {**super().get_config(), **{name: getattr(self, name) for name in names}, "top": top}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TwoLayers:
        """The layers of a `get_config`, with new weights."""
        top = keras.saving.deserialize_keras_object(config["top"])
        found = cls(**{**config, "top": top, "inference": "top_down"})
        found.inference = config["inference"]  # models of earlier versions may have both
        return found


def _gaussian(
    num_inputs: int, num_outputs: int, hidden_units: Sequence[int], seed: int, name: str
) -> keras.Model:
    """A network to mean and log variance; the latter starts at 0."""
    x = inputs = keras.Input((num_inputs,))
    for number, units in enumerate(hidden_units):
        start = keras.initializers.GlorotUniform(seed=1000 * (seed + 1) + number)
        dense = layers.Dense(
            units, "tanh", kernel_initializer=start, name=f"hidden_{number}", dtype="float32"
        )
        x = dense(x)
    start = keras.initializers.GlorotUniform(seed=1000 * (seed + 1) - 1)
    heads = [
        layers.Dense(num_outputs, kernel_initializer=kernel, name=head, dtype="float32")(x)
        for head, kernel in (("mean", start), ("log_variance", "zeros"))
    ]
    return keras.Model(inputs, heads, name=name)
