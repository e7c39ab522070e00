import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from keras import ops
from scipy import integrate, special, stats

from safelight.vae import objectives

RNG = np.random.default_rng(0)
LOGITS = [-30.0, -5.0, -0.31, -0.29, -1e-3, -1e-6, 0.0, 1e-6, 1e-3, 0.29, 0.31, 5.0, 30.0]


def tensor(values) -> object:
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def numpy(values) -> np.ndarray:
    return ops.convert_to_numpy(values).astype("float64")


def pixels(values) -> object:
    """A batch of pictures of one pixel: `(n, 1, 1, 1)`."""
    return tensor(np.reshape(values, (-1, 1, 1, 1)))


# Divergences.


@pytest.mark.parametrize(
    ("mean", "log_variance"), [(0.0, 0.0), (1.3, -1.0), (-2.0, 1.5), (0.1, -6)]
)
def test_kl_is_what_quadrature_and_monte_carlo_give(mean, log_variance):
    closed = float(objectives.kl_divergence(tensor([mean]), tensor([log_variance])))
    q, p = stats.norm(mean, np.exp(log_variance / 2)), stats.norm()
    width = 12 * q.std()
    integrated, _ = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), mean - width, mean + width, limit=200
    )
    np.testing.assert_allclose(closed, integrated, atol=1e-5, rtol=1e-5)
    z = q.rvs(200_000, random_state=1)[:, None]
    ratios = numpy(
        objectives.normal_log_density(tensor(z), tensor([mean]), tensor([log_variance]))
        - objectives.normal_log_density(tensor(z))
    )
    standard_error = ratios.std() / np.sqrt(len(z))
    assert abs(ratios.mean() - closed) < 4 * standard_error + 1e-5


def test_kl_sums_over_units_and_keeps_other_axes():
    mean, log_variance = RNG.normal(size=(2, 3, 4, 5))
    per_unit = numpy(objectives.kl_per_unit(tensor(mean), tensor(log_variance)))
    assert per_unit.shape == (3, 4, 5)
    assert per_unit.min() >= 0
    total = numpy(objectives.kl_divergence(tensor(mean), tensor(log_variance)))
    np.testing.assert_allclose(total, per_unit.sum(-1), rtol=1e-5)


def test_normal_log_density_is_scipys():
    z, mean, log_variance = RNG.normal(size=(3, 7, 4))
    found = objectives.normal_log_density(tensor(z), tensor(mean), tensor(log_variance))
    expected = stats.norm(mean, np.exp(log_variance / 2)).logpdf(z).sum(-1)
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-5)


# Likelihoods.


def test_bernoulli_sums_to_one_over_all_pictures():
    pictures = np.array(list(itertools.product([0, 1], repeat=6))).reshape(-1, 1, 3, 2)
    logits = np.array([-30.0, -2.0, 0.0, 1e-3, 3.0, 30.0]).reshape(1, 3, 2)
    log_p = numpy(objectives.bernoulli_log_likelihood(tensor(pictures), tensor(logits)))
    np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, atol=1e-5)
    assert log_p.max() <= 0


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one(logit):
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = (nodes + 1) / 2
    log_p = numpy(objectives.continuous_bernoulli_log_likelihood(pixels(x), pixels([logit])))
    np.testing.assert_allclose(np.exp(log_p) @ weights / 2, 1.0, rtol=2e-5)


def test_continuous_bernoulli_is_the_formula_of_the_paper():
    """p(x) = C(m) m^x (1 - m)^(1 - x) with C(m) = 2 artanh(1 - 2 m) / (1 - 2 m)."""
    logits = np.array([-8.0, -2.0, -0.4, -0.2, 0.1, 0.3, 1.0, 6.0])
    x = np.linspace(0, 1, len(logits))
    m = 1 / (1 + np.exp(-logits))
    constant = 2 * np.arctanh(1 - 2 * m) / (1 - 2 * m)
    expected = np.log(constant) + x * np.log(m) + (1 - x) * np.log1p(-m)
    found = objectives.continuous_bernoulli_log_likelihood(pixels(x), pixels(logits))
    np.testing.assert_allclose(numpy(found), expected, atol=2e-6)


