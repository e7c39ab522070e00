"""Training a GAN: epochs until the time is up, resumed after a kill, watched for collapse.

    trained = train(model, images, config=TrainConfig(minutes=10))
    trained.model.generate(64)

The game itself is in `loops`; here is what lies around it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from safelight.gan.config import TrainConfig
from safelight.gan.loops import ACCURACIES, LOGS, OF_AUTOENCODER, EpochLoop, Rates
from safelight.gan.models import GAN
from safelight.gan.watch import NUM_WATCHED, Sight, Watch, advise
from safelight.generative.checkpoints import (
    Checkpoint,
    identify,
    load_checkpoint,
    save_checkpoint,
)
from safelight.generative.schedules import Pace, Plan, Stopwatch, average_decays, step_sizes

logger = logging.getLogger(__name__)

Report = Callable[[str, int, int, str], None]
"""Called with (stage, done, total, a few words); a progress bar for instance."""

COLUMNS = (
    "epoch",
    *LOGS,
    *ACCURACIES,
    *OF_AUTOENCODER,
    "diversity",
    "classes_seen",
    "class_entropy",
    "learning_rate",
)
FEW_PICTURES = 500
_DEFAULT_STEPS, _DEFAULT_EPOCHS = 10_000, 5
_FIRST_BLOCK = 2  # rounds, until the speed is known
_BLOCK_SECONDS = 0.7  # between two looks at the clock and at Ctrl-C
_CHECKPOINT_SECONDS = 20.0
_WATCH_SHARE = 0.05  # of the time, at most
_SETTLED = 0.2  # of the training, before which nothing is said of a collapse
_CALIBRATION_BATCHES = 60


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedGAN:
    """What training gives.

    Attributes:
        model: The model that was passed, with the generator's averaged weights.
        config: The settings it was trained with.
        history: A list per column of `COLUMNS`, one value per epoch; NaN where there is none.
        sight: What generated pictures are like in the end.
        advice: What to change; empty where nothing went wrong.
        seconds: Wall time of `"training"`, and of `"watching"` and `"compilation"` in it; those of
            the runs before, if it was resumed, included.
        images_per_second: Real pictures seen, after compilation.
        interrupted: Whether Ctrl-C, or numbers that left the range of floats, ended it early.
        epochs: Epochs done, the last of them perhaps in part.
    """

    model: GAN
    config: TrainConfig
    history: dict[str, list[float]]
    sight: Sight
    advice: str
    seconds: dict[str, float]
    images_per_second: float
    interrupted: bool
    epochs: int


def train(
    model: GAN,
    images: Any,
    *,
    config: TrainConfig | None = None,
    classify: Callable[[np.ndarray], np.ndarray] | None = None,
    num_classes: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    report: Report | None = None,
) -> TrainedGAN:
    """Plays the game with Adam and a cosine decay to 0; the generator's averaged weights are kept.

    With `config.minutes` the number of rounds follows from the speed of the first twentieth of the
    time; all is counted, compilation and looks at generated pictures too.

    Ctrl-C ends it with what there is. If a number becomes NaN or infinite, the weights of the last
    good epoch are kept, a warning says so, and `interrupted` is true as well.

    Args:
        model: As from `build_gan`.
        images: uint8 `(n, height, width, channels)`, or `(images, labels)`.
        config: Of it all but what the networks are made of counts.
        classify: From float pictures to class numbers, to see whether all classes are drawn.
        num_classes: That it knows.
        checkpoint: A file (`.npz`) that keeps the training at the end of an epoch, if 20 seconds
            have gone by since it last did. If it exists, the training goes on from there.
        report: Told how far it is.

    Raises:
        ValueError: Images of another shape or dtype, a checkpoint of another training, or a loss
            that is not a number in the first epoch already.
    """
    config = config or TrainConfig()
    pictures, labels = _check(model, images)
    watch = Watch(pictures, classify, num_classes)
    session = _Session(model, (pictures, labels), config, watch, report or _silent)
    store = _Store(checkpoint, config, (pictures, labels))
    store.resume(session)
    interrupted = False
    try:
        session.report("training", 0, 1, "compiling")
        while not session.finished:
            session.run_epoch()
            store.save(session)
    except (KeyboardInterrupt, _DivergedError) as reason:
        interrupted = True
        session.end_early(diverged=isinstance(reason, _DivergedError))
    return session.result(interrupted)


def choose_policy(augmentation: str, num_images: int) -> str:
    """`augmentation` of a configuration without `"auto"`."""
    if augmentation != "auto":
        return augmentation
    return "all" if num_images < FEW_PICTURES else "none"


def calibrate(
    model: GAN, labels: np.ndarray | None = None, *, seed: int = 0, batch_size: int = 256
) -> None:
    """Sets the means and variances of batch normalization to those of the generator's own weights.

    Those that were kept in training belong to weights that have moved on; the averaged weights,
    which are what is kept, never had any.

    Args:
        model: Whose generator has these weights.
        labels: Of the pictures that a conditional model learned from; classes are drawn here as
            often as among these, by default all alike.
        seed: Of the draws.
        batch_size: Of each of 60 batches.
    """
    kinds = keras.layers.BatchNormalization
    if not any(isinstance(layer, kinds) for layer in model.generator.layers):
        return
    rng = np.random.default_rng(seed)
    for _ in range(_CALIBRATION_BATCHES):
        z = rng.standard_normal((batch_size, model.latent_dim), "float32")
        told = None
        if model.num_classes:
            told = rng.choice(model.num_classes if labels is None else labels, batch_size)
        model.decode(keras.ops.convert_to_tensor(z), told, training=True)


def _silent(stage: str, done: int, total: int, words: str) -> None:
    """Reports nothing."""


def _check(model: GAN, data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    images, labels = data if isinstance(data, tuple) else (data, None)
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != model.image_shape:
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}: expected uint8, (n, "
            f"{', '.join(map(str, model.image_shape))})."
        )
    if len(images) < 2:
        raise ValueError(f"{len(images)} images were passed: expected at least two.")
    return images, model._check_labels(labels if model.num_classes else None, len(images))


class _DivergedError(ArithmeticError):
    """A number became NaN or infinite."""


class _Session:
    """One training in progress."""

    def __init__(
        self,
        model: GAN,
        data: tuple[np.ndarray, np.ndarray | None],
        config: TrainConfig,
        watch: Watch,
        report: Report,
    ) -> None:
        self.model, self.config, self.watch, self.report = model, config, watch, report
        self.labels = data[1]
        self.clock = Stopwatch()
        self.clock.counts["watching"] = 0.0
        policy = choose_policy(config.augmentation, len(data[0]))
        self.loop = EpochLoop(model, *data, config=config, policy=policy)
        self.seen_in_round = self.loop.batch_size * config.discriminator_steps
        self.history: dict[str, list[float]] = {name: [] for name in COLUMNS}
        self.good = self.loop.average(), self.loop.discriminator()
        self.step, self.block = 0, 0
        self.plan, self.pace = self._make_plan()
        self.sight: Sight | None = None
        self.next_look, self.warned = -math.inf, False

    def _make_plan(self) -> tuple[Plan, Pace | None]:
        if self.config.minutes is not None:
            return Plan(), Pace(60 * self.config.minutes, started=self.clock.started)
        default = max(_DEFAULT_EPOCHS, -(-_DEFAULT_STEPS // self.loop.num_steps))
        return Plan.until((self.config.epochs or default) * self.loop.num_steps), None

    @property
    def epochs(self) -> int:
        """Epochs done, the last of them perhaps in part."""
        return len(self.history["epoch"])

    @property
    def finished(self) -> bool:
        return self.step >= self.plan.num_steps

    def run_epoch(self) -> None:
        """One epoch, or what the plan leaves of it."""
        last = self.step + self.loop.num_steps
        self.loop.begin(self.epochs)
        while self.step < min(last, self.plan.num_steps):
            self._run_block(int(min(last, self.plan.num_steps)) - self.step)
            self.report("training", *self._images(), self._words())
        self._end_epoch()

    def _run_block(self, at_most: int) -> None:
        # The first round compiles; the next few tell how many fit between two looks at the clock.
        num = min(self.block or 1, at_most)
        with self.clock.measure("stepping" if self.block else "compilation"):
            self.loop.run(self._rates(num))
            means = self.loop.means()
        self.step += num
        if not self.block:
            self.block = _FIRST_BLOCK
        else:
            self.clock.counts["steps"] += num
            self.block = max(1, int(_BLOCK_SECONDS * self.clock.steps_per_second()))
        if not all(math.isfinite(value) for value in means.values()):
            raise _DivergedError
        if self.pace is not None:
            self.plan = self.pace.revise(self.plan, self.step)

    def _rates(self, num: int) -> Rates:
        config, turns = self.config, self.config.discriminator_steps
        shares = self.plan.learning_rates(1.0, self.step, num)
        betas = config.beta_1, config.beta_2
        critic = np.repeat(config.discriminator_learning_rate * shares, turns)
        return Rates(
            step_sizes(config.learning_rate * shares, self.step, betas),
            step_sizes(critic, self.step * turns, betas).reshape(num, turns),
            average_decays(config.weight_average, self.step, num),
        )

    def _end_epoch(self) -> None:
        weights = self.loop.average(), self.loop.discriminator()
        if not all(np.isfinite(array).all() for part in weights for array in part):
            raise _DivergedError
        self.good = weights
        sight = self._look()
        row = {
            "epoch": self.epochs + 1,
            "learning_rate": float(self.plan.learning_rates(1.0, self.step - 1, 1)[0])
            * self.config.learning_rate,
            **self.loop.means(),
        }
        if sight is not None:
            seen = math.nan if sight.num_seen is None else float(sight.num_seen)
            row |= {"diversity": sight.diversity, "classes_seen": seen}
            row["class_entropy"] = sight.entropy
        row = {name: float(row.get(name, math.nan)) for name in COLUMNS}
        # New lists, put in place at once: Ctrl-C finds this epoch in all columns or in none.
        self.history = {name: [*column, row[name]] for name, column in self.history.items()}
        self._warn()

    def _look(self) -> Sight | None:
        """What generated pictures are like, as often as a twentieth of the time allows."""
        started = time.perf_counter()
        if started < self.next_look and not self.finished:
            return None
        with self.clock.measure("watching"):
            self.loop.assign(*self.good)
            self.sight = self.watch.look(self.model.generate(NUM_WATCHED, seed=self.config.seed))
        now = time.perf_counter()
        self.next_look = now + (now - started) * (1 / _WATCH_SHARE - 1)
        return self.sight

    def advice(self) -> str:
        """As from `advise`, of the last epoch."""
        if self.sight is None or not self.epochs:
            return ""
        real, fake = (self.history[name][-1] for name in ACCURACIES)
        return advise(self.sight, real, fake, self.config.loss)

    def _warn(self) -> None:
        early = self.plan.progress(self.step) < _SETTLED and not self.finished
        advice = "" if self.warned or early else self.advice()
        if advice:
            self.warned = True
            logger.warning("Epoch %d: %s", self.epochs, advice)

    def _images(self) -> tuple[int, int]:
        """Images seen, and how many it will have been in the end."""
        total = self.plan.num_steps
        if total == math.inf and self.pace is not None:
            total = self.pace.total(self.step)
        return self.step * self.seen_in_round, int(total) * self.seen_in_round

    def _words(self) -> str:
        means = self.loop.means()
        if self.config.loss == "wasserstein":
            words = f"distance {means['real_logit'] - means['fake_logit']:.2f}"
        else:
            words = (
                f"found out {means['fake_accuracy']:.0%} of generated, {means['real_accuracy']:.0%}"
                " of real right"
            )
        if self.sight is not None:
            words += f", {self.sight.words()}"
        if self.warned and self.advice():
            words += " (collapsed?)" if "collapsed" in self.advice() else " (too sure)"
        speed = self.images_per_second
        return f"{words}, {speed:.0f} images/s" if speed else words

    @property
    def images_per_second(self) -> float:
        """Speed of the game alone; 0 while it is not known."""
        return self.clock.steps_per_second() * self.seen_in_round

    def end_early(self, *, diverged: bool) -> None:
        """Chooses the weights to keep, and says why where it is not plain."""
        if not diverged:
            weights = self.loop.average(), self.loop.discriminator()
            if all(np.isfinite(array).all() for part in weights for array in part):
                self.good = weights
            return
        rate = self.config.learning_rate
        remedy = f"expected a smaller learning_rate (it is {rate:g}), or precision='float32'"
        if not self.epochs:
            raise ValueError(f"a loss is not a number in the first epoch: {remedy}.")
        logger.warning(
            "A loss is not a number in epoch %d; the weights of epoch %d were kept: %s.",
            self.epochs + 1,
            self.epochs,
            remedy,
        )

    def result(self, interrupted: bool) -> TrainedGAN:
        """Gives the model its weights."""
        self.loop.assign(*self.good)
        calibrate(self.model, self.labels, seed=self.config.seed)
        pictures = self.model.generate(NUM_WATCHED, seed=self.config.seed)
        self.sight = self.watch.look(pictures)
        counts = self.clock.counts
        return TrainedGAN(
            model=self.model,
            config=self.config,
            history=self.history,
            sight=self.sight,
            advice=self.advice(),
            seconds={
                "training": self.clock.total(),
                **{name: counts[name] for name in ("compilation", "watching")},
            },
            images_per_second=self.images_per_second,
            interrupted=interrupted,
            epochs=self.epochs,
        )


class _Store:
    """Where a training is kept, and when it was last."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        config: TrainConfig,
        data: tuple[np.ndarray, np.ndarray | None],
    ) -> None:
        self._path = None if path is None else Path(path)
        self._identity: Mapping[str, Any] = {} if path is None else identify(config, *data)
        self._saved = time.perf_counter()

    def resume(self, session: _Session) -> None:
        """Goes on from where a checkpoint was made, if there is one.

        Raises:
            ValueError: It belongs to another training, or is damaged.
        """
        if self._path is None:
            return
        found = load_checkpoint(self._path, self._identity, columns=COLUMNS)
        if found is None:
            return
        session.loop.write(found.arrays)
        session.history = {name: list(found.history[name]) for name in COLUMNS}
        session.good = session.loop.average(), session.loop.discriminator()
        session.plan = Plan.from_json(found.plan)
        session.clock.counts.update(found.seconds)
        session.step = int(min(session.epochs * session.loop.num_steps, session.plan.num_steps))
        if session.plan.num_steps < math.inf:
            session.pace = None
        elif session.config.minutes is not None:
            started = session.clock.started - session.clock.counts["before"]
            session.pace = Pace(60 * session.config.minutes, started=started)

    def save(self, session: _Session) -> None:
        """Keeps the training, unless it was just kept."""
        now = time.perf_counter()
        if self._path is None or not (session.finished or now - self._saved > _CHECKPOINT_SECONDS):
            return
        checkpoint = Checkpoint(
            epochs=session.epochs,
            seconds={**session.clock.counts, "before": session.clock.total()},
            plan=session.plan.knots,
            history=session.history,
            arrays=session.loop.read(),
        )
        save_checkpoint(self._path, checkpoint, self._identity)
        self._saved = time.perf_counter()
