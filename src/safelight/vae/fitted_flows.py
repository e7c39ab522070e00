"""A flow fitted to the latents of pictures: a density as in `densities`, of any shape.

    fitted = fit_flow(model, train=images, validation=others, test=test_images)
    pictures = fitted.density.decode(model, 64)

Gaussians need many components for a bent or a thin cloud; a flow bends with it. It learns from
draws of q(z|x) by maximum likelihood (Dinh et al. 2017, arXiv 1605.08803), and keeps the weights
that held-out pictures like best.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from safelight.metrics import Interval
from safelight.untrusted import take
from safelight.vae.densities import (
    Density,
    Fitted,
    Part,
    compare_densities,
    draw_held_out,
    encode_some,
    propose_latents,
)
from safelight.vae.flows import Flow
from safelight.vae.models import VAE
from safelight.vae.surgery import log_prior

_NUM_COUPLINGS, _HIDDEN_UNITS = 6, 100
_MAX_COUPLINGS, _MAX_HIDDEN_UNITS = 64, 4096  # of a file that somebody else may have made
_MAX_IMAGES = 60_000
_NUM_DRAWS, _BATCH = 20_000, 250  # of a round
_ROUNDS, _PATIENCE, _RATE = 60, 10, 2e-3


@dataclasses.dataclass(frozen=True, eq=False)
class FlowDensity(Density):
    """A flow over standardised latents.

    Attributes:
        flow: Of (z - shift) / scale.
        shift: `(latent_dim,)`.
        scale: `(latent_dim,)`, positive.
    """

    flow: Flow
    shift: NDArray[np.float64]
    scale: NDArray[np.float64]

    @property
    def latent_dim(self) -> int:
        """As `Density.latent_dim`."""
        return len(self.shift)

    def describe(self) -> str:
        """As `Density.describe`."""
        return f"a flow of {self.flow.num_couplings} couplings"

    def log_density(self, z: ArrayLike) -> NDArray[np.float64]:
        """As `Density.log_density`."""
        rows = (np.asarray(z, np.float64) - self.shift) / self.scale
        return log_prior(self.flow, rows) - np.log(self.scale).sum()

    def sample(self, num: int, *, seed: int) -> NDArray[np.float64]:
        """As `Density.sample`."""
        z = ops.convert_to_numpy(self.flow.sample((num, self.latent_dim), seed))
        return self.shift + self.scale * z.astype(np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedFlow(Fitted):
    """A flow, and what it is worth.

    Attributes:
        density: The flow.
        log_density: Mean log density of latents of test pictures under `"prior"` and `"flow"`,
            nats, as in `FittedDensity`.
        gain: Over the prior, with its interval for other pictures.
    """

    FILE = "density_flow.npz"
    density: FlowDensity
    log_density: Mapping[str, float]
    gain: Interval

    def named(self, _: str) -> tuple[FlowDensity, Interval]:
        """As `Fitted.named`: there is but one."""
        return self.density, self.gain

    def to_arrays(self) -> dict[str, Any]:
        """As `Fitted.to_arrays`."""
        flow = self.density.flow
        arrays: dict[str, Any] = {
            "sizes": np.array([flow.num_couplings, flow.hidden_units]),
            "shift": self.density.shift,
            "scale": self.density.scale,
            "log_density": np.array([self.log_density[name] for name in ("prior", "flow")]),
            "gain": np.array(dataclasses.astuple(self.gain)[:3]),
        }
        return arrays | {f"weight_{i}": weight for i, weight in enumerate(flow.get_weights())}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """As `Fitted.from_arrays`."""
        couplings, units = take(arrays, "sizes", kinds="iu", shape=(2,)).tolist()
        if not (2 <= couplings <= _MAX_COUPLINGS and 1 <= units <= _MAX_HIDDEN_UNITS):
            raise ValueError("its flow has a size that no fit gives")
        shift = take(arrays, "shift", kinds="d", shape=(None,))
        scale = take(arrays, "scale", kinds="d", shape=shift.shape)
        if not len(scale) or scale.min() <= 0:
            raise ValueError("its latents have no width")
        # Before anything of these sizes is made: a small file may name large ones.
        shapes = _network_shapes(len(shift), units) * couplings
        weights = [
            take(arrays, f"weight_{i}", kinds="f", shape=shape) for i, shape in enumerate(shapes)
        ]
        flow = _new_flow(len(shift), couplings, units, seed=0)
        flow.set_weights(weights)
        values = take(arrays, "log_density", kinds="d", shape=(2,), finite=False).tolist()
        gain = Interval(*take(arrays, "gain", kinds="d", shape=(3,), finite=False).tolist())
        return cls(
            FlowDensity(flow, shift, scale), dict(zip(("prior", "flow"), values, strict=True)), gain
        )


def fit_flow(model: VAE, *, train: Part, validation: Part, test: Part, seed: int = 0) -> FittedFlow:
    """Fits a flow to where pictures lie in the latent space.

    Args:
        model: As trained, with any prior, and two latent units at least.
        train: uint8 `(n, height, width, channels)` to fit to, or `(images, labels)` for a
            conditional model; of their latents new draws are taken round after round.
        validation: The like, which says when to stop.
        test: The like, on which flow and prior are compared.
        seed: Of all draws, and of the flow's first weights.

    Raises:
        ValueError: A single latent unit, or arrays that do not fit the model.
    """
    flow = _new_flow(model.latent_dim, _NUM_COUPLINGS, _HIDDEN_UNITS, seed=seed)
    encoded = encode_some(model, train, _MAX_IMAGES, seed=seed)
    chosen, judged = draw_held_out(model, validation, test, seed=seed)
    chosen, rows = (each.reshape(-1, model.latent_dim) for each in (chosen, judged))

    def rounds() -> Iterator[NDArray[np.float64]]:
        rng, prior = np.random.default_rng(seed), model.prior.settled()
        for number in range(_ROUNDS):
            order = rng.permutation(len(encoded[0]))
            rows = np.resize(order, _NUM_DRAWS)  # again and again, where pictures are few
            mean, log_variance = (each[rows] for each in encoded)
            yield propose_latents(prior, mean, log_variance, 1, seed=seed + 3 + number)[0]

    density = learn(flow, rounds(), held_out=chosen)
    values = {"prior": log_prior(model.prior, rows), "flow": density.log_density(rows)}
    means, gains = compare_densities(values, judged.shape[1], seed=seed)
    return FittedFlow(density, means, gains["flow"])


def learn(
    flow: Flow, rounds: Iterator[NDArray[np.float64]], *, held_out: NDArray[np.float64]
) -> FlowDensity:
    """Maximum likelihood by Adam, until held-out latents have liked nothing better for long.

    Args:
        flow: To fit; connected.
        rounds: Latents `(n, latent_dim)` to learn from, at most `_ROUNDS` times; the first
            standardise all.
        held_out: `(m, latent_dim)`; the weights that they like best are kept.
    """
    first = next(rounds)
    shift, scale = first.mean(0), np.maximum(first.std(0), 1e-6)
    density, learner = FlowDensity(flow, shift, scale), _Learner(flow)
    steps = _ROUNDS * math.ceil(len(first) / _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_RATE, steps)
    learner.compile(keras.optimizers.Adam(rate), loss=_mean_of_outputs)
    best, kept, since = density.log_density(held_out).mean(), flow.get_weights(), 0  # a Gaussian
    for z in itertools.chain([first], rounds):
        x = ((z - shift) / scale).astype("float32")
        # The order is that of the draws, which is random enough.
        learner.fit(x, np.zeros(len(x), "float32"), batch_size=_BATCH, shuffle=False, verbose=0)
        found = density.log_density(held_out).mean()
        if found > best:
            best, kept, since = found, flow.get_weights(), 0
        else:
            since += 1
        if since == _PATIENCE:
            break
    flow.set_weights(kept)
    return density


class _Learner(keras.Model):
    """Latents to minus their log density, which is to fall."""

    def __init__(self, flow: Flow) -> None:
        super().__init__(name="flow_learner", dtype="float32")
        self.flow = flow

    def build(self, _: Any) -> None:
        """Has no weights but the flow's; Keras tells PyTorch of them once this was called."""

    def call(self, z: Any) -> Any:
        return -self.flow.log_density(z)


def _mean_of_outputs(_: Any, outputs: Any) -> Any:
    return ops.mean(outputs)


def _new_flow(latent_dim: int, num_couplings: int, hidden_units: int, *, seed: int) -> Flow:
    flow = Flow(num_couplings, hidden_units, seed=seed)
    flow.connect_units(latent_dim)
    return flow


def _network_shapes(latent_dim: int, hidden_units: int) -> list[tuple[int, ...]]:
    """Of the weights of one coupling's network: three layers, each a kernel and a bias."""
    still = latent_dim // 2
    widths = (still, hidden_units, hidden_units, 2 * (latent_dim - still))
    return [shape for pair in itertools.pairwise(widths) for shape in (pair, pair[1:])]
