import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from safelight import vae
from safelight.vae.building import build_prior, build_vae
from safelight.vae.config import TrainConfig
from safelight.vae.evaluation import estimate_log_likelihood
from safelight.vae.fitted_flows import _Learner, _mean_of_outputs
from safelight.vae.flows import Flow, _halves
from safelight.vae.ladders import TwoLayers
from safelight.vae.models import VAE
from safelight.vae.networks import build_encoder
from safelight.vae.priors import Mixture, Prior, StandardNormal, VampPrior

SHAPE = (4, 3, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (9, *SHAPE), np.uint8)
WAYS = {
    "mixture": {"prior": "mixture", "prior_components": 5},
    "vamp": {"prior": "vamp", "prior_components": 4},
    "flow": {"prior": "flow"},
    "top down": {"second_latent_dim": 2},
    "bottom up": {"second_latent_dim": 2, "inference": "bottom_up"},
    "vamp on top": {"prior": "vamp", "prior_components": 4, "second_latent_dim": 2},
}


def numpy(values) -> np.ndarray:
    return ops.convert_to_numpy(values)


def shake(layer, scale: float = 0.5) -> None:
    """Gives every weight a place of its own, far from where priors begin."""
    rng = np.random.default_rng(7)
    for weight in layer.trainable_weights:
        fan_in = weight.shape[0] if len(weight.shape) == 2 and "kernel" in weight.path else 1
        noise = rng.normal(size=weight.shape) * scale / np.sqrt(fan_in)
        weight.assign(numpy(weight) + noise)


def model_with(*, scale: float = 0.5, **settings) -> VAE:
    config = TrainConfig(latent_dim=3, hidden_units=(8,), precision="float32", **settings)
    model = build_vae(SHAPE, config, images=IMAGES)
    shake(model, scale)
    return model


def prior_of(kind: str, latent_dim: int) -> Prior:
    """A prior whose latents have that many units in all."""
    encoder = build_encoder(SHAPE, latent_dim, hidden_units=(8,), dtype="float32")
    shake(encoder)
    prior, visible = {
        "mixture": lambda: (Mixture(4), latent_dim),
        "vamp": lambda: (VampPrior(4), latent_dim),
        "flow": lambda: (Flow(5, 8), latent_dim),
        "two": lambda: (TwoLayers(1, hidden_units=(6,)), latent_dim - 1),
        "two on a mixture": lambda: (
            TwoLayers(1, hidden_units=(6,), top=Mixture(3)),
            latent_dim - 1,
        ),
    }[kind]()  # fmt: skip
    prior.connect(encoder, visible)
    # Couplings add up: six strong ones would bend the plane beyond what a grid can see.
    shake(prior, 0.3 if kind == "flow" else 0.7)
    return prior


def plane(reach: float = 16, num: int = 641) -> tuple[np.ndarray, float]:
    """Points of a square, and the area that each stands for."""
    places = np.linspace(-reach, reach, num)
    points = np.stack(np.meshgrid(places, places, indexing="ij"), -1).reshape(-1, 2)
    return points.astype("float32"), (places[1] - places[0]) ** 2


