"""The game, many steps in one compiled function, for each backend.

The pictures lie in memory as uint8, and one call plays as many rounds as wanted: some steps of the
discriminator, each on pictures and draws of its own, then one of the generator. The round is
written once, in `keras.ops`; a backend differentiates, repeats and compiles it.

All randomness of an epoch follows from (seed, epoch), so that it can be played again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from safelight.gan import objectives, spectral
from safelight.gan.augmentation import NUM_DRAWS, augment
from safelight.gan.config import TrainConfig
from safelight.gan.models import GAN
from safelight.generative.backends import State, find_backend
from safelight.generative.gaussians import kl_divergence
from safelight.generative.noise import (
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
    is_kernel,
    read,
    read_state,
    write_state,
)

LOGS = ("generator_loss", "discriminator_loss", "penalty", "real_logit", "fake_logit")
ACCURACIES = ("real_accuracy", "fake_accuracy")
OF_AUTOENCODER = ("reconstruction", "kl")
PENALTY_WEIGHT = 10.0
# The penalty is a mean over pictures: that of a part of the batch has the same expectation, and
# differentiating twice is the dearest part of a step.
_PENALTY_PART = 4
_MANY_IMAGES = 10_000
_COLUMNS = ("weights", "mean", "square", "average")
_PLAYERS = ("generator", "discriminator")


@dataclasses.dataclass(frozen=True)
class Rates:
    """What changes from round to round.

    Attributes:
        generator: `(rounds,)`, Adam's step sizes.
        discriminator: `(rounds, discriminator_steps)`, likewise.
        decays: `(rounds,)`, of the average of the generator's weights.
    """

    generator: np.ndarray
    discriminator: np.ndarray
    decays: np.ndarray

    def stack(self) -> np.ndarray:
        """`(rounds, 2 + discriminator_steps)`: one row a round."""
        rows = [self.generator[:, None], 1.0 - self.decays[:, None], self.discriminator]
        return np.concatenate(rows, axis=1).astype("float32")


def choose_batch_size(num_images: int) -> int:
    """Where a configuration leaves it open (docs/lab-notes.md, 2026-11-27)."""
    return 64 if num_images >= _MANY_IMAGES else 16


class EpochLoop:
    """The training of one model on one array of pictures, as many rounds at a time as wanted.

    The model's own variables keep their values. `begin` comes first.

    Args:
        model: A built `GAN`.
        images: `(n, height, width, channels)` uint8.
        labels: `(n,)` integers for a conditional model.
        config: The settings: of it losses, penalties, batches, Adam's decays and the seed count.
        policy: Of the augmentation.

    Attributes:
        num_steps: Rounds in an epoch.
        batch_size: Images a step of either player sees.
    """

    def __init__(
        self,
        model: GAN,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        config: TrainConfig,
        policy: str = "none",
    ) -> None:
        self._model, self._config, self._policy = model, config, policy
        self._backend = find_backend()
        self._num_images = len(images)
        self._num_critic = config.discriminator_steps
        self.batch_size = min(config.batch_size or choose_batch_size(len(images)), len(images))
        self.num_steps = max(1, -(-len(images) // (self.batch_size * self._num_critic)))
        data = [images] if labels is None else [images, np.asarray(labels, "int32")]
        self._data = [self._backend.tensor(array) for array in data]
        self._variables = {
            "generator": _generating(model),
            "discriminator": Variables(model.discriminator),
        }
        names = self._variables["discriminator"].names["weights"]
        kernels = [i for i, name in enumerate(names) if is_kernel(name)]
        self._normalized = kernels if config.chosen_normalization == "spectral" else []
        self._state = self._start()
        self._run = self._backend.compile(self._rounds, True)

    def _start(self) -> dict[str, State]:
        state = {}
        for name, variables in self._variables.items():
            weights = [read(v) for v in variables.trained]
            zeros = [np.zeros_like(w) for w in weights]
            others = [read(v) for v in variables.others]
            parts = zip(
                (*_COLUMNS, "others"), (weights, zeros, zeros, weights, others), strict=True
            )
            state[name] = {place: self._tensors(some) for place, some in parts}
        kernels = self._variables["discriminator"].trained
        vectors = [spectral.start_vector(read(kernels[i])) for i in self._normalized]
        state["discriminator"]["vectors"] = self._tensors(vectors)
        return state

    def _tensors(self, arrays: list[np.ndarray]) -> list[Any]:
        return [self._backend.tensor(array) for array in arrays]

    def _places(self, player: str) -> list[Place]:
        places = list(self._variables[player].places(*_COLUMNS))
        if player == "discriminator":
            places += [("vectors", i, f"vectors/{i}") for i in range(len(self._normalized))]
        return places

    def read(self) -> dict[str, np.ndarray]:
        """All that the next epoch depends on, besides data and seed: a name to each array."""
        return {
            f"{player}/{name}": array
            for player in _PLAYERS
            for name, array in read_state(self._state[player], self._places(player)).items()
        }

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes back to where `read` gave these.

        Raises:
            ValueError: They are those of another model.
        """
        for player in _PLAYERS:
            prefix = f"{player}/"
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            write_state(self._state[player], self._places(player), own, self._backend.tensor)

    def average(self) -> list[np.ndarray]:
        """The averaged weights of generator and encoder, then their other variables."""
        state = self._state["generator"]
        return [read(tensor) for tensor in (*state["average"], *state["others"])]

    def discriminator(self) -> list[np.ndarray]:
        """The discriminator's weights as it is run with: kernels over their singular values."""
        state = self._state["discriminator"]
        effective = spectral.normalize_all(state["weights"], state["vectors"], self._normalized)
        return [read(tensor) for tensor in (*effective, *state["others"])]

    def assign(self, generator: list[np.ndarray], discriminator: list[np.ndarray]) -> None:
        """Gives the model weights as from `average` and `discriminator`."""
        for player, values in (("generator", generator), ("discriminator", discriminator)):
            variables = self._variables[player]
            targets = (*variables.trained, *variables.others)
            for variable, value in zip(targets, values, strict=True):
                if "seed_generator_state" not in variable.path:
                    variable.assign(value)

    def begin(self, epoch: int) -> None:
        """Sets order and noise of an epoch; the first is 0."""
        seed, tensor = self._config.seed, self._backend.tensor
        seen = self.batch_size * self._num_critic
        order = epoch_order(seed, epoch, self._num_images, seen)[: self.num_steps]
        self._order = tensor(order.reshape(self.num_steps, self._num_critic, self.batch_size))
        self._noise = {
            stream: tensor(noise_states(shape, seed, epoch, number))
            for number, (stream, shape) in enumerate(self._noise_shapes().items(), start=1)
        }
        for number, player in enumerate(_PLAYERS):
            others = [read(value) for value in self._state[player]["others"]]
            self._variables[player].set_seeds(others, seed + number, epoch)
            self._state[player] = {**self._state[player], "others": self._tensors(others)}
        self._totals = {name: tensor(np.zeros((), "float32")) for name in self.logs()}
        self._done = 0

    def logs(self) -> tuple[str, ...]:
        """Names of what `means` has."""
        extra = OF_AUTOENCODER if self._model.encoder is not None else ()
        return (*LOGS, *ACCURACIES, *extra)

    def _noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """One set for each step of the discriminator, and the last for the generator."""
        turns, batch = self._num_critic + 1, self.batch_size
        halves = -(-self._model.latent_dim // 2)
        return {
            "latents": (2, turns, batch, halves),
            "augmentation": (turns, 3, batch, NUM_DRAWS),
            "posterior": (2, turns, batch, halves),
            "between": (turns, self._num_penalized),
        }

    @property
    def _num_penalized(self) -> int:
        return max(1, self.batch_size // _PENALTY_PART)

    def run(self, rates: Rates) -> None:
        """Plays the next rounds of the epoch that was begun."""
        rows, tensor = rates.stack(), self._backend.tensor
        last = self._done + len(rows)
        # Always the length of an epoch: another shape would be compiled anew.
        controls = np.zeros((self.num_steps, rows.shape[1]), "float32")
        controls[self._done : last] = rows
        bounds = tensor(np.array([self._done, last], "int32"))
        moving = (self._state, self._noise, self._totals)
        self._state, self._noise, self._totals = self._run(
            moving, bounds, tensor(controls), self._order, self._data
        )
        self._done = last

    def means(self) -> dict[str, float]:
        """Means of the logs over the epoch so far."""
        return {name: float(read(total)) / self._done for name, total in self._totals.items()}

    def _rounds(self, moving: Any, bounds: Any, controls: Any, order: Any, data: list[Any]) -> Any:
        def body(step: Any, moving: Any) -> Any:
            state, noise, totals = moving
            noise = {stream: next_states(states) for stream, states in noise.items()}
            draws = self._draw(noise)
            logs: dict[str, Any] = {}
            for turn in range(self._num_critic):
                batch = [ops.take(array, order[step, turn], axis=0) for array in data]
                size = controls[step, 2 + turn]
                state, logs = self._discriminate(state, batch, _at(draws, turn), size)
            state, more = self._generate(state, batch, _at(draws, -1), controls[step])
            logs = {**logs, **more}
            totals = {name: total + logs[name] for name, total in totals.items()}
            return state, noise, totals

        return self._backend.repeat(bounds[0], bounds[1], body, moving)

    def _draw(self, noise: dict[str, Any]) -> dict[str, Any]:
        """Numbers out of bits, the first axis counting steps of a round."""
        normal = {
            name: draw_normal(noise[name], self._model.latent_dim)
            for name in ("latents", "posterior")
        }
        uniform = {name: draw_uniform(noise[name]) for name in ("augmentation", "between")}
        return {**normal, **uniform}

    def _effective(self, state: State, weights: list[Any] | None = None) -> list[Any]:
        weights = state["weights"] if weights is None else weights
        return spectral.normalize_all(weights, state["vectors"], self._normalized)

    def _discriminate(
        self, state: dict[str, State], batch: list[Any], draws: dict[str, Any], size: Any
    ) -> tuple[dict[str, State], dict[str, Any]]:
        """One step of the discriminator."""
        own, other = state["discriminator"], state["generator"]
        kernels = [own["weights"][i] for i in self._normalized]
        vectors = [
            spectral.next_vector(kernel, vector)
            for kernel, vector in zip(kernels, own["vectors"], strict=True)
        ]
        own = {**own, "vectors": vectors}
        variables = self._variables["discriminator"]
        pictures, labels = ops.cast(batch[0], "float32") / 255.0, [*batch, None][1]
        with hold(self._variables["generator"].paired(other["weights"], other["others"])):
            fakes = [self._model.decode(draws["latents"], labels, training=True)]
            if self._model.encoder is not None:
                z, _ = self._encode(pictures, draws["posterior"])
                fakes.append(self._model.decode(z, labels, training=True))
        fakes = [ops.stop_gradient(each) for each in fakes]

        def loss(weights: list[Any]) -> tuple[Any, Any]:
            values = self._effective(own, weights)
            with hold(variables.paired(values, own["others"])) as scope:
                value, logs = self._discriminator_loss(pictures, fakes, labels, draws)
                others = [scope.get_current_value(v) for v in variables.others]
            return value, (logs, others)

        (logs, others), gradients = self._backend.gradient(loss, own["weights"])
        own = self._backend.update(own, gradients, size, 1.0, betas=self._betas)
        return {**state, "discriminator": {**own, "others": others}}, logs

    @property
    def _betas(self) -> tuple[float, float]:
        return self._config.beta_1, self._config.beta_2

    def _discriminator_loss(
        self, pictures: Any, fakes: list[Any], labels: Any, draws: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        num, config = self.batch_size, self._config
        seen = [
            augment(each, draws["augmentation"][i], self._policy)
            for i, each in enumerate((pictures, *fakes))
        ]
        logits = self._logits(seen, labels)
        real, fake = logits[:num], logits[num:]
        value = objectives.discriminator_loss(real, fake, config.loss)
        penalty = self._penalty(seen, labels, draws["between"])
        logs = {
            "discriminator_loss": value,
            "penalty": penalty,
            "real_logit": ops.mean(real),
            "fake_logit": ops.mean(fake),
            "real_accuracy": ops.mean(ops.cast(real > 0, "float32")),
            "fake_accuracy": ops.mean(ops.cast(fake < 0, "float32")),
        }
        return value + (config.penalty_weight or PENALTY_WEIGHT) * penalty, logs

    def _logits(self, seen: list[Any], labels: Any) -> Any:
        """What the discriminator says of several batches, one behind the other."""
        if self._config.chosen_normalization == "batch":
            # Each by statistics of its own: those of real and generated pictures in common would
            # tell of one picture what the others are.
            said = [self._model.discriminate(each, labels, training=True)[0] for each in seen]
            return ops.concatenate(said)
        told = None if labels is None else ops.concatenate([labels] * len(seen))
        # In one pass: nothing mixes the pictures of a batch.
        return self._model.discriminate(ops.concatenate(seen), told)[0]

    def _penalty(self, seen: list[Any], labels: Any, shares: Any) -> Any:
        kind, num = self._config.chosen_penalty, self._num_penalized
        if kind == "none":
            return ops.zeros(())
        told = None if labels is None else labels[:num]
        points = seen[0][:num]
        if kind == "gradient":
            points = objectives.interpolate(points, seen[1][:num], shares)
        return objectives.gradient_penalty(
            lambda x: self._model.discriminate(x, told)[0],
            points,
            self._backend.input_gradient,
            kind,
        )

    def _generate(
        self, state: dict[str, State], batch: list[Any], draws: dict[str, Any], controls: Any
    ) -> tuple[dict[str, State], dict[str, Any]]:
        """One step of the generator, and of the encoder where there is one."""
        own, other = state["generator"], state["discriminator"]
        judges = self._variables["discriminator"].paired(self._effective(other), other["others"])
        pictures, labels = ops.cast(batch[0], "float32") / 255.0, [*batch, None][1]
        variables = self._variables["generator"]

        def loss(weights: list[Any]) -> tuple[Any, Any]:
            with hold([*variables.paired(weights, own["others"]), *judges]) as scope:
                value, logs = self._generator_loss(pictures, labels, draws)
                others = [scope.get_current_value(v) for v in variables.others]
            return value, (logs, others)

        (logs, others), gradients = self._backend.gradient(loss, own["weights"])
        own = self._backend.update(own, gradients, controls[0], controls[1], betas=self._betas)
        return {**state, "generator": {**own, "others": others}}, logs

    def _generator_loss(
        self, pictures: Any, labels: Any, draws: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        fakes = [self._model.decode(draws["latents"], labels, training=True)]
        extra, logs = 0.0, {}
        if self._model.encoder is not None:
            z, kl = self._encode(pictures, draws["posterior"])
            made = self._model.decode(z, labels, training=True)
            error = self._feature_error(pictures, made)
            # The encoder is to describe pictures, not to please the discriminator (Larsen et al.
            # 2016, section 2.4): what is to please is made of latents that it gets no word of.
            fakes.append(self._model.decode(ops.stop_gradient(z), labels, training=True))
            logs = {"reconstruction": error, "kl": kl}
            extra = self._config.reconstruction_weight * (error + self._config.kl_weight * kl)
        seen = [
            augment(each, draws["augmentation"][i], self._policy) for i, each in enumerate(fakes)
        ]
        value = objectives.generator_loss(self._logits(seen, labels), self._config.loss)
        return value + extra, {**logs, "generator_loss": value}

    def _encode(self, pictures: Any, noise: Any) -> tuple[Any, Any]:
        """Draws of q(z|x), and the KL divergence from N(0, I), nats per picture."""
        assert self._model.encoder is not None
        mean, log_variance = self._model.encoder(pictures)
        z = mean + ops.exp(0.5 * log_variance) * noise
        return z, ops.mean(kl_divergence(mean, log_variance))

    def _feature_error(self, pictures: Any, made: Any) -> Any:
        """-log N(features of x; features of what was made of it, I), up to a constant.

        Larsen et al. 2016, equation 7. Nats per picture.
        """
        num = self.batch_size
        # Together, so that both are seen by the same function.
        both = ops.concatenate([pictures, made])
        _, features = self._model.discriminate(both, training=True)
        features = ops.cast(features, "float32")
        differences = ops.square(features[:num] - features[num:])
        return 0.5 * ops.mean(ops.sum(differences, axis=tuple(range(1, len(differences.shape)))))


def _generating(model: GAN) -> Variables:
    """The variables of the generator, and of the encoder where there is one."""
    if model.encoder is None:
        return Variables(model.generator)
    both = keras.Model(
        [*model.generator.inputs, *model.encoder.inputs],
        [*model.generator.outputs, *model.encoder.outputs],
        name="generating",
    )
    return Variables(both, {"generator": model.generator, "encoder": model.encoder})


def _at(draws: dict[str, Any], turn: int) -> dict[str, Any]:
    return {name: values[turn] for name, values in draws.items()}
