import dataclasses
import logging
import math
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from safelight.vae import loops, training
from safelight.vae.building import build_vae
from safelight.vae.config import TrainConfig
from safelight.vae.loops import EpochLoop
from safelight.vae.models import LOGS
from safelight.vae.moments import advise_on_collapse, describe
from safelight.vae.training import COLUMNS, train

SHAPE = (4, 3, 1)
CONFIG = TrainConfig(
    latent_dim=2, hidden_units=(8,), epochs=4, batch_size=8, learning_rate=0.02, seed=1
)


def make_images(num=30, seed=0):
    """Two kinds of pictures, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(30, 226, (2, *SHAPE))
    return kinds[rng.integers(0, 2, num)].astype("uint8")


def build(config=CONFIG, **options):
    return build_vae(SHAPE, config, **options)


def weights(model):
    return [np.array(ops.convert_to_numpy(w)) for w in model.trainable_variables]


def change(**changes):
    return dataclasses.replace(CONFIG, **changes)


@pytest.fixture
def every_epoch(monkeypatch, no_xla):
    """Without the thrift that saves and validates only now and then."""
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "_VALIDATION_SHARE", 1.0)


def test_what_training_gives(every_epoch):
    images, held_out = make_images(), make_images(11, seed=3)
    model, told, seen = build(), [], []
    trained = train(
        model,
        images,
        validation=held_out,
        config=CONFIG,
        report=lambda *words: told.append(words),
        callback=lambda epoch, history: seen.append((epoch, len(history["elbo"]))),
    )
    assert trained.model is model
    assert not trained.interrupted
    assert tuple(trained.history) == COLUMNS
    assert trained.history["epoch"] == [1, 2, 3, 4]
    assert all(math.isfinite(x) for column in trained.history.values() for x in column)
    assert trained.history_kl.shape == (4, 2)
    np.testing.assert_allclose(trained.history_kl.sum(1), trained.history["kl"], rtol=1e-5)
    for part in ("", "val_"):
        row = {name: np.array(trained.history[part + name]) for name in LOGS}
        np.testing.assert_allclose(row["elbo"], row["reconstruction"] - row["kl"], rtol=1e-5)
    assert trained.history["learning_rate"][-1] < 0.01 * CONFIG.learning_rate
    assert seen == [(1, 1), (2, 2), (3, 3), (4, 4)]
    stages, done, total, words = zip(*told, strict=True)
    assert set(stages) == {"training"}
    assert list(done) == sorted(done)
    assert done[-1] == total[-1] == 4 * 4 * 8
    assert "ELBO -" in words[-1]
    assert trained.images_per_second > 0
    assert trained.seconds["training"] > trained.seconds["compilation"] > 0


def test_train_and_fit_learn_the_same(no_xla):
    """Two routes, other noise: on the same pictures they end at the same ELBO."""
    images, config = make_images(64), change(epochs=100, weight_average=0.0)
    by_train, by_fit = build(config), build(config)
    train(by_train, images, config=config)
    decay = keras.optimizers.schedules.CosineDecay(config.learning_rate, 100 * 8)
    by_fit.compile(keras.optimizers.Adam(decay))
    by_fit.fit(images, epochs=100, batch_size=8, verbose=0)
    elbo = [
        np.mean([model.elbo(images, seed=seed)["elbo"].mean() for seed in range(20)])
        for model in (by_train, by_fit)
    ]
    start = build(config).elbo(images)["elbo"].mean()
    assert elbo[0] == pytest.approx(elbo[1], abs=0.1)
    assert min(elbo) > start + 0.5


def test_the_model_gets_the_average_of_the_weights(every_epoch):
    """Far from the end of a long memory the average lags behind the weights themselves."""
    images, start, moved = make_images(), weights(build()), []
    for decay in (0.0, 0.99):
        trained = train(build(), images, config=change(weight_average=decay))
        pairs = zip(weights(trained.model), start, strict=True)
        moved.append(sum(np.abs(a - b).sum() for a, b in pairs))
    assert 0 < moved[1] < moved[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"warmup_epochs": 2},
        {"final_samples": 3, "backward_samples": 2},
        {"gradient": "stl", "final_gradient": "plain", "epochs": 8},
        {"prior": "mixture", "prior_components": 3},
        {"prior": "vamp", "prior_components": 3},
    ],
)
def test_a_training_taken_up_again_ends_with_the_same_bits(every_epoch, tmp_path, changes):
    """Stopped after every epoch in turn; the model that goes on starts with other weights."""
    images, held_out = make_images(), make_images(11, seed=3)
    config = change(**changes)
    whole = train(build(config), images, validation=held_out, config=config)
    path = tmp_path / "checkpoint.npz"

    class StopError(Exception):
        pass

    def stop(epoch, history):
        raise StopError

    for epoch in range(config.epochs):
        with pytest.raises(StopError):
            train(
                build(dataclasses.replace(config, seed=config.seed + epoch)),
                images,
                validation=held_out,
                config=config,
                checkpoint=path,
                callback=stop,
            )
    again = train(
        build(dataclasses.replace(config, seed=8)),
        images,
        validation=held_out,
        config=config,
        checkpoint=path,
    )
    for mine, wanted in zip(weights(again.model), weights(whole.model), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    assert again.history == whole.history
    np.testing.assert_array_equal(again.history_kl, whole.history_kl)
    assert again.epochs == config.epochs
    assert again.images_per_second > 0


@pytest.fixture
def seen(monkeypatch):
    """Every epoch that begins, and what takes the place of the model's own settings in it."""
    found = []

    class Watched(EpochLoop):
        def begin(self, epoch, **options):
            found.append((epoch, self._objective))
            super().begin(epoch, **options)

    monkeypatch.setattr(training, "EpochLoop", Watched)
    return found


