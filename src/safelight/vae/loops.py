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

from safelight.generative.backends import State, find_backend
from safelight.generative.noise import (
    draw_binary,
    draw_normal,
    draw_uniform,
    epoch_order,
    next_states,
    noise_states,
)
from safelight.generative.variables import (
    Place,
    Variables,
    hold,
    is_convolutional,
    is_kernel,
    read,
    read_state,
    write_state,
)
from safelight.vae.devices import Devices
from safelight.vae.models import LOGS, VAE

ACTIVE_VARIANCE = 0.01
_PLACES = ("weights", "mean", "square", "average", "others")


def _variables_of(model: VAE) -> Variables:
    return Variables(model, {"encoder": model.encoder, "decoder": model.decoder})


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
        **objective: `num_samples`, `backward_samples` and `gradient` in place of the model's own.

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
        _check_statistics(model)
        self._num_images, self._batch_size = len(images), batch_size
        self.num_steps = -(-len(images) // batch_size)
        data = [images] if labels is None else [images, np.asarray(labels, "int32")]
        self._data = [self._tensor(array) for array in data]
        pixels = math.prod(images.shape[1:]) if model.binarization == "dynamic" else 0
        with self._own_objective():
            samples = () if model.num_samples == 1 else (model.num_samples,)
            few = model.goes_through_few(model.num_samples)
        self._noise_shapes = {
            "pixels": (batch_size, -(-pixels // 2)),
            "latents": (2, *samples, batch_size, -(-model.latent_dim // 2)),
        }
        if few:
            self._noise_shapes["choices"] = (batch_size,)
        self._variables = _variables_of(model)
        others = self._variables.others
        self._kl_weight = next(i for i, v in enumerate(others) if v is model.kl_weight)
        weights = [read(v) for v in self._variables.trained]
        zeros = [np.zeros_like(w) for w in weights]
        others = [read(v) for v in self._variables.others]
        start = (weights, zeros, zeros, weights, others)
        self._state = self._tensors(dict(zip(_PLACES, start, strict=True)))
        self._run = self._backend.compile(self._steps, is_convolutional(model))

    def _tensor(self, array: np.ndarray) -> Any:
        if self._devices is None:
            return self._backend.tensor(array)
        return self._devices.copy(np.array(array))  # of its own memory

    def _tensors(self, arrays: Mapping[str, list[np.ndarray]]) -> State:
        return {place: [self._tensor(a) for a in some] for place, some in arrays.items()}

    def read(self) -> dict[str, np.ndarray]:
        """All that the next epoch depends on, besides data and seed: a name to each array."""
        return read_state(self._state, self._places())

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes back to where `read` gave these.

        Raises:
            ValueError: They are those of another model.
        """
        write_state(self._state, self._places(), arrays, self._tensor)

    def _places(self) -> list[Place]:
        return list(self._variables.places(*_PLACES[:-1]))

    def average(self) -> list[np.ndarray]:
        """The running average of the model's trainable variables, in their order."""
        return [read(tensor) for tensor in self._state["average"]]

    def begin(self, epoch: int, *, kl_weight: float = 1.0) -> None:
        """Sets order, noise and the weight of the KL divergence of an epoch; the first is 0."""
        tensor = self._tensor
        self._order = tensor(epoch_order(self._seed, epoch, self._num_images, self._batch_size))
        self._noise = {
            stream: tensor(noise_states(shape, self._seed, epoch, number))
            for number, (stream, shape) in enumerate(self._noise_shapes.items(), start=1)
        }
        others = [read(value) for value in self._state["others"]]
        self._variables.set_seeds(others, self._seed, epoch)
        others[self._kl_weight] = np.asarray(kl_weight, "float32")
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
        wanted = {**self._objective, "learning": True}
        before = {name: getattr(self._model, name) for name in wanted}
        try:
            for name, value in wanted.items():
                setattr(self._model, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self._model, name, value)

    def means(self) -> dict[str, Any]:
        """Mean elbo, reconstruction, kl and `kl_per_unit` of the epoch so far, nats per image."""
        means = {name: read(total) / self._done for name, total in self._totals.items()}
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
        axes = {"pixels": 0, "latents": -2, "choices": 0}
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
        weights = [w * (1.0 - part) if is_kernel(name) else w for w, name in named]
        return {**state, "weights": weights}

    def _loss(
        self, others: list[Any], batch: list[Any], bits: dict[str, Any], weights: list[Any]
    ) -> tuple[Any, Any]:
        images, labels = [*batch, None][:2]
        if self._model.binarization == "dynamic":
            x = draw_binary(images, bits["pixels"])
        else:
            x = ops.cast(images, "float32") / 255.0
        draw = {"noise": draw_normal(bits["latents"], self._model.latent_dim)}
        if "choices" in bits:
            draw["uniform"] = draw_uniform(bits["choices"])
        with hold(self._variables.paired(weights, others)) as scope:
            terms = self._model.terms(x, labels, self._model.num_samples, **draw)
            loss, logs = self._model.objective(terms)
            others = [scope.get_current_value(v) for v in self._variables.others]
        return loss, ({**logs, "kl_per_unit": ops.mean(_kl_per_unit(terms), axis=0)}, others)


def _check_statistics(model: VAE) -> None:
    """Statistics of batches would be those of other weights than the averaged ones."""
    layers = [*model.encoder._flatten_layers(), *model.decoder._flatten_layers()]
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            raise ValueError(
                f"{layer.name} is a BatchNormalization layer: a VAE is trained with averaged "
                "weights, for which it has no statistics; expected LayerNormalization or "
                "GroupNormalization in its place, or trainable=False."
            )


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
        active_units: Units whose posterior mean has a variance over the pictures above 0.01 (Burda
            et al. 2016, arXiv 1509.00519, section 5.2); of two layers that of one at the mean of
            the other, which is quicker than its own.
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
        self._variables = _variables_of(model)
        data = [images] if labels is None else [images, np.asarray(labels, "int32")]
        rows = epoch_order(seed, 0, len(images), min(batch_size, len(images)))
        self._batches = [[self._backend.tensor(array[some]) for array in data] for some in rows]
        shape = (len(rows), rows.shape[1], model.latent_dim)
        noise = np.random.default_rng(seed).standard_normal(shape, "float32")
        self._noise = [self._backend.tensor(some) for some in noise]
        self._judge = self._backend.compile(self._terms, is_convolutional(model))

    def scores(self, weights: Sequence[np.ndarray]) -> Scores:
        """What the model would be worth with these weights, in the order of its own."""
        weights = [self._backend.tensor(w) for w in weights]
        others = [self._backend.tensor(read(v)) for v in self._variables.others]
        parts = [
            [read(t) for t in self._judge(weights, others, noise, batch)]
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
        with hold(self._variables.paired(weights, others)):
            terms = self._model.terms(x, labels, noise=noise)
        return terms["log_likelihood"][0], terms["kl"], _kl_per_unit(terms), terms["mean"]
