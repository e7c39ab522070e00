import numpy as np
import pytest
from keras import ops

from safelight.gan import objectives
from safelight.generative.backends import find_backend

REAL, FAKE = np.array([2.0, -0.5, 0.3], "float32"), np.array([-1.5, 0.2, 3.0], "float32")


def test_losses_are_what_the_papers_say(numpy):
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    real, fake = REAL.astype("float64"), FAKE.astype("float64")
    wanted = {
        "non_saturating": (
            -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean(),
            -np.log(sigmoid(fake)).mean(),
        ),
        "hinge": (
            np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean(),
            -fake.mean(),
        ),
        "wasserstein": (fake.mean() - real.mean(), -fake.mean()),
    }
    for loss, (of_discriminator, of_generator) in wanted.items():
        found = numpy(
            objectives.discriminator_loss(*map(ops.convert_to_tensor, (REAL, FAKE)), loss)
        )
        np.testing.assert_allclose(found, of_discriminator, rtol=1e-5)
        np.testing.assert_allclose(
            numpy(objectives.generator_loss(ops.convert_to_tensor(FAKE), loss)),
            of_generator,
            rtol=1e-5,
        )


def test_the_best_discriminator_turns_the_loss_into_the_jensen_shannon_divergence(numpy):
    """Goodfellow et al. 2014, theorem 1: at D = p / (p + q) it is 2 log 2 - 2 JSD(p, q)."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
    num = 1000
    rows = [np.repeat(np.arange(3), np.rint(num * each).astype(int)) for each in (p, q)]
    logits = np.log(p / q).astype("float32")
    found = numpy(
        objectives.discriminator_loss(*(ops.convert_to_tensor(logits[each]) for each in rows))
    )
    middle = (p + q) / 2
    divergence = 0.5 * (p * np.log(p / middle)).sum() + 0.5 * (q * np.log(q / middle)).sum()
    assert found == pytest.approx(2 * np.log(2) - 2 * divergence, rel=1e-5)


@pytest.mark.parametrize(("kind", "wanted"), [("r1", 0.5 * 25), ("gradient", 16)])
def test_penalties_of_a_linear_discriminator_are_known(numpy, kind, wanted):
    """Of slope (6, 8), whose length is 10; by pictures from -1 to 1 it is 5."""
    slope = ops.convert_to_tensor(np.array([6.0, 8.0], "float32").reshape(1, 1, 2, 1))
    points = np.random.default_rng(0).random((7, 1, 2, 1)).astype("float32")
    found = objectives.gradient_penalty(
        lambda x: ops.sum(x * slope, axis=(1, 2, 3)),
        ops.convert_to_tensor(points),
        find_backend().input_gradient,
        kind,
    )
    assert numpy(found) == pytest.approx(wanted, rel=1e-5)


def test_a_penalty_can_be_differentiated_by_the_discriminator_s_weights(numpy):
    """R1 of D(x) = w |x|^2 is w^2 |x|^2 / 2 by 2 x - 1, so its slope is w |x|^2."""
    backend = find_backend()
    points = np.random.default_rng(1).random((5, 2, 2, 1)).astype("float32")

    def loss(weights):
        value = objectives.gradient_penalty(
            lambda x: weights[0] * ops.sum(x * x, axis=(1, 2, 3)),
            ops.convert_to_tensor(points),
            backend.input_gradient,
            "r1",
        )
        return value, {}

    _, (slope,) = backend.gradient(loss, [backend.tensor(np.float32(3.0))])
    wanted = 3.0 * np.square(points).sum((1, 2, 3)).mean()
    assert numpy(slope) == pytest.approx(wanted, rel=1e-5)


def test_points_between_lie_on_the_line(numpy):
    real, fake = np.ones((2, 1, 1, 1), "float32"), np.zeros((2, 1, 1, 1), "float32")
    ends = [ops.convert_to_tensor(each) for each in (real, fake)]
    shares = ops.convert_to_tensor(np.array([0.25, 1.0], "float32"))
    between = numpy(objectives.interpolate(*ends, shares))
    np.testing.assert_allclose(between.ravel(), [0.25, 1.0])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="expected one of non_saturating"):
        objectives.discriminator_loss(REAL, FAKE, "least_squares")
    with pytest.raises(ValueError, match="expected one of non_saturating"):
        objectives.generator_loss(FAKE, "least_squares")
    with pytest.raises(ValueError, match="expected one of gradient, r1"):
        objectives.gradient_penalty(ops.sum, REAL, find_backend().input_gradient, "r2")