@pytest.mark.parametrize(
    ("epochs", "first", "layers"),
    [(4, 3, {}), (4, 3, {"second_latent_dim": 2}), (1, 1, {}), (2, 1, {}), (3, 2, {}), (8, 6, {})],
)
def test_the_last_quarter_raises_the_bound_of_several_samples(
    every_epoch, seen, epochs, first, layers
):
    """From the epoch that begins nearest to it; and it leaves the model as it was told to be."""
    config = change(final_samples=5, gradient="stl", epochs=epochs, **layers)
    model = build(config)
    train(model, make_images(), config=config)
    gradient = "plain" if layers else "dreg"
    tight = {"num_samples": 5, "backward_samples": 0, "gradient": gradient}
    assert seen == [(epoch, tight if epoch >= first else {}) for epoch in range(epochs)]
    assert (model.num_samples, model.gradient) == (1, "stl")


def test_a_last_quarter_that_a_model_cannot_have_is_refused_at_once():
    model = build(change(second_latent_dim=2))
    with pytest.raises(ValueError, match="final_gradient='dreg' with two stochastic layers"):
        train(model, make_images(), config=change(final_gradient="dreg"))


def test_the_last_quarter_may_have_a_gradient_of_its_own(every_epoch, seen):
    """Three epochs as without it, and then others."""
    found = {}
    for final in ("auto", "stl", "plain"):
        config = change(gradient="stl", final_gradient=final, epochs=4)
        found[final] = train(build(config), make_images(), config=config)
    of_each = ({}, {"gradient": "stl"}, {"gradient": "plain"})
    assert seen == [(e, last if e == 3 else {}) for last in of_each for e in range(4)]
    elbo = {name: trained.history["elbo"] for name, trained in found.items()}
    assert elbo["stl"] == pytest.approx(elbo["auto"], rel=1e-5)
    assert elbo["plain"][:3] == elbo["auto"][:3]
    moved = [
        max(np.abs(a - b).max() for a, b in zip(weights(found[name].model), before, strict=True))
        for before in (weights(found["auto"].model),)
        for name in ("stl", "plain")
    ]
    assert moved[0] < 1e-5 < moved[1]


def test_a_model_that_weighs_its_kl_divergence_gets_no_bound_of_several_samples():
    with pytest.raises(ValueError, match=r"final_samples=5 with beta=2.*expected"):
        train(build(change(beta=2.0)), make_images(), config=change(final_samples=5))


