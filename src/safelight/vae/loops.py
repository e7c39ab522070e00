"""A whole epoch of training in one compiled function, for each backend.

The model of a small autoencoder costs less than an ordinary loop around it. So the pictures lie in
memory as uint8, and one call runs as many steps as wanted: it picks the rows of a batch, draws
their pixels black and white, computes gradients through the model's own `terms` and `objective`,
and applies Adam and the running average of the weights. TensorFlow runs it as one XLA program, JAX
as one `fori_loop`, PyTorch as a loop over tensors in memory.

All randomness of an epoch follows from (seed, epoch): the order, the draws of pixels and latents,
and every `SeedGenerator` inside the networks. Hence an epoch can be run again, and all backends
train on the same numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from safelight.vae.backends import State, find_backend
from safelight.vae.devices import Devices
from safelight.vae.models import LOGS, VAE

ACTIVE_VARIANCE = 0.01
_PLACES = ("weights", "mean", "square", "average", "others")
# Streams of random numbers that follow from one seed, beside the order of the images.
_PIXELS, _LATENTS, _OTHERS = 1, 2, 3


def epoch_order(seed: int, epoch: int, num_images: int, batch_size: int) -> np.ndarray:
    """Which images each step of an epoch sees.

    Args:
        seed: Of the training.
        epoch: The first is 0.
        num_images: Every one of them is seen; the last batch is filled up from the beginning.
        batch_size: Images in a step.

    Returns:
        `(steps, batch)` int32.
    """
    order = np.random.default_rng([seed, epoch]).permutation(num_images)
    num_steps = -(-num_images // batch_size)
    return np.resize(order, (num_steps, batch_size)).astype("int32")


def noise_states(shape: tuple[int, ...], *stream: int) -> np.ndarray:
    """Generators of random numbers, one for each element: int32 of that shape, none 0.

    Args:
        shape: Of the result.
        stream: Numbers that all of them follow from, the seed first.
    """
    states = np.random.default_rng(stream).integers(1, 2**32, shape, dtype="uint32")
    return states.view("int32")


def next_states(states: Any) -> Any:
    """The next 32 random bits of every generator, which are its next state as well.

    Marsaglia's xorshift (2003, J. Stat. Soft. 8/14), triple 13, 17, 5. On a CPU it costs a fraction
    of the counter-based generators of the backends, which take up to two thirds of a step.
    """
    states = ops.bitwise_xor(states, ops.bitwise_left_shift(states, 13))
    states = ops.bitwise_xor(states, _shift_right(states, 17))
    return ops.bitwise_xor(states, ops.bitwise_left_shift(states, 5))


def _shift_right(bits: Any, by: int) -> Any:
    """Of signed numbers, which all backends have, as if they were unsigned."""
    return ops.bitwise_and(ops.bitwise_right_shift(bits, by), 2 ** (32 - by) - 1)


def draw_binary(images: Any, bits: Any) -> Any:
    """Draws each pixel white with its grey value as probability, exact to 1/65536.

    Args:
        images: `(batch, height, width, channels)` uint8.
        bits: `(batch, pixels / 2, rounded up)` int32, 32 random bits each.

    Returns:
        0 and 1, float32, the images' shape.
    """
    shape = tuple(images.shape)
    num_pixels = math.prod(shape[1:])
    halves = [ops.bitwise_and(bits, 0xFFFF), _shift_right(bits, 16)]
    uniform = ops.concatenate(halves, axis=1)[:, :num_pixels]
    # floor(255 u / 65536) is uniform on 0 to 254, so it is below k in k of 255 cases.
    level = ops.bitwise_right_shift(uniform * 255, 16)
    pixels = ops.cast(ops.reshape(images, (shape[0], num_pixels)), "int32")
    return ops.reshape(ops.cast(level < pixels, "float32"), shape)


def draw_normal(bits: Any, num: int) -> Any:
    """Draws from N(0, 1) by Box & Muller (1958, Ann. Math. Stat. 29/2).

    Args:
        bits: `(2, ..., num / 2, rounded up)` int32, 32 random bits each.
        num: Length of the last axis of the result.

    Returns:
        `(..., num)` float32.
    """
    # In (0, 1], since the logarithm of 0 would be infinite.
    uniform = (ops.cast(_shift_right(bits, 8), "float32") + 1.0) * 2.0**-24
    radius, angle = ops.sqrt(-2.0 * ops.log(uniform[0])), 2 * math.pi * uniform[1]
    halves = [radius * ops.cos(angle), radius * ops.sin(angle)]
    return ops.concatenate(halves, axis=-1)[..., :num]


class _Variables:
    """A model's variables: those that are trained, and the others."""

    def __init__(self, model: VAE) -> None:
        self.trained = list(model.trainable_variables)
        self.others = list(model.non_trainable_variables)
        self.kl_weight = next(i for i, v in enumerate(self.others) if v is model.kl_weight)
        self.seeds = [i for i, v in enumerate(self.others) if "seed_generator_state" in v.path]
        self.names = {
            "weights": _name_all(model, self.trained),
            "others": _name_all(model, self.others),
        }

    def places(self) -> Iterator[tuple[str, int, str]]:
        """What makes up a state: place, number, name of all tensors that outlive an epoch."""
        for place in _PLACES:
            names = self.names["others" if place == "others" else "weights"]
            for i, name in enumerate(names):
                # The generators' states have names of chance, and every epoch sets them anew.
                if place != "others" or i not in self.seeds:
                    yield place, i, f"{place}/{name}"

    def set_seeds(self, others: list[np.ndarray], seed: int, epoch: int) -> None:
        """Sets every `SeedGenerator` to where it stands at the start of an epoch."""
        for place in self.seeds:
            # Backends may add seed and counter up; far apart, two generators never meet.
            start = np.random.default_rng([seed, epoch, _OTHERS, place]).integers(2**31 - 1)
            others[place] = np.array([start, 0], others[place].dtype)

    @contextlib.contextmanager
    def hold(self, weights: list[Any], others: list[Any]) -> Iterator[keras.StatelessScope]:
        """Within it the model has these values in place of its own."""
        pairs = (*zip(self.trained, weights, strict=True), *zip(self.others, others, strict=True))
        with keras.StatelessScope(state_mapping=pairs) as scope:
            yield scope


