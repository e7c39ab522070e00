"""What a training and its judges see: draws of pixels for each part, labels with their images."""

import itertools
import types

import numpy as np
import pytest

from safelight.vae import experiment, training
from safelight.vae.building import build_vae
from safelight.vae.config import TrainConfig
from safelight.vae.training_data import TrainingData

SHAPE = (4, 3, 1)
STATIC = TrainConfig(
    latent_dim=2, hidden_units=(4,), likelihood="bernoulli", binarization="static", seed=3
)
CONDITIONAL = TrainConfig(
    latent_dim=2,
    hidden_units=(4,),
    likelihood="gaussian",
    conditional=True,
    epochs=1,
    batch_size=8,
)


def labelled(num, *, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num, *SHAPE)).astype("uint8"), rng.integers(0, 3, num)


def test_no_two_parts_share_the_draws_of_static_binarisation():
    """The same grey images as each of the parts."""
    images, model = np.full((40, *SHAPE), 128, np.uint8), build_vae(SHAPE, STATIC)
    data = TrainingData.of(model, images, images, STATIC)
    judged = experiment.judged_part(images, STATIC)
    for one, other in itertools.combinations((data.images, data.held_out, judged), 2):
        assert set(np.unique(one)) == set(np.unique(other)) == {0, 255}
        # Of two draws with the probability of a half, half agree.
        assert np.mean(one == other) == pytest.approx(0.5, abs=0.1)


def test_others_see_the_draws_of_static_binarisation_that_the_training_sees():
    """Readers of labels those that the model learned from, a film those that are held out."""
    images, model = np.full((40, *SHAPE), 128, np.uint8), build_vae(SHAPE, STATIC)
    data = TrainingData.of(model, images, images, STATIC)
    np.testing.assert_array_equal(experiment.learned_part(images, STATIC), data.images)
    parts = types.SimpleNamespace(images={"validation": images}, labels=None)
    np.testing.assert_array_equal(experiment._look_on(parts, STATIC).images, data.held_out)


@pytest.mark.parametrize("held_out", [True, False])
def test_every_image_of_a_conditional_training_keeps_its_label(no_xla, monkeypatch, held_out):
    """Images to learn from, and to watch: the first of these, where no others are held out."""
    monkeypatch.setattr(training, "_NUM_WATCHED", 7)
    told = {}

    def watched(name, kind):
        def make(model, images, labels=None, **options):
            told[name] = images, labels
            return kind(model, images, labels, **options)

        return make

    for name in ("EpochLoop", "Validator"):
        monkeypatch.setattr(training, name, watched(name, getattr(training, name)))
    learned, others = labelled(20, seed=0), labelled(11, seed=1)
    model = build_vae(SHAPE, CONDITIONAL, num_classes=3)
    training.train(model, learned, validation=others if held_out else None, config=CONDITIONAL)
    looked_at = others if held_out else [each[:7] for each in learned]
    for name, expected in (("EpochLoop", learned), ("Validator", looked_at)):
        for found, array in zip(told[name], expected, strict=True):
            np.testing.assert_array_equal(found, array)
