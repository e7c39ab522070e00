"""Gradient descent on a tail: the optimizer's steps, when it ends, and which weights are kept."""

import dataclasses

import keras
import numpy as np
import pytest

from safelight.transfer import models
from safelight.transfer.config import TrainConfig
from safelight.transfer.fine_tuning import KeepBest, WeightAverage, fine_tune


def head_problem(learning_rate: float, **options):
    """A head that starts perfect or from zero on separable points, its data, its settings."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    rows = (rng.normal(0, 1, (40, 3)) + 2 * labels[:, None]).astype("float32")
    targets = np.eye(2, dtype="float32")[labels]

    class Rows(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return rows[i * 10 : i * 10 + 10], targets[i * 10 : i * 10 + 10]

    keras.utils.set_random_seed(0)
    config = TrainConfig(learning_rate=learning_rate, batch_size=8, **options)
    return models.build_head(3, 2), Rows(), config


def loss_of(model, data) -> float:
    return model.evaluate(data, verbose=0, return_dict=True)["loss"]


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_every_step_is_that_of_keras_own_optimizer_along_a_cosine(optimizer):
    """Three epochs of four steps, of pictures that do not all weigh the same."""
    model, data, config = head_problem(
        0.1, epochs=3, optimizer=optimizer, weight_decay=0.3, weight_averaging=False
    )
    other = models.build_head(3, 2)
    other.set_weights(model.get_weights())
    importance = np.random.default_rng(1).uniform(0.2, 3, 40).astype("float32")
    found = []

    class Watched(type(data)):
        def __getitem__(self, i):
            return *data[i], importance[i * 10 : i * 10 + 10]

        def on_epoch_end(self):
            found.append(model.get_weights())

    fine_tune(model, Watched(), data, config=config)
    rate = keras.optimizers.schedules.CosineDecay(0.1, 3 * 4)
    adamw = optimizer == "adamw"
    known = keras.optimizers.AdamW(rate, 0.3) if adamw else keras.optimizers.Adam(rate)
    other.compile(known, keras.losses.CategoricalCrossentropy(from_logits=True))
    assert len(found) == 3
    for weights in found:
        for batch in map(Watched().__getitem__, range(4)):
            other.train_on_batch(*batch)
        for ours, theirs in zip(weights, other.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_training_that_makes_it_worse_gives_the_start_back(optimizer):
    model, data, config = head_problem(0.1, epochs=10)
    fine_tune(model, data, data, config=config)
    start = [w.copy() for w in model.get_weights()]
    config = dataclasses.replace(config, learning_rate=1e4, patience=2, optimizer=optimizer)
    tuned = fine_tune(model, data, data, config=config)
    history = tuned.history
    assert all((a == b).all() for a, b in zip(start, model.get_weights(), strict=True))
    assert history["epoch"] == [0.0, 1.0, 2.0]
    assert min(history["val_loss"]) == history["val_loss"][0]
    assert not tuned.interrupted
    assert tuned.kept == "epoch 0"


def test_the_best_epoch_is_what_remains():
    model, data, config = head_problem(3.0, epochs=8, patience=8, weight_averaging=False)
    tuned = fine_tune(model, data, data, config=config)
    history = tuned.history
    assert tuned.kept == f"epoch {int(np.argmin(history['val_loss']))}"
    assert loss_of(model, data) == pytest.approx(min(history["val_loss"]), rel=1e-5)
    assert {len(column) for column in history.values()} == {9}
    assert np.isnan([history["loss"][0], history["accuracy"][0]]).all()


@pytest.mark.parametrize("stop_at", [1, 4, 10])
def test_ctrl_c_keeps_the_best_so_far(stop_at):
    model, data, config = head_problem(0.05, epochs=5)
    calls = []

    def report(*_):
        calls.append([w.copy() for w in model.get_weights()])
        if len(calls) == stop_at:
            raise KeyboardInterrupt

    config = dataclasses.replace(config, weight_averaging=False)
    tuned = fine_tune(model, data, data, config=config, report=report)
    history = tuned.history
    assert tuned.interrupted
    whole_epochs = (stop_at - 1) // 4
    assert len(history["val_loss"]) == whole_epochs + 1
    assert loss_of(model, data) == pytest.approx(min(history["val_loss"]), rel=1e-5)
    assert {len(column) for column in history.values()} == {whole_epochs + 1}


def test_the_average_of_the_second_half_is_kept_where_no_epoch_is_clearly_better():
    model, data, config = head_problem(0.3, epochs=40, patience=40)
    fine_tune(model, data, data, config=config)  # to the optimum, about which it then wanders
    config = dataclasses.replace(config, epochs=6, patience=6)
    after_epoch, losses = [], []

    class Watched(type(data)):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            if i == 0:  # validation begins, so an epoch has ended
                after_epoch.append(model.get_weights())
            return data[i]

    tuned = fine_tune(model, data, Watched(), config=config)
    expected = [np.mean(weights, axis=0) for weights in zip(*after_epoch[4:7], strict=True)]
    assert tuned.kept == "average of epochs 4 to 6"
    for mean, weight in zip(expected, model.get_weights(), strict=True):
        np.testing.assert_allclose(mean, weight, rtol=1e-5, atol=1e-7)
    for weights in after_epoch[:7]:
        model.set_weights(weights)
        losses.append(loss_of(model, data))
    np.testing.assert_allclose(losses, tuned.history["val_loss"], rtol=1e-5)


def test_the_average_gives_way_to_an_epoch_that_is_better_by_a_standard_error():
    """The first epoch is good, then a huge rate throws the weights far away."""
    model, data, config = head_problem(0.05, epochs=4, patience=9)
    epochs = []

    class Thrown(type(data)):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return data[i]

        def on_epoch_end(self):
            epochs.append(model.get_weights())
            if len(epochs) > 1:
                model.set_weights([*epochs[0][:-2], -9 * epochs[0][-2], epochs[0][-1]])

    tuned = fine_tune(model, Thrown(), data, config=config)
    assert tuned.kept == f"epoch {int(np.argmin(tuned.history['val_loss']))}"
    assert loss_of(model, data) == pytest.approx(min(tuned.history["val_loss"]), rel=1e-5)


def test_an_average_of_weights_is_their_mean_from_its_first_epoch_on():
    model = models.build_head(2, 2)
    average = WeightAverage(model, 2)
    for epoch, value in enumerate([7.0, 1.0, 2.0, 6.0], start=1):
        model.set_weights([np.full_like(w, value) for w in model.get_weights()])
        average.update(epoch)
    assert average.count == 3
    assert average.put() == "average of epochs 2 to 4"
    assert all(np.allclose(w, 3.0) for w in model.get_weights())


def test_patience_counts_from_the_best_epoch():
    keep = KeepBest(models.build_head(2, 2), 1.0, patience=2)
    losses = [0.9, 0.95, 0.8, float("nan"), 0.81]
    stopped = [keep.update(epoch, loss) for epoch, loss in enumerate(losses, start=1)]
    assert stopped == [False, False, False, False, True]
    assert (keep.best, keep.best_epoch) == (0.8, 3)