KINDS = ["mixture", "vamp", "flow", "two", "two on a mixture"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_sums_to_one_and_draws_follow_it(kind):
    prior = prior_of(kind, 2)
    points, area = plane()
    shares = (
        np.exp(numpy(prior.log_density(ops.convert_to_tensor(points))).astype("float64")) * area
    )
    assert shares.sum() == pytest.approx(1, abs=5e-3)
    draws = numpy(prior.sample((20_000, 2), 3))
    means = shares @ points
    spread = np.sqrt(shares @ (points - means) ** 2)
    assert np.all(np.abs(draws.mean(0) - means) < 5 * spread / np.sqrt(20_000))
    # Not only in the mean: on either side of lines across the plane, too.
    for line in np.array([[1, 0], [0, 1], [1, 1], [1, -1]]):
        share = shares[(points - means) @ line > 0].sum()
        seen = np.mean((draws - means) @ line > 0)
        # Draws leave .018 open, and so does the row of points that lies on the line.
        assert seen == pytest.approx(share, abs=0.035)


@pytest.mark.parametrize("kind", KINDS)
def test_any_axes_before_the_latents_and_temperature_zero(kind):
    prior = prior_of(kind, 3)
    z = RNG.normal(size=(2, 5, 3)).astype("float32")
    found = numpy(prior.log_density(ops.convert_to_tensor(z)))
    rows = numpy(prior.log_density(ops.convert_to_tensor(z.reshape(10, 3))))
    np.testing.assert_allclose(found.reshape(-1), rows, rtol=1e-5)
    draws = numpy(prior.sample((4, 6, 3), 0))
    assert draws.shape == (4, 6, 3)
    np.testing.assert_array_equal(draws, numpy(prior.sample((4, 6, 3), 0)))
    cold = numpy(prior.sample((200, 3), 0, temperature=0))
    num_places = {"mixture": 4, "vamp": 4, "two on a mixture": 3}.get(kind, 1)
    assert len(np.unique(cold.round(4), axis=0)) == num_places


def before_the_map(prior: Prior, z) -> np.ndarray:
    """What a flow has bent into its draws; draws of other priors as they are."""
    for coupling in getattr(prior, "couplings", ()):
        still, moved, shift, log_scale = _halves(coupling, z)
        z = ops.concatenate([still, moved * ops.exp(log_scale) + shift], axis=-1)
        z = ops.flip(z, axis=-1)
    return numpy(z)


@pytest.mark.parametrize("kind", ["normal", "mixture", "vamp", "flow"])
def test_the_temperature_is_a_factor_of_the_distance_from_the_middle(kind):
    """Of the component's, where there are several; of a flow's before its map."""
    prior = StandardNormal() if kind == "normal" else prior_of(kind, 3)
    cold, mild, plain = (
        before_the_map(prior, prior.sample((20, 3), 4, temperature=temperature))
        for temperature in (0, 0.3, 1)
    )
    assert np.abs(plain - cold).max() > 0.1
    np.testing.assert_allclose(mild - cold, 0.3 * (plain - cold), atol=1e-4)


@pytest.mark.parametrize("kind", ["two", "two on a mixture"])
def test_the_temperature_of_two_layers_is_that_of_both(kind):
    """Of the first it is a factor of the distance from the mean that the second gives."""
    prior, noise, second = prior_of(kind, 3), {}, {}
    for temperature in (0, 0.3, 1):
        z = prior.sample((20, 3), 4, temperature=temperature)
        mean, log_variance = (numpy(part) for part in prior.down(z[:, 2:]))
        noise[temperature] = (numpy(z)[:, :2] - mean) / np.exp(log_variance / 2)
        second[temperature] = numpy(z)[:, 2:]
    assert np.abs(noise[1]).max() > 1
    np.testing.assert_allclose(noise[0], 0, atol=1e-4)
    np.testing.assert_allclose(noise[0.3], 0.3 * noise[1], atol=1e-4)
    mild, plain = (second[temperature] - second[0] for temperature in (0.3, 1))
    assert np.abs(plain).max() > 0.1
    np.testing.assert_allclose(mild, 0.3 * plain, atol=1e-4)


def test_a_mixture_is_the_sum_of_its_gaussians():
    prior = prior_of("mixture", 3)
    z = RNG.normal(size=(7, 3))
    means, log_variances, log_shares = (
        numpy(each).astype("float64") for each in prior.components()
    )
    assert np.exp(log_shares).sum() == pytest.approx(1)
    parts = [
        log_share + stats.multivariate_normal(mean, np.diag(np.exp(log_variance))).logpdf(z)
        for mean, log_variance, log_share in zip(means, log_variances, log_shares, strict=True)
    ]
    found = numpy(prior.log_density(ops.convert_to_tensor(z.astype("float32"))))
    np.testing.assert_allclose(found, special.logsumexp(parts, axis=0), rtol=1e-4)


def test_a_vamp_prior_is_the_mean_posterior_of_its_pseudo_inputs():
    model = model_with(**WAYS["vamp"])
    pictures = numpy(model.prior.pseudo_inputs)
    assert 0 < pictures.min() < pictures.max() < 1
    mean, log_variance = (numpy(out).astype("float64") for out in model.encoder(pictures))
    z = RNG.normal(size=(6, 3))
    parts = stats.norm(mean, np.exp(log_variance / 2)).logpdf(z[:, None]).sum(-1)
    expected = special.logsumexp(parts, axis=1) - np.log(4)
    found = numpy(model.prior.log_density(ops.convert_to_tensor(z.astype("float32"))))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_vamp_prior_starts_from_training_pictures():
    prior = build_vae(
        SHAPE, TrainConfig(latent_dim=2, prior="vamp", prior_components=9), images=IMAGES
    ).prior
    grey = np.clip(IMAGES / 255, 0.02, 0.98)
    found = numpy(prior.pseudo_inputs)
    nearest = np.abs(found[:, None] - grey[None]).max((2, 3, 4)).argmin(1)
    assert sorted(nearest) == list(range(9))
    np.testing.assert_allclose(found, grey[nearest], atol=1e-5)


def test_a_flow_is_as_large_as_the_settings_say():
    config = TrainConfig(latent_dim=3, prior="flow", flow_couplings=4, flow_units=7)
    flow = build_prior(config)
    flow.connect(None, 3)
    assert [layer.units for layer in flow.couplings[3].layers[1:3]] == [7, 7]
    assert len(flow.couplings) == 4


def test_a_new_flow_is_the_standard_normal():
    prior = Flow(4, 8)
    prior.connect(build_encoder(SHAPE, 3, hidden_units=(8,)), 3)
    z = RNG.normal(size=(5, 3)).astype("float32")
    found = numpy(prior.log_density(ops.convert_to_tensor(z)))
    np.testing.assert_allclose(found, stats.norm.logpdf(z).sum(1), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_in_three_dimensions_have_the_density_they_are_said_to_have(kind):
    """E_p [g(z) / p(z)] = 1 for any density g: here a narrow Gaussian amid the draws."""
    prior = prior_of(kind, 3)
    z = prior.sample((50_000, 3), 5)
    log_p, z = numpy(prior.log_density(z)).astype("float64"), numpy(z)
    g = stats.multivariate_normal(np.median(z, axis=0), 0.1 * np.cov(z.T))
    weights = np.exp(g.logpdf(z) - log_p)
    error = weights.std() / np.sqrt(len(z))
    assert weights.mean() == pytest.approx(1, abs=5 * error)
    assert error < 0.1


@pytest.mark.parametrize("way", WAYS)
def test_the_proposal_s_weights_average_to_one(way):
    """E_q [p(z) / q(z|x)] = 1, whatever the prior and however many layers infer."""
    model = model_with(**WAYS[way], scale=0.2)
    encoded = [ops.convert_to_tensor(part[:1]) for part in model.encoded(IMAGES)]
    noise = RNG.normal(size=(50_000, 1, model.latent_dim)).astype("float32")
    # Weights of a proposal wider than the prior have a finite variance.
    encoded[1] = ops.zeros_like(encoded[1]) + 2.0
    if way == "bottom up":
        shake_up(model.prior)
    z, log_prior, log_posterior = model.prior.propose(*encoded, ops.convert_to_tensor(noise))
    assert z.shape == noise.shape
    weights = np.exp(numpy(log_prior - log_posterior).astype("float64"))[:, 0]
    error = weights.std() / np.sqrt(len(weights))
    assert weights.mean() == pytest.approx(1, abs=5 * error)
    assert error < 0.2
    np.testing.assert_allclose(
        numpy(model.prior.log_density(z)), numpy(log_prior), rtol=1e-3, atol=1e-3
    )


def shake_up(prior: TwoLayers) -> None:
    """Makes q(z2|z1) wide, so that importance weights have a variance."""
    prior.up.get_layer("log_variance").bias.assign(np.full(2, 1.5))
    prior.up.get_layer("log_variance").kernel.assign(np.zeros((100, 2)))


@pytest.mark.parametrize("way", WAYS)
def test_a_model_comes_back_from_its_file_and_trains(way, tmp_path):
    model = model_with(**WAYS[way])
    num_weights = len(model.trainable_variables)
    assert len({variable.path + str(id(variable)) for variable in model.variables}) == len(
        model.variables
    )
    expected = model.elbo(IMAGES, seed=1)["elbo"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.elbo(IMAGES, seed=1)["elbo"], expected, rtol=1e-5)
    assert len(loaded.trainable_variables) == num_weights
    np.testing.assert_allclose(loaded.sample(3, seed=2), model.sample(3, seed=2), atol=1e-5)
    before = [numpy(v) for v in model.prior.trainable_variables]
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    model.fit(IMAGES, epochs=1, batch_size=9, verbose=0)
    after = [numpy(v) for v in model.prior.trainable_variables]
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_a_settled_prior_has_the_same_density_and_no_foreign_weights(way):
    prior = model_with(**WAYS[way]).prior
    z = ops.convert_to_tensor(RNG.normal(size=(8, prior.num_latents(3))).astype("float32"))
    settled = prior.settled()
    np.testing.assert_allclose(
        numpy(settled.log_density(z)), numpy(prior.log_density(z)), rtol=1e-4, atol=1e-4
    )
    assert not isinstance(settled, VampPrior)
    assert not isinstance(getattr(settled, "top", None), VampPrior)


@pytest.mark.parametrize("way", WAYS)
def test_estimates_of_the_likelihood_follow_the_prior_s_weights(way, noise_of):
    """The definition, with the estimator's own noise; and again after the prior has changed."""
    model, k = model_with(**WAYS[way], likelihood="gaussian"), 7
    for _ in range(2):
        found = estimate_log_likelihood(model, IMAGES, num_importance_samples=k, seed=3)
        noise = np.stack([noise_of(i, k, model.latent_dim, seed=3) for i in range(9)], axis=1)
        terms = model.terms(model.prepare(IMAGES), num_samples=k, noise=noise)
        weights = numpy(terms["log_weights"]).astype("float64")
        expected = special.logsumexp(weights, axis=0) - np.log(k)
        np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-3)
        shake(model.prior)


def test_the_marginal_of_a_linear_decoder_under_a_mixture_is_known():
    """p(x) is a mixture of Gaussians itself; the estimator has to meet it."""
    keras.utils.set_random_seed(0)
    kernel = np.array([[1.0, 0.4, -0.3, 0.2], [0.1, -0.5, 0.6, 0.3]])  # two latents, four pixels
    shape = (2, 2, 1)
    encoder = build_encoder(shape, 2, hidden_units=(4,), dtype="float32")
    z = keras.Input((2,))
    pixels = keras.layers.Dense(4, dtype="float32")
    mean = ops.clip(pixels(z), 1e-4, 1 - 1e-4)
    # The library's location is what a sigmoid makes the mean of.
    location = keras.layers.Reshape(shape, dtype="float32")(ops.log(mean) - ops.log1p(-mean))
    decoder = keras.Model(z, location)
    pixels.set_weights([0.1 * kernel, np.full(4, 0.5)])
    model = VAE(encoder, decoder, likelihood="gaussian", prior=Mixture(3))
    means = np.array([[1.0, 0.5], [-1.5, 0.0], [0.3, -1.0]])
    scales = np.array([[0.6, 0.9], [0.4, 0.5], [0.8, 0.7]])
    shares = np.array([0.5, 0.3, 0.2])
    model.prior.set_weights([means, 2 * np.log(scales), np.log(shares)])
    # A wide proposal for all pictures serves: its weights are bounded.
    heads = [encoder.get_layer(name) for name in ("mean", "log_variance")]
    for head, value in zip(heads, (0.0, 1.0), strict=True):
        head.set_weights([np.zeros((4, 2)), np.full(2, value)])
    images = RNG.integers(60, 200, (6, *shape), np.uint8)
    found = estimate_log_likelihood(model, images, num_importance_samples=60_000)
    x, noise = images.reshape(6, 4) / 255, np.exp(model.likelihood.initial_log_scale)
    parts = [
        np.log(share)
        + stats.multivariate_normal(
            0.5 + 0.1 * mean @ kernel,
            0.01 * kernel.T @ np.diag(scale**2) @ kernel + noise**2 * np.eye(4),
        ).logpdf(x)
        for share, mean, scale in zip(shares, means, scales, strict=True)
    ]
    np.testing.assert_allclose(found.values, special.logsumexp(parts, axis=0), atol=0.05)


def test_the_second_layer_s_posterior_is_a_product_of_gaussians():
    """Top down: q(z1|z2, x) is proportional to p(z1|z2) times what the encoder has seen."""
    model = model_with(**WAYS["top down"])
    seen = [part[:1].astype("float64") for part in model.encoded(IMAGES)]
    z, log_prior, log_posterior = model.prior.propose(
        *(ops.convert_to_tensor(part.astype("float32")) for part in seen),
        ops.convert_to_tensor(RNG.normal(size=(50, 1, 5)).astype("float32")),
    )
    z = numpy(z)[:, 0].astype("float64")
    mean, scale = seen[0][0], np.exp(seen[1][0] / 2)
    second = stats.norm(mean[3:], scale[3:]).logpdf(z[:, 3:]).sum(1)
    top = stats.norm.logpdf(z[:, 3:]).sum(1)
    conditional = numpy(log_prior)[:, 0] - top  # log p(z1|z2)
    likelihood = stats.norm(mean[:3], scale[:3]).logpdf(z[:, :3]).sum(1)
    down = [numpy(out).astype("float64") for out in model.prior.down(z[:, 3:].astype("float32"))]
    # The normaliser of a product of Gaussians is a Gaussian of the difference of means.
    normalizer = stats.norm(down[0], np.sqrt(np.exp(down[1]) + scale[:3] ** 2)).logpdf(mean[:3])
    expected = conditional + likelihood - normalizer.sum(1)
    np.testing.assert_allclose(numpy(log_posterior)[:, 0] - second, expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("way", ["top down", "bottom up"])
def test_the_posterior_of_two_layers_is_that_of_each_at_the_mean_of_the_other(way):
    """Means are latents without noise; a deviation is how far noise of 1 takes a layer."""
    model = model_with(**WAYS[way])
    encoded = [ops.convert_to_tensor(part) for part in model.encoded(IMAGES)]

    def propose(noise):
        z, _, log_posterior = model.prior.propose(*encoded, ops.convert_to_tensor(noise))
        return numpy(z), numpy(log_posterior)

    nothing = np.zeros((len(IMAGES), 5), "float32")
    middle, log_posterior = propose(nothing)
    mean, log_variance = model.encode(IMAGES)
    np.testing.assert_allclose(mean, middle, rtol=1e-5, atol=1e-6)
    expected = -0.5 * (log_variance + np.log(2 * np.pi)).sum(1)
    np.testing.assert_allclose(log_posterior, expected, rtol=1e-4, atol=1e-4)
    for layer in (slice(0, 3), slice(3, 5)):
        noise = nothing.copy()
        noise[:, layer] = 1
        moved = propose(noise)[0] - middle
        deviation = np.exp(log_variance / 2)
        np.testing.assert_allclose(moved[:, layer], deviation[:, layer], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.reconstruct(IMAGES), model.decode(middle), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixture(0), "at least 1"),
        (lambda: Flow(1), "at least 2"),
        (lambda: prior_of("flow", 1), "flow of 1 latent unit"),
        (lambda: TwoLayers(0), "at least 1"),
        (lambda: TwoLayers(2, inference="sideways"), "top_down, bottom_up"),
        (lambda: TrainConfig(prior="vamp", conditional=True), "no labels"),
        (
            lambda: build_prior(
                TrainConfig(prior="vamp", second_latent_dim=2, inference="bottom_up")
            ),
            r"q\(z2\|u\) .* no closed form there; expected inference='top_down'",
        ),
        (
            lambda: TwoLayers(2, inference="bottom_up", top=VampPrior(3)),
            "has no closed form; expected inference='top_down'",
        ),
        (lambda: TrainConfig(prior="flow", free_bits=0.1), "closed form"),
        (lambda: TrainConfig(second_latent_dim=2, num_samples=3, gradient="dreg"), "one layer"),
        (lambda: TrainConfig(num_samples=3, gradient="stl"), "biased"),
    ],
)
def test_what_cannot_be_is_refused_with_advice(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_documentation_s_own_prior_is_one(tmp_path):
    """Its code is run as it stands there."""
    text = (Path(__file__).parents[2] / "docs" / "theory" / "priors.md").read_text("utf-8")
    namespace = {"__name__": "mine"}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), namespace)
    model = namespace["model"]
    prior = model.prior
    z = np.random.default_rng(0).normal(size=(5, 20)).astype("float32")
    expected = stats.laplace.logpdf(z).sum(1)
    np.testing.assert_allclose(numpy(prior.log_density(z)), expected, rtol=1e-5)
    drawn = numpy(prior.sample((2000, 20), 1)).ravel()
    assert stats.kstest(drawn, stats.laplace.cdf).pvalue > 1e-3
    images = np.random.default_rng(1).integers(0, 256, (20, 28, 28, 1), np.uint8)
    vae.train(model, images, config=TrainConfig(epochs=1, batch_size=10))
    report = vae.evaluate(model, images, num_importance_samples=10)
    assert report.log_likelihood.value >= report.elbo.value - 2
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.sample(2, seed=3), model.sample(2, seed=3))


def test_fit_takes_a_flow_s_gradients_afresh_in_every_step():
    """Two steps in one `fit` are the two steps taken apart; on PyTorch they once added up."""
    flows = [prior_of("flow", 4) for _ in range(2)]
    z = np.random.default_rng(2).normal(size=(20, 4)).astype("float32")
    for flow, calls in zip(flows, ([z], [z[:10], z[10:]]), strict=True):
        for rows in calls:  # another learner has no gradients left of the one before
            learner = _Learner(flow)
            learner.compile(keras.optimizers.SGD(0.1), loss=_mean_of_outputs)
            learner.fit(rows, np.zeros(len(rows)), batch_size=10, shuffle=False, verbose=0)
            for weight in flow.weights if keras.backend.backend() == "torch" else ():
                weight.value.grad = None
    for one, other in zip(*(flow.get_weights() for flow in flows), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