def _name_all(model: VAE, variables: list[Any]) -> list[str]:
    """The variables' paths, those of encoder and decoder told apart."""
    parts = {"encoder": model.encoder.variables, "decoder": model.decoder.variables}
    owners = {id(v): part for part, some in parts.items() for v in some}
    names = [f"{owners.get(id(v), model.name)}/{v.path}" for v in variables]
    return [f"{n}:{i}" if names.count(n) > 1 else n for i, n in enumerate(names)]


def _is_kernel(name: str) -> bool:
    return name.split(":", maxsplit=1)[0].endswith("/kernel")


def _is_convolutional(model: VAE) -> bool:
    return any("Conv" in type(layer).__name__ for layer in model._flatten_layers())


def _read(tensor: Any) -> np.ndarray:
    return np.array(ops.convert_to_numpy(tensor))


class EpochLoop:
    """The training of one model on one array of pictures, as many steps at a time as wanted.

    The model's own variables keep their values. `begin` comes first.

    Args:
        model: A built `VAE`.
        images: `(n, height, width, channels)` uint8.
        labels: `(n,)` integers for a conditional model.
        batch_size: Images in a step.
        seed: Of order and noise.
        weight_decay: Part of the kernels that a step with learning rate 1 would take away, apart
            from Adam (Loshchilov & Hutter 2019, arXiv 1711.05101).
        devices: That share the work; `None` for one.
        **objective: `num_samples` and `gradient` in place of the model's own.

    Attributes:
        num_steps: Steps in an epoch.
    """

    def __init__(
        self,
        model: VAE,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        batch_size: int,
        seed: int = 0,
        weight_decay: float = 0.0,
        devices: Devices | None = None,
        **objective: Any,
    ) -> None:
        self._model, self._seed, self._backend = model, seed, find_backend()
        self._devices = devices
        self._weight_decay, self._objective = weight_decay, objective
        self._num_images, self._batch_size = len(images), batch_size
        self.num_steps = -(-len(images) // batch_size)
        data = [images] if labels is None else [images, np.asarray(labels, "int32")]
        self._data = [self._tensor(array) for array in data]
        pixels = math.prod(images.shape[1:]) if model.binarization == "dynamic" else 0
        with self._own_objective():
            samples = () if model.num_samples == 1 else (model.num_samples,)
        self._noise_shapes = {
            "pixels": (batch_size, -(-pixels // 2)),
            "latents": (2, *samples, batch_size, -(-model.latent_dim // 2)),
        }
        self._variables = _Variables(model)
        weights = [_read(v) for v in self._variables.trained]
        zeros = [np.zeros_like(w) for w in weights]
        others = [_read(v) for v in self._variables.others]
        start = (weights, zeros, zeros, weights, others)
        self._state = self._tensors(dict(zip(_PLACES, start, strict=True)))
        self._run = self._backend.compile(self._steps, _is_convolutional(model))

    def _tensor(self, array: np.ndarray) -> Any:
        if self._devices is None:
            return self._backend.tensor(array)
        return self._devices.copy(np.array(array))  # of its own memory

    def _tensors(self, arrays: Mapping[str, list[np.ndarray]]) -> State:
        return {place: [self._tensor(a) for a in some] for place, some in arrays.items()}

    def read(self) -> dict[str, np.ndarray]:
        """All that the next epoch depends on, besides data and seed: a name to each array."""
        return {n: _read(self._state[place][i]) for place, i, n in self._variables.places()}

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes back to where `read` gave these.

        Raises:
            ValueError: They are those of another model.
        """
        shapes = {name: array.shape for name, array in arrays.items()}
        own = {n: tuple(self._state[place][i].shape) for place, i, n in self._variables.places()}
        if shapes != own:
            differing = sorted(n for n in {**shapes, **own} if shapes.get(n) != own.get(n))
            raise ValueError(
                f"the weights are those of another model: {differing[0]} has the shape "
                f"{shapes.get(differing[0])}, expected {own.get(differing[0])}."
            )
        for place, i, name in self._variables.places():
            self._state[place][i] = self._tensor(arrays[name])

    def average(self) -> list[np.ndarray]:
        """The running average of the model's trainable variables, in their order."""
        return [_read(tensor) for tensor in self._state["average"]]

    def begin(self, epoch: int, *, kl_weight: float = 1.0) -> None:
        """Sets order, noise and the weight of the KL divergence of an epoch; the first is 0."""
        tensor = self._tensor
        self._order = tensor(epoch_order(self._seed, epoch, self._num_images, self._batch_size))
        self._noise = {
            stream: tensor(noise_states(shape, self._seed, epoch, number))
            for number, (stream, shape) in enumerate(self._noise_shapes.items(), start=1)
        }
        others = [_read(value) for value in self._state["others"]]
        self._variables.set_seeds(others, self._seed, epoch)
        others[self._variables.kl_weight] = np.asarray(kl_weight, "float32")
        self._state = {**self._state, "others": [tensor(value) for value in others]}
        self._totals = {name: tensor(np.zeros((), "float32")) for name in LOGS}
        self._totals["kl_per_unit"] = tensor(np.zeros(self._model.latent_dim, "float32"))
        self._done = 0

    def run(self, rates: np.ndarray, sizes: np.ndarray, decays: np.ndarray) -> None:
        """Does the next steps of the epoch that was begun.

        Args:
            rates: Learning rates; as many steps are done.
            sizes: Adam's step sizes, as from `step_sizes`.
            decays: Those of the average, as from `average_decays`.
        """
        tensor, last = self._tensor, self._done + len(sizes)
        # Always the length of an epoch: another shape would be compiled anew.
        controls = np.zeros((self.num_steps, 3), "float32")
        shrink = self._weight_decay * rates
        controls[self._done : last] = np.stack([sizes, 1.0 - decays, shrink], axis=1)
        bounds = tensor(np.array([self._done, last], "int32"))
        moving = (self._state, self._noise, self._totals)
        with self._own_objective():  # the first call traces the model
            self._state, self._noise, self._totals = self._run(
                moving, bounds, tensor(controls), self._order, self._data
            )
        self._done = last

    @contextlib.contextmanager
    def _own_objective(self) -> Iterator[None]:
        """Within it the model is trained for what this loop was told to."""
        before = {name: getattr(self._model, name) for name in self._objective}
        try:
            for name, value in self._objective.items():
                setattr(self._model, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self._model, name, value)

    def means(self) -> dict[str, Any]:
        """Mean elbo, reconstruction, kl and `kl_per_unit` of the epoch so far, nats per image."""
        means = {name: _read(total) / self._done for name, total in self._totals.items()}
        return {k: float(mean) if mean.ndim == 0 else mean for k, mean in means.items()}

    def _steps(self, moving: Any, bounds: Any, controls: Any, order: Any, data: list[Any]) -> Any:
        def body(step: Any, moving: Any) -> Any:
            state, noise, totals = moving
            noise = {stream: next_states(states) for stream, states in noise.items()}
            batch = [ops.take(array, order[step], axis=0) for array in data]
            batch, noise = self._deal_out(batch, noise)
            loss = functools.partial(self._loss, state["others"], batch, noise)
            (logs, others), gradients = self._backend.gradient(loss, state["weights"])
            state = self._shrink(state, controls[step, 2])
            state = self._backend.update(state, gradients, controls[step, 0], controls[step, 1])
            totals = {name: total + logs[name] for name, total in totals.items()}
            return {**state, "others": others}, noise, totals

        return self._collect(self._backend.repeat(bounds[0], bounds[1], body, moving))

    def _deal_out(self, batch: list[Any], noise: dict[str, Any]) -> tuple[list[Any], dict]:
        """The rows of a batch, and their noise, onto the devices that share the work."""
        if self._devices is None:
            return batch, noise
        axes = {"pixels": 0, "latents": -2}
        dealt = {name: self._devices.split(bits, axes[name]) for name, bits in noise.items()}
        return [self._devices.split(array) for array in batch], dealt

    def _collect(self, moving: Any) -> Any:
        """What comes out, whole on every device, as it went in."""
        if self._devices is None:
            return moving
        return keras.tree.map_structure(self._devices.copy, moving)

    def _shrink(self, state: State, part: Any) -> State:
        """Takes a part of every layer's kernel away; biases, pictures and components stay."""
        if not self._weight_decay:
            return state
        named = zip(state["weights"], self._variables.names["weights"], strict=True)
        weights = [w * (1.0 - part) if _is_kernel(name) else w for w, name in named]
        return {**state, "weights": weights}

    def _loss(
        self, others: list[Any], batch: list[Any], bits: dict[str, Any], weights: list[Any]
    ) -> tuple[Any, Any]:
        images, labels = [*batch, None][:2]
        if self._model.binarization == "dynamic":
            x = draw_binary(images, bits["pixels"])
        else:
            x = ops.cast(images, "float32") / 255.0
        noise = draw_normal(bits["latents"], self._model.latent_dim)
        with self._variables.hold(weights, others) as scope:
            terms = self._model.terms(x, labels, self._model.num_samples, noise=noise)
            loss, logs = self._model.objective(terms)
            others = [scope.get_current_value(v) for v in self._variables.others]
        return loss, ({**logs, "kl_per_unit": ops.mean(_kl_per_unit(terms), axis=0)}, others)


def _kl_per_unit(terms: dict[str, Any]) -> Any:
    """`(batch, latent_dim)`; not a number where the prior has no closed form."""
    known = terms["kl_per_unit"]
    return ops.full_like(terms["mean"], float("nan")) if known is None else known


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model makes of pictures it was not trained on.

    Attributes:
        elbo: With beta = 1, nats per image, as the next three.
        reconstruction: Expected log p(x|z).
        kl: KL divergence of q(z|x) from p(z).
        kl_per_unit: `(latent_dim,)`.
        active_units: Units whose posterior mean varies over the pictures by more than 0.01 (Burda
            et al. 2016, arXiv 1509.00519, section 5.2).
    """

    elbo: float
    reconstruction: float
    kl: float
    kl_per_unit: np.ndarray
    active_units: int


class Validator:
    """Judges weights on the same pictures and with the same noise every time.

    Args:
        model: A built `VAE`; its variables are not touched.
        images: `(n, height, width, channels)` uint8. They are taken as they are: for a model of
            black and white pixels draw them once before.
        labels: `(n,)` integers for a conditional model.
        batch_size: Images at a time.
        seed: Of the noise.
    """

    def __init__(
        self,
        model: VAE,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        batch_size: int = 500,
        seed: int = 0,
    ) -> None:
        self._model, self._seed, self._backend = model, seed, find_backend()
        self._num_images = len(images)
        self._variables = _Variables(model)
        data = [images] if labels is None else [images, np.asarray(labels, "int32")]
        rows = epoch_order(seed, 0, len(images), min(batch_size, len(images)))
        self._batches = [[self._backend.tensor(array[some]) for array in data] for some in rows]
        shape = (len(rows), rows.shape[1], model.latent_dim)
        noise = np.random.default_rng(seed).standard_normal(shape, "float32")
        self._noise = [self._backend.tensor(some) for some in noise]
        self._judge = self._backend.compile(self._terms, _is_convolutional(model))

    def scores(self, weights: Sequence[np.ndarray]) -> Scores:
        """What the model would be worth with these weights, in the order of its own."""
        weights = [self._backend.tensor(w) for w in weights]
        others = [self._backend.tensor(_read(v)) for v in self._variables.others]
        parts = [
            [_read(t) for t in self._judge(weights, others, noise, batch)]
            for noise, batch in zip(self._noise, self._batches, strict=True)
        ]
        log_likelihood, kl, kl_per_unit, mean = (
            np.concatenate(some)[: self._num_images].astype("float64")
            for some in zip(*parts, strict=True)
        )
        return Scores(
            elbo=float(np.mean(log_likelihood - kl)),
            reconstruction=float(np.mean(log_likelihood)),
            kl=float(np.mean(kl)),
            kl_per_unit=kl_per_unit.mean(0),
            active_units=int((mean.var(0) > ACTIVE_VARIANCE).sum()),
        )

    def _terms(
        self, weights: list[Any], others: list[Any], noise: Any, batch: list[Any]
    ) -> tuple[Any, ...]:
        x, labels = ops.cast(batch[0], "float32") / 255.0, [*batch, None][1]
        with self._variables.hold(weights, others):
            terms = self._model.terms(x, labels, noise=noise)
        return terms["log_likelihood"][0], terms["kl"], _kl_per_unit(terms), terms["mean"]