KILLED = """
import sys, time
import numpy as np
from safelight.vae import training
from safelight.vae.config import TrainConfig
from safelight.vae.building import build_vae

training._CHECKPOINT_SECONDS = 0.0
config = TrainConfig(latent_dim=2, hidden_units=(8,), epochs=40, batch_size=8, seed=1)
images = np.random.default_rng(0).integers(0, 256, (60, 4, 3, 1)).astype("uint8")

def tell(epoch, history):
    print(epoch, flush=True)
    if epoch == int(sys.argv[2]):
        time.sleep(600)  # however late it is killed, there is something left to do

model = build_vae((4, 3, 1), config)
training.train(model, images, config=config, checkpoint=sys.argv[1], callback=tell)
np.savez(sys.argv[3], *[w.numpy() for w in model.trainable_variables])
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow promises it")
def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    """SIGKILL wherever it is after so many epochs; processes of their own, compiled by XLA."""
    script = tmp_path / "run.py"
    script.write_text(KILLED)

    def start(name, last):
        arguments = [tmp_path / f"{name}-checkpoint.npz", last, tmp_path / f"{name}.npz"]
        return subprocess.Popen(
            [sys.executable, script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=threads,
        )

    # As many threads as a user has, whatever the tests are told (tests/conftest.py).
    threads = {name: value for name, value in os.environ.items() if "_THREADS" not in name}
    begun = []
    for num_epochs, last in ((3, 10), (9, 30)):
        with start("killed", last) as killed:  # which also waits for it and closes its pipe
            told = [int(killed.stdout.readline()) for _ in range(num_epochs)]
            killed.send_signal(signal.SIGKILL)
        begun.append(told[0])
    assert 1 == begun[0] < 3 < begun[1]  # what it had told of was kept
    for name in ("killed", "whole"):
        with start(name, 0) as finished:
            finished.communicate()
        assert finished.returncode == 0
    with np.load(tmp_path / "killed.npz") as mine, np.load(tmp_path / "whole.npz") as wanted:
        for name in wanted.files:
            np.testing.assert_array_equal(mine[name], wanted[name])


def test_a_finished_training_is_not_run_again(every_epoch, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.npz"
    first = train(build(), make_images(), config=CONFIG, checkpoint=path)
    monkeypatch.setattr(loops.EpochLoop, "run", lambda *_: pytest.fail("trained again"))
    again = train(build(), make_images(), config=CONFIG, checkpoint=path)
    for mine, wanted in zip(weights(again.model), weights(first.model), strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_a_checkpoint_of_other_pictures_is_refused(every_epoch, tmp_path):
    path = tmp_path / "checkpoint.npz"
    train(build(), make_images(), config=change(epochs=1), checkpoint=path)
    with pytest.raises(ValueError, match="other pictures"):
        train(build(), make_images(seed=5), config=change(epochs=1), checkpoint=path)
    with pytest.raises(ValueError, match=r"epochs=1.*epochs=2"):
        train(build(), make_images(), config=change(epochs=2), checkpoint=path)


@pytest.mark.parametrize("later", [0.05, 0.15])
def test_minutes_are_kept_and_the_plan_with_them(every_epoch, tmp_path, machine, train_on, later):
    train_on(training, machine(lambda step: 0.05 if step < 50 else later, compilation=2.0))
    path = tmp_path / "checkpoint.npz"
    config = change(epochs=None, minutes=0.2)
    trained = train(build(), make_images(), config=config, checkpoint=path)
    assert trained.seconds["training"] == pytest.approx(12, rel=0.05)
    assert trained.history["learning_rate"][0] == config.learning_rate
    assert trained.history["learning_rate"][-1] < 0.01 * config.learning_rate
    again = train(build(), make_images(), config=config, checkpoint=path)
    assert again.epochs == trained.epochs
    np.testing.assert_array_equal(again.history_kl, trained.history_kl)


def test_without_epochs_and_minutes_there_is_a_default(no_xla, monkeypatch):
    monkeypatch.setattr(training, "_DEFAULT_STEPS", 30)
    trained = train(build(), make_images(), config=change(epochs=None))
    assert trained.epochs == training._DEFAULT_EPOCHS
    monkeypatch.setattr(training, "_DEFAULT_EPOCHS", 1)
    assert train(build(), make_images(), config=change(epochs=None)).epochs == 8


def test_ctrl_c_keeps_the_average_so_far(every_epoch):
    def interrupt(epoch, history):
        if epoch == 2:
            raise KeyboardInterrupt

    model = build()
    trained = train(model, make_images(), config=CONFIG, callback=interrupt)
    assert trained.interrupted
    assert trained.epochs == 2

    assert len(trained.history["val_elbo"]) == 2
    assert any((a != b).any() for a, b in zip(weights(model), weights(build()), strict=True))


def test_ctrl_c_within_an_epoch_keeps_what_there_is(every_epoch, monkeypatch):
    monkeypatch.setattr(training, "_FIRST_BLOCK", 1)
    told = []

    def report(*words):
        told.append(words)
        if len(told) == 3:
            raise KeyboardInterrupt

    model = build()
    trained = train(model, make_images(), config=CONFIG, report=report)
    assert (trained.interrupted, trained.epochs) == (True, 0)
    assert trained.history_kl.shape == (0, 2)
    assert any((a != b).any() for a, b in zip(weights(model), weights(build()), strict=True))


@pytest.mark.one_backend
def test_ctrl_c_between_two_columns_leaves_them_of_one_length(every_epoch, monkeypatch):
    """At each place where the second epoch is written down."""
    start = training._Session.__init__

    class Fragile(list):
        """Lets one be added to, and is interrupted while the next is."""

        def append(self, value):
            if self:
                raise KeyboardInterrupt
            super().append(value)

    for name in (*COLUMNS, "history_kl"):

        def begin(session, *arguments, name=name):
            start(session, *arguments)
            if name == "history_kl":
                session.history_kl = Fragile()
            else:
                session.history[name] = Fragile()

        monkeypatch.setattr(training._Session, "__init__", begin)
        trained = train(build(), make_images(), config=change(epochs=2))
        assert {len(column) for column in trained.history.values()} == {trained.epochs}
        assert len(trained.history_kl) == trained.epochs


def make_infinite(loop):
    """What a learning rate far too high does, at once."""
    loop._state["weights"][0] = loop._backend.tensor(
        np.full(loop._state["weights"][0].shape, np.nan, "float32")
    )


def test_nan_stops_and_the_last_good_weights_are_kept(every_epoch, monkeypatch, caplog):
    good, begin = [], loops.EpochLoop.begin

    def spoil(loop, epoch, **options):
        begin(loop, epoch, **options)
        if epoch == 2:
            good.extend(loop.average())
            make_infinite(loop)

    monkeypatch.setattr(loops.EpochLoop, "begin", spoil)
    model = build()
    trained = train(model, make_images(), config=CONFIG)
    assert (trained.interrupted, trained.epochs) == (True, 2)
    for mine, wanted in zip(weights(model), good, strict=True):
        np.testing.assert_array_equal(mine, wanted)
    assert "not a number in epoch 3; the weights of epoch 2 were kept" in caplog.text
    assert "smaller learning_rate" in caplog.text


def test_weights_that_make_validation_infinite_are_not_good(every_epoch, monkeypatch, caplog):
    """The weights themselves are finite, and so was the ELBO of the steps before the last."""
    good, scores = [], loops.Validator.scores

    def spoil(judge, given):
        found = scores(judge, given)
        good.append([np.array(w) for w in given])
        return dataclasses.replace(found, elbo=-math.inf) if len(good) == 4 else found

    monkeypatch.setattr(loops.Validator, "scores", spoil)
    model = build()
    trained = train(model, make_images(), validation=make_images(5, seed=3), config=CONFIG)
    assert (trained.interrupted, trained.epochs) == (True, 2)
    for mine, wanted in zip(weights(model), good[2], strict=True):  # after one look to compile
        np.testing.assert_array_equal(mine, wanted)
    assert "the weights of epoch 2 were kept" in caplog.text


def test_nan_in_the_first_epoch_is_an_error_that_says_what_to_do(no_xla, monkeypatch):
    begin = loops.EpochLoop.begin

    def spoil(loop, epoch, **options):
        begin(loop, epoch, **options)
        make_infinite(loop)

    monkeypatch.setattr(loops.EpochLoop, "begin", spoil)
    with pytest.raises(ValueError, match=r"first epoch.*smaller learning_rate \(it is 0.02\)"):
        train(build(), make_images(), config=CONFIG)


def test_a_collapse_is_told_once_with_advice(every_epoch, caplog):
    config = change(beta=200.0, epochs=12)
    train(build(config), make_images(), config=config)
    texts = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(texts) == 1
    assert texts[0].startswith("0 of 2 latent units are active")
    assert "Try warmup_epochs=6 or free_bits=0.1 or beta=1, and look" in texts[0]


def test_advice_is_on_what_the_model_is_trained_with():
    config = change(beta=7.0)
    for settings, advice in (
        ({"beta": 4.0}, "Try warmup_epochs=2 or free_bits=0.1 or beta=2, and look"),
        ({"gradient": "stl", "beta": 4.0}, "Try warmup_epochs=2 or beta=2, and look"),
        ({"num_samples": 3}, "Try warmup_epochs=2, and look"),
    ):
        assert advice in advise_on_collapse(build(change(**settings)), config, 0)
    learned = build(change(prior="mixture", prior_components=2))
    assert "Try warmup_epochs=2 or beta=0.5, and look" in advise_on_collapse(learned, config, 0)


def test_a_warm_up_that_does_not_end_is_told(every_epoch, caplog):
    """The default number of epochs, or minutes, are known to the training alone."""
    config = change(warmup_epochs=8, epochs=3)
    train(build(), make_images(), config=config)
    texts = [r.getMessage() for r in caplog.records if "warm-up" in r.getMessage()]
    assert len(texts) == 1
    assert "ended in epoch 3, and its warm-up would have taken 8: the weight" in texts[0]
    assert "was 0.33 at last" in texts[0]  # 3 / 9
    caplog.clear()
    train(build(), make_images(), config=change(warmup_epochs=2, epochs=3))
    assert not [r for r in caplog.records if "warm-up" in r.getMessage()]


def test_units_that_work_are_not_warned_of(every_epoch, caplog):
    config = change(epochs=60)
    trained = train(build(config), make_images(64), config=config)
    assert trained.history["active_units"][-1] >= 1
    assert not caplog.records


def test_static_binarisation_is_one_draw(every_epoch, monkeypatch):
    seen = []
    start = loops.EpochLoop.__init__

    def spy(self, model, images, *arguments, **options):
        seen.append(images)
        start(self, model, images, *arguments, **options)

    monkeypatch.setattr(loops.EpochLoop, "__init__", spy)
    config = change(binarization="static", epochs=1)
    model = build(config)
    for _ in range(2):
        train(model, make_images(), validation=make_images(5), config=config)
    assert set(np.unique(seen[0])) == {0, 255}
    np.testing.assert_array_equal(seen[0], seen[1])


def test_labels_go_with_their_images(every_epoch):
    config = change(conditional=True)
    images, labels = make_images(), np.arange(30) % 3
    model = build(config, num_classes=3)
    trained = train(model, (images, labels), validation=(images[:5], labels[:5]), config=config)
    assert math.isfinite(trained.history["val_elbo"][-1])
    with pytest.raises(ValueError, match="labels are missing"):
        train(model, images, config=config)


def test_images_of_another_kind_are_refused():
    for images, reason in (
        (make_images()[..., 0], "shape"),
        (make_images() / 255.0, "expected uint8"),
        (make_images(0), "no images"),
    ):
        with pytest.raises(ValueError, match=reason):
            train(build(), images, config=CONFIG)


def test_fewer_images_than_a_batch_are_one_batch(every_epoch):
    trained = train(build(), make_images(3), config=change(batch_size=128))
    assert trained.epochs == 4


def test_the_words_of_progress():
    means = {"elbo": -98.2, "reconstruction": -73.1, "kl": 25.1}
    assert describe(means, 17, 20, 31_400.0) == (
        "ELBO -98.2 = reconstruction -73.1 - KL 25.1 nats, 17/20 units active, 31k images/s"
    )
    assert describe(means, None, 20, 0.0).endswith("KL 25.1 nats")
    assert describe(means, 0, 20, 2_345.6).endswith("0/20 units active, 2346 images/s")