def test_continuous_bernoulli_gradient_is_x_minus_the_mean(gradient):
    logits, x = np.array(LOGITS), np.linspace(0, 1, len(LOGITS))

    def total(location):
        shaped = ops.reshape(location, (-1, 1, 1, 1))
        return ops.sum(objectives.continuous_bernoulli_log_likelihood(pixels(x), shaped))

    far = np.where(np.abs(logits) < 1e-2, 1.0, logits)
    mean = np.where(far == logits, 1 / -np.expm1(-far) - 1 / far, 0.5 + logits / 12)
    np.testing.assert_allclose(gradient(total, logits), x - mean, atol=2e-6)


@pytest.mark.parametrize("log_scale", [-4.0, 0.0, 2.0])
def test_gaussian_integrates_to_one(log_scale):
    nodes, weights = np.polynomial.legendre.leggauss(100)
    scale = np.exp(log_scale)
    x = 0.4 + 8 * scale * nodes
    log_p = objectives.gaussian_log_likelihood(pixels(x), pixels([0.4]), tensor([log_scale]))
    np.testing.assert_allclose(np.exp(numpy(log_p)) @ weights * 8 * scale, 1.0, rtol=1e-4)
    expected = stats.norm(0.4, scale).logpdf(x)
    np.testing.assert_allclose(numpy(log_p), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_levels", [2, 5, 256])
@pytest.mark.parametrize("log_scale", [-30.0, -15.0, -8.0, -5.0, -2.0, 0.0, 3.0, 15.0, 100.0])
def test_discretized_logistic_sums_to_one(log_scale, num_levels):
    levels = np.linspace(0, 1, num_levels)[:, None]
    means = np.array([[-0.5, 0.0, 0.1234, 0.5, 1.0, 1.5]])
    x, mean = np.broadcast_arrays(levels, means)
    log_p = objectives.discretized_logistic_log_likelihood(
        pixels(x.ravel()), pixels(mean.ravel()), tensor([log_scale]), num_levels
    )
    assert numpy(log_p).max() <= 0
    np.testing.assert_allclose(np.exp(numpy(log_p)).reshape(x.shape).sum(0), 1.0, rtol=2e-4)


def test_discretized_logistic_is_a_difference_of_sigmoids():
    levels, means = np.meshgrid(np.arange(256) / 255, [0.02, 0.3, 0.77], indexing="ij")
    x, mean, scale = levels.ravel(), means.ravel(), 0.05
    above = np.where(x == 1, np.inf, x + 0.5 / 255)
    below = np.where(x == 0, -np.inf, x - 0.5 / 255)
    cdf = stats.logistic(mean, scale).cdf
    found = objectives.discretized_logistic_log_likelihood(
        pixels(x), pixels(mean), tensor([np.log(scale)])
    )
    np.testing.assert_allclose(numpy(found), np.log(cdf(above) - cdf(below)), atol=1e-4)


LIKELIHOODS = {
    "bernoulli": lambda x, a, b: objectives.bernoulli_log_likelihood(x, a),
    "continuous_bernoulli": lambda x, a, b: objectives.continuous_bernoulli_log_likelihood(x, a),
    "gaussian": objectives.gaussian_log_likelihood,
    "discretized_logistic": objectives.discretized_logistic_log_likelihood,
}


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("scale", [-1000.0, -10.0, 0.0, 10.0, 1000.0])
def test_values_and_gradients_are_finite_at_extremes(name, scale, gradient):
    x, location = np.meshgrid([0.0, 0.5, 1.0], [-1e4, -30.0, 0.0, 1e-8, 0.5, 30.0, 1e4])
    x, location = pixels(np.rint(x.ravel() * 255) / 255), location.ravel()

    def total(both):
        mean = ops.reshape(both[:-1], (-1, 1, 1, 1))
        return ops.sum(LIKELIHOODS[name](x, mean, both[-1:]))

    both = np.append(location, scale)
    assert np.isfinite(numpy(total(tensor(both))))
    assert np.isfinite(gradient(total, both)).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_twice_the_picture_has_twice_the_log_likelihood(name):
    """Pixels and channels are summed over: an average would stay as it was."""
    x = np.rint(RNG.uniform(size=(2, 4, 3, 2)) * 255) / 255
    location = RNG.uniform(size=x.shape)
    once = numpy(LIKELIHOODS[name](tensor(x), tensor(location), tensor([-1.0])))
    for axis in (1, 2, 3):
        two, twice = (np.concatenate([a, a], axis) for a in (x, location))
        found = LIKELIHOODS[name](tensor(two), tensor(twice), tensor([-1.0]))
        np.testing.assert_allclose(numpy(found), 2 * once, rtol=1e-5)


# Bounds.


class LinearGaussian:
    """x = W z + noise, with z from N(0, 1): its marginal and its posterior are known exactly.

    The columns of W are orthogonal, so that the posterior's covariance is diagonal.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        orthogonal, _ = np.linalg.qr(rng.normal(size=(12, 2)))
        self.loadings, self.scale = orthogonal * [1.5, 0.5], 0.4
        z = rng.normal(size=(6, 2))
        self.x = z @ self.loadings.T + self.scale * rng.normal(size=(6, 12))
        self.rng = rng
        covariance = self.loadings @ self.loadings.T + self.scale**2 * np.eye(12)
        self.log_p = stats.multivariate_normal(np.zeros(12), covariance).logpdf(self.x)
        precision = 1 + (self.loadings**2).sum(0) / self.scale**2
        self.variance = 1 / precision
        self.mean = self.x @ self.loadings / self.scale**2 * self.variance

    def terms(self, z, mean, variance):
        """Log-likelihood and log weights `(k, 6)` of draws z `(k, 6, 2)` from N(mean, variance)."""
        pictures = (len(z), 6, 3, 2, 2)
        log_likelihood = objectives.gaussian_log_likelihood(
            tensor(self.x.reshape(pictures[1:])),
            tensor((z @ self.loadings.T).reshape(pictures)),
            tensor([np.log(self.scale)]),
        )
        log_variance = tensor(np.broadcast_to(np.log(variance), mean.shape))
        posterior = objectives.normal_log_density(tensor(z), tensor(mean), log_variance)
        prior = objectives.normal_log_density(tensor(z))
        weights = objectives.log_importance_weights(log_likelihood, prior, posterior)
        kl = objectives.kl_divergence(tensor(mean), log_variance)
        return log_likelihood, kl, weights


def test_with_the_true_posterior_every_bound_is_the_marginal_likelihood():
    model = LinearGaussian()
    z = model.mean + np.sqrt(model.variance) * model.rng.normal(size=(5, 6, 2))
    _, _, weights = model.terms(z, model.mean, model.variance)
    expected = np.tile(model.log_p, (5, 1))
    np.testing.assert_allclose(numpy(weights), expected, atol=1e-4)
    bound = objectives.importance_weighted_bound(weights)
    np.testing.assert_allclose(numpy(bound), model.log_p, atol=1e-4)


def test_bounds_grow_with_the_number_of_draws_and_stay_below_the_marginal_likelihood():
    model, repeats, most = LinearGaussian(), 400, 64
    mean, variance = model.mean + 0.15, 1.5 * model.variance
    z = mean + np.sqrt(variance) * model.rng.normal(size=(repeats * most, 6, 2))
    log_likelihood, kl, weights = model.terms(z, mean, variance)
    bounds, errors = [], []
    for k in (1, 2, 4, 16, 64):
        grouped = ops.reshape(weights, (-1, k, 6))
        values = numpy(objectives.importance_weighted_bound(grouped, axis=1))
        bounds.append(values.mean(0))
        errors.append(values.std(0) / np.sqrt(len(values)))
    elbo = numpy(objectives.elbo(log_likelihood, kl))
    error = np.hypot(elbo.std(0) / np.sqrt(len(z)), errors[0])
    assert np.all(np.abs(elbo.mean(0) - bounds[0]) < 4.5 * error)
    for lower, higher in itertools.pairwise(bounds):
        assert np.all(higher > lower)
    assert np.all(bounds[0] < model.log_p - 0.05)
    assert np.all(bounds[-1] < model.log_p + 4 * errors[-1])
    assert np.all(bounds[-1] > model.log_p - 0.05)


def test_one_draw_gives_the_elbos_estimate_itself():
    log_likelihood, log_prior, log_posterior = RNG.normal(size=(3, 1, 5))
    weights = objectives.log_importance_weights(
        tensor(log_likelihood), tensor(log_prior), tensor(log_posterior)
    )
    bound = numpy(objectives.importance_weighted_bound(weights))
    sampled_kl = log_posterior - log_prior
    np.testing.assert_allclose(bound, (log_likelihood - sampled_kl)[0], rtol=1e-5, atol=1e-6)


def test_the_bound_is_the_logarithm_of_the_mean_weight_on_any_axis():
    weights = RNG.normal(size=(3, 7, 2))
    for axis in (0, 1, -1):
        found = objectives.importance_weighted_bound(tensor(weights - 1000), axis=axis)
        expected = np.log(np.exp(weights).mean(axis)) - 1000
        np.testing.assert_allclose(numpy(found), expected, rtol=1e-6)


def test_beta_weighs_the_kl_divergence():
    found = numpy(objectives.elbo(tensor([-80.0, -70.0]), tensor([20.0, 30.0]), 4.0))
    np.testing.assert_allclose(found, [-160.0, -190.0])


def test_free_bits_count_each_unit_with_at_least_so_many_nats(gradient):
    kl = np.array([[0.0, 1.0, 3.0], [0.2, 0.4, 5.0]])
    assert float(objectives.apply_free_bits(tensor(kl), 0.5)) == pytest.approx(0.5 + 0.7 + 4.0)
    assert float(objectives.apply_free_bits(tensor(kl), 0.0)) == pytest.approx(0.1 + 0.7 + 4.0)
    slope = gradient(lambda kl: objectives.apply_free_bits(kl, 0.5), kl)
    np.testing.assert_allclose(slope, [[0.0, 0.5, 0.5]] * 2)


def test_warm_up_rises_in_equal_steps_to_one():
    weights = [objectives.warmup_weight(epoch, 4) for epoch in range(6)]
    np.testing.assert_allclose(weights, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert objectives.warmup_weight(0, 0) == 1.0


# Whatever the weights are.


@given(
    numpy_st.arrays(np.float32, st.tuples(st.integers(1, 8), st.just(3)),
                    elements=st.floats(-1e4, 1e4, width=32)),
    st.floats(-100, 100, width=32),
)  # fmt: skip
@settings(max_examples=40)
def test_the_bound_lies_below_the_best_weight_and_moves_with_all_of_them(weights, shift):
    found = numpy(objectives.importance_weighted_bound(tensor(weights)))
    best, number = weights.max(0).astype("float64"), len(weights)
    tolerance = 1e-5 * (1 + np.abs(best))
    assert (found <= best + tolerance).all()
    assert (found >= best - np.log(number) - tolerance).all()
    moved = numpy(objectives.importance_weighted_bound(tensor(weights + shift)))
    np.testing.assert_allclose(moved, found + shift, atol=1e-2)
    turned = numpy(objectives.importance_weighted_bound(tensor(weights[::-1])))
    np.testing.assert_allclose(turned, found, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        found, special.logsumexp(weights.astype("float64"), axis=0) - np.log(number),
        rtol=1e-5, atol=1e-4,
    )  # fmt: skip


def test_a_draw_of_no_weight_counts_and_all_of_none_are_no_number_less_than_that():
    weights = tensor([[-np.inf, -np.inf], [0.0, -np.inf]])
    np.testing.assert_allclose(
        numpy(objectives.importance_weighted_bound(weights)), [-np.log(2), -np.inf], rtol=1e-6
    )
