"""A prior made of invertible steps: RealNVP (Dinh et al. 2017, arXiv 1605.08803)."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from safelight.vae import objectives
from safelight.vae.networks import apply_to_rows
from safelight.vae.priors import Prior

_LOG_SCALE_LIMIT = 2.0  # of one step, softly: its scale stays between e^-2 and e^2


@keras.saving.register_keras_serializable(package="safelight")
class Flow(Prior):
    """z is u ~ N(0, I) pushed through affine couplings; the change of volume is known exactly.

    A coupling shifts and scales half of the units by what a small network makes of the others; then
    the units are reversed, so that the next one changes the other half. At the start every coupling
    changes nothing: training begins at the standard normal.

    Args:
        num_couplings: Steps.
        hidden_units: Width of each network's two hidden layers.
        seed: Of their first weights.
    """

    def __init__(
        self, num_couplings: int = 6, hidden_units: int = 100, *, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_couplings < 2:
            raise ValueError(
                f"num_couplings={num_couplings}: expected at least 2, so that every unit is "
                "changed once."
            )
        self.num_couplings, self.hidden_units, self.seed = num_couplings, hidden_units, seed

    def connect(self, encoder: keras.Model, latent_dim: int) -> None:
        """As `Prior.connect`."""
        self.connect_units(latent_dim)

    def connect_units(self, latent_dim: int) -> None:
        """Builds the couplings, which ask for no encoder; errors as of `check_units`."""
        check_units(latent_dim)
        self.couplings = [
            _network(latent_dim, self.hidden_units, self.seed + number, f"coupling_{number}")
            for number in range(self.num_couplings)
        ]
        self.built = True

    def log_density(self, z: Any) -> Any:
        """As `Prior.log_density`."""
        volume: Any = 0.0
        for coupling in self.couplings:
            still, moved, shift, log_scale = _halves(coupling, z)
            moved = moved * ops.exp(log_scale) + shift
            volume = volume + ops.sum(log_scale, axis=-1)
            z = ops.flip(ops.concatenate([still, moved], axis=-1), axis=-1)
        return objectives.normal_log_density(z) + volume

    def sample(self, shape: tuple[int, ...], seed: Any, *, temperature: float = 1.0) -> Any:
        """As `Prior.sample`."""
        z = temperature * keras.random.normal(shape, dtype="float32", seed=seed)
        for coupling in reversed(self.couplings):
            still, moved, shift, log_scale = _halves(coupling, ops.flip(z, axis=-1))
            z = ops.concatenate([still, (moved - shift) * ops.exp(-log_scale)], axis=-1)
        return z

    def get_config(self) -> dict[str, Any]:
        names = ("num_couplings", "hidden_units", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def check_units(latent_dim: int) -> None:
    """Whether there can be a flow of so many units.

    Raises:
        ValueError: There are fewer than two.
    """
    if latent_dim < 2:
        raise ValueError(
            f"A flow of {latent_dim} latent unit: a coupling needs two; expected latent_dim=2 or "
            "more (second_latent_dim, where there are two layers), or a mixture."
        )


def _network(latent_dim: int, hidden_units: int, seed: int, name: str) -> keras.Model:
    """From the first half of the units to shift and scale of the second; zeros at first.

    On PyTorch, Keras knows weights of networks in a list by their paths alone, and `fit` would add
    up gradients, step by step, of those that share one: so each layer has a name of its own.
    """
    still = latent_dim // 2
    x = inputs = keras.Input((still,))
    for number in range(2):
        start = keras.initializers.GlorotUniform(seed=2 * seed + number)
        hidden = f"{name}_hidden_{number}"
        dense = layers.Dense(
            hidden_units, "tanh", kernel_initializer=start, name=hidden, dtype="float32"
        )
        x = dense(x)
    outputs = layers.Dense(
        2 * (latent_dim - still), kernel_initializer="zeros", name=f"{name}_affine", dtype="float32"
    )
    return keras.Model(inputs, outputs(x), name=name)


def _halves(coupling: keras.Model, z: Any) -> tuple[Any, Any, Any, Any]:
    """The units that stay, those that are moved, and by how much: shift and log scale."""
    width = z.shape[-1] // 2
    still, moved = z[..., :width], z[..., width:]
    (affine,) = apply_to_rows(coupling, still)
    shift, log_scale = ops.split(affine, 2, axis=-1)
    return still, moved, shift, _LOG_SCALE_LIMIT * ops.tanh(log_scale / _LOG_SCALE_LIMIT)
