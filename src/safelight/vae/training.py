"""Training a variational autoencoder: epochs until the time is up, resumed to the bit after a kill.

    trained = train(model, images, validation=held_out, config=TrainConfig(minutes=4))
    trained.model.sample(64)

The epochs themselves are in `loops`; here is what lies around them: how many there are, what is
kept, what is said, and what is done when something goes wrong.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safelight.generative import pictures
from safelight.generative.checkpoints import Checkpoint, identify, load_checkpoint, save_checkpoint
from safelight.generative.schedules import Pace, Plan, Stopwatch, average_decays, step_sizes
from safelight.vae import objectives
from safelight.vae.config import TrainConfig, check_last_quarter
from safelight.vae.devices import Devices, current_devices
from safelight.vae.loops import EpochLoop, Scores, Validator
from safelight.vae.models import VAE
from safelight.vae.moments import (
    EpochCallback,
    Moment,
    Report,
    Watcher,
    advise_on_collapse,
    describe,
    silent,
    warn_of_warmup,
)
from safelight.vae.training_data import TrainingData

logger = logging.getLogger(__name__)

COLUMNS = (
    "epoch",
    "elbo",
    "reconstruction",
    "kl",
    "val_elbo",
    "val_reconstruction",
    "val_kl",
    "active_units",
    "learning_rate",
)
_DEFAULT_STEPS, _DEFAULT_EPOCHS = 10_000, 20
_FIRST_BLOCK = 4  # steps, until the speed is known
_BLOCK_SECONDS = 0.7  # between two looks at the clock and at Ctrl-C
_CHECKPOINT_SECONDS = 20.0
_VALIDATION_SHARE = 0.05  # of the time, at most
_NUM_WATCHED = 1000  # training images, where there are none to validate on
_COLLAPSED = 0.1  # of the units active, or fewer
# Of the training, the end in which the bound of several samples is raised. The learning rate has
# fallen to a seventh by then.
FINAL_PART = 0.25
_SETTLED = 0.5  # of the training, before which units may yet wake up


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedVAE:
    """What training gives.

    Attributes:
        model: The model that was passed, with the averaged weights.
        config: The settings it was trained with.
        history: A list per column of `COLUMNS`, one value per epoch; NaN where an epoch was not
            validated. Nats per image.
        history_kl: `(epochs, latent_dim)`, KL divergence per unit on the training images.
        seconds: Wall time of `"training"`, and of `"validation"` and `"compilation"` in it; those
            of the runs before, if it was resumed, included.
        images_per_second: Training speed after compilation, validation not counted; with
            `final_samples` that of the last quarter.
        interrupted: Whether Ctrl-C, or numbers that left the range of floats, ended it early.
        epochs: Epochs done, the last of them perhaps in part.
    """

    model: VAE
    config: TrainConfig
    history: dict[str, list[float]]
    history_kl: np.ndarray
    seconds: dict[str, float]
    images_per_second: float
    interrupted: bool
    epochs: int


def train(
    model: VAE,
    images: Any,
    *,
    validation: Any = None,
    config: TrainConfig | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    report: Report = silent,
    callback: EpochCallback | Watcher | None = None,
) -> TrainedVAE:
    """Trains with Adam and a cosine decay to 0, and gives the model its averaged weights.

    With `config.minutes` the number of steps follows from the speed of the first twentieth of the
    time; all is counted, compilation and validation too. Should the machine turn slower or faster
    later on, the remaining cosine is stretched to fit. A resumed training keeps the plan it had,
    even if that takes longer, as it does with `final_samples`, whose steps are dearer.

    Ctrl-C ends it with what there is. If a number becomes NaN or infinite, the average of the last
    good epoch is kept, a warning says what to change, and `interrupted` is true as well.

    Inside `devices.sharing` several devices share every batch.

    Args:
        model: As from `build_vae`; what is maximised is the model's own business.
        images: uint8 `(n, height, width, channels)`, or `(images, labels)`.
        validation: The like, to watch; scored with the averaged weights and, for black and white
            pixels, on one fixed draw. It decides nothing.
        config: Of it the settings of the training count: epochs or minutes, batch_size,
            learning_rate, warmup_epochs, weight_average, weight_decay, final_samples and, with
            them, backward_samples, final_gradient, seed, and binarization="static".
        checkpoint: A file (`.npz`) that keeps the training at the end of an epoch, if 20 seconds
            have gone by since it last did. If it exists, the training goes on from there, and on
            TensorFlow ends with the same bits as one that was not disturbed.
        report: Told how far it is.
        callback: Called after each epoch; or a `Watcher`, such as `LiveView`, which is shown the
            model between its steps.

    Raises:
        ValueError: Images of another shape or dtype; a checkpoint of another training; devices that
            are not there or do not divide a batch; or a loss that is not a number in the first
            epoch already.
    """
    config = config or TrainConfig()
    data = TrainingData.of(model, images, validation, config)
    session = _Session(model, data, config, current_devices())
    store = _Store.of(checkpoint, session, data)
    interrupted = False
    watcher, told = _split(callback)
    try:
        report("training", 0, 1, "compiling")
        session.check_agreement()
        session.show_to(watcher)
        session.compile()
        while not session.finished:
            session.run_epoch(report, watcher)
            store.save(session)
            _warn_of_collapse(session)
            if told is not None:
                told(session.epochs, session.history)
    except (KeyboardInterrupt, _DivergedError) as reason:
        interrupted = True
        session.end_early(diverged=isinstance(reason, _DivergedError))
    trained = session.result(interrupted)
    if not interrupted:
        warn_of_warmup(session.epochs, config.warmup_epochs)
    session.show_to(watcher, finished=True)
    return trained


def _split(
    callback: EpochCallback | Watcher | None,
) -> tuple[Watcher | None, EpochCallback | None]:
    """Who looks between steps, and who is told after epochs."""
    return (callback, None) if isinstance(callback, Watcher) else (None, callback)


class _DivergedError(ArithmeticError):
    """A number became NaN or infinite."""


class _Judge:
    """Scores weights on held-out pictures, as often as a twentieth of the time allows.

    Without held-out pictures some of the training's tell how many units are active, and no more.
    """

    def __init__(self, model: VAE, data: TrainingData, seed: int) -> None:
        self.held_out = data.held_out is not None
        images, labels = data.held_out, data.held_out_labels
        if images is None:
            images = data.images[:_NUM_WATCHED]
            labels = None if data.labels is None else data.labels[:_NUM_WATCHED]
            if model.binarization == "dynamic":
                images = pictures.binarize(images, seed=seed)
        self._validator = Validator(model, images, labels, seed=seed)
        self._next = -math.inf
        self.last: Scores | None = None

    def compile(self, weights: Sequence[np.ndarray]) -> None:
        """Looks once for nothing, so that the next looks take no longer than they need."""
        self._validator.scores(weights)

    def scores(self, weights: Sequence[np.ndarray], *, due: bool) -> Scores | None:
        """What the weights are worth; `None` where it is too early to look again, unless `due`."""
        started = time.perf_counter()
        if started < self._next and not due:
            return None
        self.last = self._validator.scores(weights)
        now = time.perf_counter()
        self._next = now + (now - started) * (1 / _VALIDATION_SHARE - 1)
        return self.last


class _Session:
    """One training in progress."""

    def __init__(
        self, model: VAE, data: TrainingData, config: TrainConfig, devices: Devices | None = None
    ) -> None:
        self.model, self.config, self.watch = model, config, Stopwatch()
        self.devices = devices
        self.num_images = len(data.images)
        self.batch_size = min(config.batch_size, self.num_images)
        self.make_loop = functools.partial(
            EpochLoop,
            model,
            data.images,
            data.labels,
            batch_size=self.batch_size,
            seed=config.seed,
            weight_decay=config.weight_decay,
            devices=devices,
        )
        if devices is not None:
            devices.check_batch(self.batch_size)
            self._refuse_clocks()
        held = model.num_samples, model.beta, model.free_bits
        check_last_quarter(config, *held, one_layer=model.prior.one_layer)
        self.loop, self.is_last_quarter = self.make_loop(), False
        self.judge = _Judge(model, data, config.seed)
        self.history: dict[str, list[float]] = {name: [] for name in COLUMNS}
        self.history_kl: list[np.ndarray] = []
        self.good = self.loop.average()
        self.step, self.block = 0, 0
        self.plan, self.pace = self._make_plan()
        self.warned = False

    @property
    def _in_step(self) -> bool:
        """Whether other processes have to do the same steps at the same time."""
        return self.devices is not None and self.devices.num_processes > 1

    def _refuse_clocks(self) -> None:
        if self._in_step and self.config.minutes is not None:
            raise ValueError(
                f"minutes={self.config.minutes} in several processes, whose clocks differ: "
                "expected epochs."
            )

    def check_agreement(self) -> None:
        """Whether all processes stand at the same step."""
        if self.devices is not None:
            self.devices.check_agreement(self.step)

    def compile(self) -> None:
        """Compiles what would disturb the measure of speed later."""
        if not self.finished:
            with self.watch.measure("compilation"):
                self.judge.compile(self.good)

    def _make_plan(self) -> tuple[Plan, Pace | None]:
        if self.config.minutes is not None:
            return Plan(), Pace(60 * self.config.minutes, started=self.watch.started)
        default = max(_DEFAULT_EPOCHS, -(-_DEFAULT_STEPS // self.loop.num_steps))
        return Plan.until((self.config.epochs or default) * self.loop.num_steps), None

    @property
    def epochs(self) -> int:
        """Epochs done, the last of them perhaps in part."""
        return len(self.history["epoch"])

    @property
    def finished(self) -> bool:
        return self.step >= self.plan.num_steps

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return float(self.plan.progress(self.step))

    def show_to(self, watcher: Watcher | None, *, finished: bool = False) -> None:
        """Shows how the training stands, or what it leaves."""
        if watcher is not None:
            average = (lambda: self.good) if finished else self.loop.average
            epochs = self.step / self.loop.num_steps
            watcher.look(Moment(epochs, self.watch.total(), finished, self.model, average))

    def run_epoch(self, report: Report, watcher: Watcher | None = None) -> None:
        """One epoch, or what the plan leaves of it."""
        self._begin_last_quarter()
        last = self.step + self.loop.num_steps
        weight = objectives.warmup_weight(self.epochs, self.config.warmup_epochs)
        self.loop.begin(self.epochs, kl_weight=weight)
        while self.step < min(last, self.plan.num_steps):
            self._run_block(int(min(last, self.plan.num_steps)) - self.step)
            report("training", *self._images(), self._words())
            self.show_to(watcher)
        self._end_epoch()

    def _begin_last_quarter(self) -> None:
        """Goes over to another bound or gradient when it is time, from one epoch to the next."""
        # The start of an epoch that is nearest to the last quarter's: half an epoch early at most.
        half = 0.5 * self.loop.num_steps / self.plan.num_steps
        if self.is_last_quarter or self.progress + half < 1 - FINAL_PART - 1e-9:
            return
        self.is_last_quarter = True
        objective = self.config.last_objective(one_layer=self.model.prior.one_layer)
        if not objective:
            return
        loop = self.make_loop(**objective)
        loop.write(self.loop.read())
        self.loop, self.block = loop, 0  # the next step compiles
        self.watch.forget_speed()
        if self.pace is not None:
            self.pace.forget()

    def _run_block(self, at_most: int) -> None:
        # The first step compiles; the next few tell how many fit between two looks at the clock.
        num_steps = min(self.block or 1, at_most)
        rates = self.plan.learning_rates(self.config.learning_rate, self.step, num_steps)
        decays = average_decays(self.config.weight_average, self.step, num_steps)
        with self.watch.measure("stepping" if self.block else "compilation"):
            self.loop.run(rates, step_sizes(rates, self.step), decays)
            means = self.loop.means()
        self.step += num_steps
        if not self.block:
            self.block = _FIRST_BLOCK
        else:
            self.watch.counts["steps"] += num_steps
            self.block = max(1, int(_BLOCK_SECONDS * self.watch.steps_per_second()))
        if self._in_step:
            self.block = self.loop.num_steps  # the same everywhere, whatever the clock says
        if not math.isfinite(means["elbo"]):
            raise _DivergedError
        if self.pace is not None:
            self.plan = self.pace.revise(self.plan, self.step)

    def _end_epoch(self) -> None:
        average = self.loop.average()
        if not all(np.isfinite(array).all() for array in average):
            raise _DivergedError
        with self.watch.measure("validation"):
            scores = self.judge.scores(average, due=self.finished or not self.epochs)
        if scores is not None and not math.isfinite(scores.elbo):
            raise _DivergedError
        self.good = average
        means = self.loop.means()
        kl_per_unit = means.pop("kl_per_unit")
        rate = self.plan.learning_rates(self.config.learning_rate, self.step - 1, 1)[0]
        row = {"epoch": self.epochs + 1, "learning_rate": rate, **means, **self._judged(scores)}
        row = {name: float(row.get(name, math.nan)) for name in COLUMNS}
        # New lists, put in place at once: Ctrl-C finds this epoch in all columns or in none.
        history = {name: [*column, row[name]] for name, column in self.history.items()}
        self.history, self.history_kl = history, [*self.history_kl, kl_per_unit]

    def _judged(self, scores: Scores | None) -> dict[str, float]:
        if scores is None:
            return {}
        names = ("elbo", "reconstruction", "kl") if self.judge.held_out else ()
        judged = {f"val_{name}": getattr(scores, name) for name in names}
        return {**judged, "active_units": scores.active_units}

    def _images(self) -> tuple[int, int]:
        """Images seen, and how many it will have been in the end."""
        total = self.plan.num_steps
        if total == math.inf and self.pace is not None:
            total = self.pace.total(self.step)
        return self.step * self.batch_size, int(total) * self.batch_size

    def _words(self) -> str:
        scores, speed = self.judge.last, self.images_per_second
        means = self.loop.means()
        if self.judge.held_out and scores is not None:
            means = {name: getattr(scores, name) for name in ("elbo", "reconstruction", "kl")}
        active = None if scores is None else scores.active_units
        return describe(means, active, self.model.latent_dim, speed)

    @property
    def images_per_second(self) -> float:
        """Speed of the training alone; 0 while it is not known."""
        return self.watch.steps_per_second() * self.batch_size

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Keeps what the next epoch depends on; to be called between two epochs."""
        checkpoint = Checkpoint(
            epochs=self.epochs,
            seconds={**self.watch.counts, "before": self.watch.total()},
            plan=self.plan.knots,
            history=self.history,
            arrays=self.loop.read(),
            tables={"kl_per_unit": np.array(self.history_kl)},
        )
        save_checkpoint(path, checkpoint, identity)

    def resume(self, found: Checkpoint) -> None:
        """Goes on from where a checkpoint was made."""
        self.loop.write(found.arrays)
        self.history = {name: list(found.history[name]) for name in COLUMNS}
        self.history_kl = list(found.tables["kl_per_unit"])
        self.good, self.plan = self.loop.average(), Plan.from_json(found.plan)
        self.watch.counts.update(found.seconds)
        self.step = int(min(self.epochs * self.loop.num_steps, self.plan.num_steps))
        if self.plan.num_steps < math.inf:
            self.pace = None
        elif self.config.minutes is not None:
            started = self.watch.started - self.watch.counts["before"]
            self.pace = Pace(60 * self.config.minutes, started=started)

    def end_early(self, *, diverged: bool) -> None:
        """Chooses the weights to keep, and says why where it is not plain."""
        average = self.loop.average()
        if not diverged and all(np.isfinite(array).all() for array in average):
            self.good = average
        if diverged and not self.epochs:
            raise ValueError(f"the ELBO is not a number in the first epoch: {self._remedy()}.")
        if diverged:
            logger.warning(
                "The ELBO is not a number in epoch %d; the weights of epoch %d were kept: %s.",
                self.epochs + 1,
                self.epochs,
                self._remedy(),
            )

    def _remedy(self) -> str:
        rate = self.config.learning_rate
        remedies = [f"expected a smaller learning_rate (it is {rate:g}), such as {rate / 3:.1g}"]
        if self.config.precision == "bfloat16":
            remedies.append("precision='float32'")
        if self.model.likelihood.scale_trainable:
            remedies.append("a likelihood whose scale is not learned, such as 'gaussian'")
        return ", or ".join(remedies)

    def result(self, interrupted: bool) -> TrainedVAE:
        """Gives the model its weights."""
        for variable, value in zip(self.model.trainable_variables, self.good, strict=True):
            variable.assign(value)
        counts = self.watch.counts
        parts = {name: counts[name] for name in ("compilation", "validation")}
        return TrainedVAE(
            model=self.model,
            config=self.config,
            history=self.history,
            history_kl=np.reshape(self.history_kl, (self.epochs, self.model.latent_dim)),
            seconds={"training": self.watch.total(), **parts},
            images_per_second=self.images_per_second,
            interrupted=interrupted,
            epochs=self.epochs,
        )


