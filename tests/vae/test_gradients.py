"""How the loss is differentiated: the same on average, and with less noise."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from safelight.generative.backends import find_backend
from safelight.vae import objectives
from safelight.vae.building import build_vae
from safelight.vae.config import TrainConfig
from safelight.vae.gradient_noise import draw_gradients, measure_noise
from safelight.vae.models import VAE
from safelight.vae.priors import Mixture

SHAPE = (3, 2, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)
CONFIG = TrainConfig(
    latent_dim=2, hidden_units=(5,), likelihood="gaussian", binarization="none", precision="float32"
)


def build(**settings) -> VAE:
    """With the same weights on every backend."""
    model = build_vae(SHAPE, dataclasses.replace(CONFIG, **settings))
    rng = np.random.default_rng(5)
    for weight in model.trainable_weights:
        scale = 1 / np.sqrt(weight.shape[0]) if "kernel" in weight.path else 0.5
        weight.assign(scale * rng.normal(size=weight.shape))
    return model


def gradients(model: VAE, num_draws: int, *, seed: int = 0) -> list[np.ndarray]:
    """`(num_draws, ...)` for each weight."""
    drawn = list(draw_gradients(model, IMAGES, num_draws, seed=seed))
    return [np.stack(column) for column in zip(*drawn, strict=True)]


CASES = {
    "stl": ({}, "stl", 1),
    "stl, KL by a third": ({"beta": 2 / 3}, "stl", 0.5),
    "stl, mixture": ({"prior": "mixture", "prior_components": 3}, "stl", 1),
    "stl, vamp": ({"prior": "vamp", "prior_components": 3}, "stl", 1),
    "stl, two layers": ({"second_latent_dim": 2}, "stl", 1),
    "stl, two layers upwards": ({"second_latent_dim": 2, "inference": "bottom_up"}, "stl", 1),
    "stl, flow": ({"prior": "flow", "flow_couplings": 2, "flow_units": 4}, "stl", 1),
    "dreg": ({"num_samples": 4}, "dreg", 1),
    "dreg, during warm-up": ({"num_samples": 4}, "dreg", 0.4),
    "dreg, mixture": ({"num_samples": 4, "prior": "mixture", "prior_components": 3}, "dreg", 1),
    "dreg, vamp": ({"num_samples": 4, "prior": "vamp", "prior_components": 3}, "dreg", 1),
    "dreg, flow": (
        {"num_samples": 4, "prior": "flow", "flow_couplings": 2, "flow_units": 4},
        "dreg",
        1,
    ),
    "few": ({"num_samples": 4, "backward_samples": 1}, "plain", 1),
    "few, dreg": ({"num_samples": 4, "backward_samples": 2}, "dreg", 1),
    "few, dreg, during warm-up": ({"num_samples": 4, "backward_samples": 1}, "dreg", 0.4),
    "few, two layers": (
        {"num_samples": 4, "backward_samples": 1, "second_latent_dim": 2},
        "plain",
        1,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_the_plain_one_on_average(case):
    """Of every weight, within what 400 draws of each leave open."""
    settings, gradient, kl_weight = CASES[case]
    num_draws, means, errors = 400, [], []
    for number, kind in enumerate(("plain", gradient)):
        all_of_them = {"backward_samples": 0} if not number else {}
        model = build(**{**settings, **all_of_them}, gradient=kind)
        model.kl_weight.assign(kl_weight)
        columns = gradients(model, num_draws, seed=number)
        flat = np.concatenate([column.reshape(num_draws, -1) for column in columns], axis=1)
        means.append(flat.mean(0))
        errors.append(flat.std(0) / np.sqrt(num_draws))
    gap, error = means[1] - means[0], np.hypot(*errors)
    moving = error > 1e-9
    assert moving.sum() > 30
    scores = gap[moving] / error[moving]
    assert np.abs(scores).max() < 5
    assert np.mean(scores**2) < 2  # 1 is expected; the weights' scores hang together
    np.testing.assert_allclose(gap[~moving], 0, atol=1e-6)


def cases_of(log_weights: np.ndarray, num: int) -> list[tuple[float, float]]:
    """Where u of `objectives.resample` changes the choice: the middle of each piece, its length."""
    weights = np.exp(log_weights - log_weights.max(0))
    steps = np.mod(num * np.cumsum(weights / weights.sum(0), axis=0), 1).ravel()
    edges = np.unique(np.concatenate([[0.0], steps, [1.0]]))
    pieces = itertools.pairwise(edges)
    return [((a + b) / 2, b - a) for a, b in pieces if b - a > 1e-6]


@pytest.mark.parametrize("num", [1, 2, 3, 7])
def test_every_draw_is_chosen_as_often_as_its_weight_says(num):
    log_weights = 2 * np.random.default_rng(num).normal(size=(5, 3))
    expected = num * np.exp(log_weights) / np.exp(log_weights).sum(0)
    counts = np.zeros_like(expected)
    for u, length in cases_of(log_weights, num):
        uniform = ops.full((3,), u, dtype="float32")
        chosen = objectives.resample(ops.convert_to_tensor(log_weights, "float32"), uniform, num)
        found = ops.convert_to_numpy(ops.sum(ops.one_hot(chosen, 5, axis=0), axis=1))
        assert np.all(np.abs(found - expected) < 1)
        counts += length * found
    np.testing.assert_allclose(counts, expected, atol=1e-4)


CHOICES = {
    "plain": ("plain", 5, 3, {}),
    "dreg": ("dreg", 5, 3, {}),
    "one of two": ("dreg", 2, 1, {}),
    "plain, one": ("plain", 5, 1, {"likelihood": "learned_gaussian"}),
    "mixture": ("dreg", 5, 2, {"prior": "mixture", "prior_components": 3}),
    "vamp": ("dreg", 5, 2, {"prior": "vamp", "prior_components": 3}),
    "flow": ("dreg", 3, 1, {"prior": "flow", "flow_couplings": 2, "flow_units": 4}),
    "two layers": ("plain", 4, 2, {"second_latent_dim": 2}),
    "two layers upwards": ("plain", 4, 1, {"second_latent_dim": 2, "inference": "bottom_up"}),
}


@pytest.mark.parametrize("kl_weight", [1.0, pytest.param(0.4, marks=pytest.mark.one_backend)])
@pytest.mark.parametrize("case", CHOICES)
def test_over_all_choices_the_gradient_of_few_is_that_of_all(case, kl_weight):
    """Not on average over draws of z: for each of them, summed over what can be chosen."""
    kind, k, num, settings = CHOICES[case]
    model = build(num_samples=k, gradient=kind, **settings)
    model.kl_weight.assign(kl_weight)
    noise = np.random.default_rng(num).normal(size=(k, 3, model.latent_dim)).astype("float32")
    x, backend = model.prepare(IMAGES[:3]), find_backend()
    variables = list(model.trainable_variables)
    weights = [backend.tensor(ops.convert_to_numpy(v)) for v in variables]

    def slopes(**uniform) -> tuple[np.ndarray, float, np.ndarray]:
        def loss(weights):
            with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
                terms = model.terms(x, num_samples=k, noise=noise, **uniform)
                loss, _ = model.objective(terms)
                ratio = terms["log_weights"] - terms["log_likelihood"]
                return loss, (loss, terms["log_likelihood"] + kl_weight * ratio)

        (value, log_weights), found = backend.gradient(loss, weights)
        flat = np.concatenate([ops.convert_to_numpy(each).ravel() for each in found])
        return flat, float(ops.convert_to_numpy(value)), ops.convert_to_numpy(log_weights)

    expected, value, log_weights = slopes()
    model.backward_samples = num
    total = np.zeros_like(expected)
    for u, length in cases_of(log_weights.astype("float64"), num):
        found, same, _ = slopes(uniform=np.full(3, u, "float32"))
        assert same == pytest.approx(value, rel=1e-6)
        total += length * found
    np.testing.assert_allclose(total, expected, atol=1e-4 * np.abs(expected).max())
    model.backward_samples = k  # as many as there are: nothing is drawn
    np.testing.assert_array_equal(slopes()[0], expected)


def test_the_choice_has_nothing_to_do_with_the_noise_of_the_same_seed():
    """Else the draws whose noise is large would be chosen more or less often."""
    sampling = build().sampling
    noise = np.abs(ops.convert_to_numpy(sampling.draw((4000,), seed=7)))
    uniform = ops.convert_to_numpy(sampling.draw_uniform((4000,), 7))
    assert uniform.min() > 0
    assert uniform.max() <= 1
    ranks = [np.argsort(np.argsort(values)) for values in (noise, uniform)]
    assert abs(np.corrcoef(*ranks)[0, 1]) < 0.08  # five standard errors; shared bits give .7
    again = ops.convert_to_numpy(sampling.draw_uniform((4000,), 7))
    np.testing.assert_array_equal(uniform, again)


def test_terms_of_few_are_trained_for_their_bound_whatever_the_model_is_set_to():
    model = build(backward_samples=2, num_samples=4)
    terms = model.terms(model.prepare(IMAGES), num_samples=4, seed=3)
    wanted, _ = model.objective(terms)
    model.num_samples = 1
    assert float(ops.convert_to_numpy(model.objective(terms)[0])) == pytest.approx(
        float(ops.convert_to_numpy(wanted)), rel=1e-6
    )
    with pytest.raises(ValueError, match="backward_samples=-1: expected 0 or more"):
        VAE(model.encoder, model.decoder, likelihood="gaussian", backward_samples=-1)


def test_leaving_out_what_is_zero_is_not_leaving_out_what_is_not():
    """The check above sees a bias: sticking the landing with the gradient of log q itself gone."""
    model = build(gradient="stl")
    known = gradients(model, 1500)
    # Without log q's gradient through z as well, the encoder's weights get another mean.
    propose = model.prior.propose

    def blind(mean, log_variance, noise, *, fixed=False):
        z, log_prior, log_posterior = propose(mean, log_variance, noise, fixed=fixed)
        return z, log_prior, ops.stop_gradient(log_posterior)

    model.prior.propose = blind
    other = gradients(model, 1500, seed=1)
    scores = [
        (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0) + b.var(0)) / 1500 + 1e-18)
        for a, b in zip(known, other, strict=True)
    ]
    assert max(np.abs(score).max() for score in scores) > 7  # the test above allows 5


def test_at_the_true_posterior_sticking_the_landing_has_no_noise():
    """log w is then constant in z, so that every draw gives the encoder the gradient 0."""
    kernel, scale = np.array([0.3, -0.2, 0.5, 0.1]), 0.1
    shape, z = (2, 2, 1), keras.Input((1,))
    dense = keras.layers.Dense(4, use_bias=True)
    mean = dense(z)
    # The library's location is what a sigmoid makes the mean of.
    location = keras.layers.Reshape(shape)(ops.log(mean) - ops.log1p(-mean))
    decoder = keras.Model(z, location)
    dense.set_weights([0.1 * kernel[None], np.full(4, 0.5)])
    variance = 1 / (1 + (0.01 * kernel @ kernel) / scale**2)
    images = keras.Input(shape)
    flat = keras.layers.Flatten()(images)
    heads = [keras.layers.Dense(1), keras.layers.Dense(1)]
    encoder = keras.Model(images, [head(flat) for head in heads])
    exact = 0.1 * kernel * variance / scale**2
    heads[0].set_weights([exact[:, None], np.array([-0.5 * exact.sum()])])
    heads[1].set_weights([np.zeros((4, 1)), np.array([np.log(variance)])])
    x = np.random.default_rng(1).integers(100, 160, (4, *shape), np.uint8)
    spreads = {}
    for kind in ("plain", "stl"):
        model = VAE(encoder, decoder, likelihood="gaussian", gradient=kind)
        spreads[kind] = measure_noise(model, x, num_draws=40)["encoder"].variance
    assert spreads["plain"] > 0.01
    assert spreads["stl"] < 1e-5 * spreads["plain"]


def test_dreg_tells_the_encoder_more_above_the_noise():
    """Signal to noise, which for the plain gradient falls with k (Tucker et al. 2019)."""
    ratios = {}
    for kind in ("plain", "dreg"):
        for k in (2, 64):
            model = build(num_samples=k, gradient=kind)
            noise = measure_noise(model, IMAGES, num_draws=400)
            ratios[kind, k] = noise["encoder"].signal_to_noise
    assert ratios["dreg", 2] > ratios["plain", 2]
    assert ratios["dreg", 64] > 1.3 * ratios["plain", 64]
    assert ratios["plain", 64] < ratios["plain", 2]


@pytest.mark.parametrize("kind", ["stl", "dreg"])
def test_the_loss_itself_is_the_same(kind):
    for settings in [{}, {"num_samples": 5}] if kind == "dreg" else [{}]:
        noise = np.random.default_rng(3).normal(
            size=(settings.get("num_samples", 1), len(IMAGES), 2)
        )
        noise = noise[0] if not settings else noise
        losses = []
        for gradient in ("plain", kind):
            model = build(**settings, gradient=gradient, prior="mixture", prior_components=3)
            x = model.prepare(IMAGES)
            terms = model.terms(x, num_samples=model.num_samples, noise=noise.astype("float32"))
            losses.append(float(ops.convert_to_numpy(model.objective(terms)[0])))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_scaled_draw_has_the_draw_s_values(gradient):
    rng = np.random.default_rng(2)
    z, log_weights = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4))
    weights = np.exp(log_weights) / np.exp(log_weights).sum(0)
    for share in (1.0, 0.25):
        scaled = objectives.doubly_reparameterize(
            ops.convert_to_tensor(z.astype("float32")),
            ops.convert_to_tensor(log_weights.astype("float32")),
            share,
        )
        np.testing.assert_allclose(ops.convert_to_numpy(scaled), z, rtol=1e-6)
        found = gradient(
            lambda z, share=share: ops.sum(
                objectives.doubly_reparameterize(
                    z, ops.convert_to_tensor(log_weights.astype("float32")), share
                )
            ),
            z,
        )
        expected = np.broadcast_to((1 - share + share * weights)[..., None], z.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_two_layers_have_no_dreg_and_free_bits_no_draws():
    model = build(second_latent_dim=2)
    with pytest.raises(ValueError, match="two stochastic layers"):
        VAE(model.encoder, model.decoder, prior=model.prior, num_samples=3, gradient="dreg")
    with pytest.raises(ValueError, match="expected one of plain, stl, dreg"):
        build(gradient="best")
    model = build()
    with pytest.raises(ValueError, match="no closed form"):
        VAE(model.encoder, model.decoder, prior=Mixture(2), free_bits=0.1)


def test_the_noise_is_the_variance_of_the_draws():
    model = build(prior="mixture", prior_components=2)
    noise = measure_noise(model, IMAGES, num_draws=50, seed=3)
    columns = gradients(model, 50, seed=3)
    assert set(noise) == {"encoder", "decoder", "prior"}
    for part, found in noise.items():
        owned = {id(v) for v in getattr(model, part).trainable_variables}
        pairs = zip(columns, model.trainable_variables, strict=True)
        own = [column for column, v in pairs if id(v) in owned]
        variance = sum(column.var(0, ddof=1).sum() for column in own)
        assert found.variance == pytest.approx(variance, rel=1e-6)
        squared = sum(np.square(column.mean(0)).sum() for column in own)
        assert found.squared_norm == pytest.approx(squared - variance / 50, rel=1e-6)
    with pytest.raises(ValueError, match="2 or more"):
        measure_noise(model, IMAGES, num_draws=1)
