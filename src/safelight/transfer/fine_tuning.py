"""Gradient descent on a tail or a whole network: epochs, early stopping, weights to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
from scipy.special import log_softmax

from safelight.transfer import channels_last
from safelight.transfer.config import TrainConfig

Report = Callable[[str, int, int, str], None]
"""Called with (stage, done, total, a few words); a progress bar for instance."""


def silent(stage: str, done: int, total: int, words: str) -> None:
    """Reports nothing."""


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What `fine_tune` did.

    Attributes:
        history: A list per metric; epoch 0 is the start, its training values NaN.
        interrupted: Whether Ctrl-C ended it.
        kept: Which weights it left in the model.
    """

    history: dict[str, list[float]]
    interrupted: bool
    kept: str


class KeepBest:
    """The best weights so far, and whether it is time to stop.

    It knows the score before the first epoch: fine-tuning that never beats it gives the start back.

    Args:
        model: The model in training, its weights now being those of epoch 0.
        score: Validation loss of these.
        patience: Epochs without improvement after which training stops.
    """

    def __init__(self, model: keras.Model, score: float, patience: int) -> None:
        self.best, self.best_epoch, self.patience = score, 0, patience
        self._model, self._weights = model, model.get_weights()

    def update(self, epoch: int, score: float) -> bool:
        """Takes note of an epoch, counted from 1; returns whether to stop."""
        if score < self.best:
            self.best, self.best_epoch, self._weights = score, epoch, self._model.get_weights()
        return epoch - self.best_epoch >= self.patience

    def restore(self) -> str:
        """Puts the best weights back, and says whose they are."""
        self._model.set_weights(self._weights)
        return f"epoch {self.best_epoch}"


class WeightAverage:
    """The mean of the weights after each of the later epochs.

    Near the end of the decay the weights wander about an optimum, and their mean is nearer to it
    than any of them (Polyak & Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407).

    Args:
        model: The model in training.
        first: The first epoch that counts.
    """

    def __init__(self, model: keras.Model, first: int) -> None:
        self.first, self.last, self._model = first, 0, model
        self._sums: list[np.ndarray] = []

    def update(self, epoch: int) -> None:
        """Takes the weights after an epoch, counted from 1."""
        if epoch >= self.first:
            weights = [np.asarray(weight, "float64") for weight in self._model.get_weights()]
            before = self._sums or [np.zeros_like(weight) for weight in weights]
            self._sums = [total + weight for total, weight in zip(before, weights, strict=True)]
            self.last = epoch

    @property
    def count(self) -> int:
        """How many epochs it is the mean of."""
        return max(0, self.last - self.first + 1)

    def put(self) -> str:
        """Puts the mean into the model, and says of what it is."""
        self._model.set_weights([total / self.count for total in self._sums])
        return f"average of epochs {self.first} to {self.last}"


def fine_tune(
    model: keras.Model,
    train_data: keras.utils.PyDataset,
    validation_data: keras.utils.PyDataset,
    *,
    config: TrainConfig,
    report: Report = silent,
) -> FineTuned:
    """Trains a model that returns logits, with cosine decay, and decides which weights to keep.

    With `config.weight_averaging` these are the average over the second half of the epochs, unless
    the best single epoch is better on the validation part by more than one standard error of the
    paired difference (the one-standard-error rule of Breiman et al. 1984, section 3.4.3): a few
    hundred pictures cannot tell epochs apart, and picking the least of several noisy losses is a
    lottery. Otherwise they are those of the best epoch.

    Args:
        model: A tail, or a whole network with its lower part frozen.
        train_data: Batches of inputs, targets and, maybe, weights.
        validation_data: Batches to watch; the loss on it decides when to stop and what is best.
        config: Optimizer, learning rate, epochs, patience, averaging.
        report: Told how far it is.
    """
    _compile(model, config, max(1, config.epochs * len(train_data)))
    names = ("epoch", "loss", "val_loss", "accuracy", "val_accuracy")
    history: dict[str, list[float]] = {name: [] for name in names}
    start = _pass(model.test_on_batch, validation_data)
    _append(history, 0, {"loss": float("nan"), "accuracy": float("nan")}, start)
    keep = KeepBest(model, start["loss"], config.patience)
    average = WeightAverage(model, config.epochs // 2 + 1)
    progress = _Progress(report, train_data, config)
    interrupted = False
    try:
        for epoch in range(1, config.epochs + 1):
            fitted = _pass(model.train_on_batch, train_data, progress.batch)
            train_data.on_epoch_end()
            held_out = _pass(model.test_on_batch, validation_data)
            _append(history, epoch, fitted, held_out)
            progress.epoch(held_out)
            stop = keep.update(epoch, held_out["loss"])
            if config.weight_averaging:
                average.update(epoch)
            if stop:
                break
    except KeyboardInterrupt:
        interrupted = True
    return FineTuned(history, interrupted, _settle(model, keep, average, validation_data))


def _compile(model: keras.Model, config: TrainConfig, steps: int) -> None:
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
    decay = config.weight_decay if config.optimizer == "adamw" else None
    on_torch = keras.backend.backend() == "torch"
    adam = channels_last.InPlaceAdam if on_torch else keras.optimizers.Adam
    optimizer = adam(rate, weight_decay=decay)  # that of Keras' AdamW, where it decays
    if on_torch:
        optimizer.build(model.trainable_variables)
        channels_last.arrange(optimizer.variables)
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )


def _settle(
    model: keras.Model, keep: KeepBest, average: WeightAverage, data: keras.utils.PyDataset
) -> str:
    """Leaves the model with its best or its averaged weights, and says which."""
    best = keep.restore()
    if not average.count:
        return best
    best_losses = _losses(model, data)
    averaged = average.put()
    gain = _losses(model, data) - best_losses
    if gain.mean() > gain.std() / max(1, len(gain) - 1) ** 0.5:
        return keep.restore()
    return averaged


def _losses(model: keras.Model, data: keras.utils.PyDataset) -> np.ndarray:
    """Cross-entropy of each image, `(num_images,)`, in the order of the data."""
    losses = []
    for inputs, targets, *_ in _read_ahead(data):
        logits = np.asarray(model.predict_on_batch(inputs), "float64")
        losses.append(-(targets * log_softmax(logits, axis=1)).sum(1))
    return np.concatenate(losses)


def _pass(
    step: Callable[..., dict[str, float]],
    data: keras.utils.PyDataset,
    after: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Goes through all batches once and gives the mean loss and accuracy.

    A loop over `train_on_batch` rather than `fit`: with TensorFlow `fit` starts an input pipeline
    for every epoch, which on two cores costs one to one and a half seconds; from activations of a
    few hundred pictures that is as long as the epoch itself.
    """
    totals, count = {"loss": 0.0, "accuracy": 0.0}, 0
    for index, batch in enumerate(_read_ahead(data)):
        logs = step(*batch, return_dict=True)
        count += len(batch[1])
        for name in totals:
            totals[name] += len(batch[1]) * float(logs[name])
        if after is not None:
            after(index)
    return {name: total / count for name, total in totals.items()}


def _read_ahead(data: keras.utils.PyDataset) -> Iterator[tuple[np.ndarray, ...]]:
    """The batches in order, each made in a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(data.__getitem__, 0)
        for index in range(len(data)):
            batch = upcoming.result()
            if index + 1 < len(data):
                upcoming = thread.submit(data.__getitem__, index + 1)
            yield batch


def _append(
    history: dict[str, list[float]], epoch: int, fitted: dict, held_out: dict[str, float]
) -> None:
    history["epoch"].append(float(epoch))
    for name in ("loss", "accuracy"):
        history[name].append(fitted[name])
        history[f"val_{name}"].append(held_out[name])


class _Progress:
    """Passes batches on as images done, with the last validation scores."""

    def __init__(self, report: Report, data: keras.utils.PyDataset, config: TrainConfig) -> None:
        self._report, self._size, self._words = report, config.batch_size, ""
        self._per_epoch, self._epochs, self._done = len(data) * self._size, config.epochs, 0

    def batch(self, index: int) -> None:
        """Another batch was trained on."""
        done = self._done + (index + 1) * self._size
        self._report("fine-tuning", done, self._epochs * self._per_epoch, self._words)

    def epoch(self, held_out: dict[str, float]) -> None:
        """Another epoch was judged."""
        self._done += self._per_epoch
        self._words = f"val. loss {held_out['loss']:.3f}, acc. {held_out['accuracy']:.1%}"