@dataclasses.dataclass
class _Store:
    """Where a training is kept, and when it was last."""

    path: Path | None
    identity: Mapping[str, Any]
    saved: float = -math.inf

    @classmethod
    def of(
        cls, path: str | os.PathLike[str] | None, session: _Session, data: TrainingData
    ) -> _Store:
        """A store; if there is a training in it, the session goes on from there."""
        if path is None:
            return cls(None, {})
        identity = identify(session.config, *data.as_tuple())
        tables = {"kl_per_unit": session.model.latent_dim}
        if found := load_checkpoint(path, identity, columns=COLUMNS, tables=tables):
            session.resume(found)
        return cls(Path(path), identity, time.perf_counter())

    def save(self, session: _Session) -> None:
        """Keeps the training, unless it was just kept."""
        now = time.perf_counter()
        leads = session.devices is None or session.devices.leads
        due = session.finished or now - self.saved > _CHECKPOINT_SECONDS
        if self.path is not None and leads and due:
            session.save(self.path, self.identity)
            self.saved = time.perf_counter()


def _warn_of_collapse(session: _Session) -> None:
    """Says once what to do if hardly any latent unit tells pictures apart."""
    scores, config = session.judge.last, session.config
    early = session.epochs <= config.warmup_epochs or session.progress < _SETTLED
    too_early = early and not session.finished
    if session.warned or too_early or scores is None:
        return
    if scores.active_units > _COLLAPSED * session.model.latent_dim:
        return
    session.warned = True
    logger.warning(advise_on_collapse(session.model, config, scores.active_units))
