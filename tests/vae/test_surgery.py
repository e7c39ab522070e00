"""ELBO surgery against closed forms, numerical integration and brute force."""

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from safelight import vae
from safelight.vae.aggregate import AggregatePosterior
from safelight.vae.priors import StandardNormal
from safelight.vae.surgery import dissect, dissect_posterior, kl_per_unit, log_prior

RNG = np.random.default_rng(0)


class Unclosed(StandardNormal):
    """The standard normal as a prior that has no closed form."""

    def kl_per_unit(self, mean, log_variance):
        return None


def scattered(num_images=30, latent_dim=3, *, seed=1):
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(num_images, latent_dim))
    return AggregatePosterior(mean, rng.normal(-1, 0.5, (num_images, latent_dim)))


def brute_force(aggregate, z):
    """log q(z|x_n) of every z and every picture, by SciPy."""
    deviation = np.exp(aggregate.log_variance / 2)
    return stats.norm.logpdf(z[:, None], aggregate.mean, deviation).sum(-1)


def entropy(density, low, high):
    def integrand(z):
        p = density(z)
        return -p * math.log(p) if p > 0 else 0.0

    return integrate.quad(integrand, low, high, limit=500)[0]


# --- the aggregate posterior


def test_its_density_is_the_mean_over_all_pictures_whatever_the_blocks(monkeypatch):
    aggregate, z = scattered(), RNG.normal(size=(50, 3))
    wanted = special.logsumexp(brute_force(aggregate, z), axis=1) - math.log(30)
    np.testing.assert_allclose(aggregate.log_density(z), wanted, rtol=1e-6)
    monkeypatch.setattr("safelight.vae.aggregate._BLOCK_VALUES", 70)
    np.testing.assert_allclose(aggregate.log_density(z), wanted, rtol=1e-6)


def test_the_others_are_all_but_the_own_picture():
    aggregate = scattered()
    z = aggregate.draw(2, seed=0)
    terms = np.stack([brute_force(aggregate, some) for some in z])
    own = np.diagonal(terms, axis1=1, axis2=2)
    np.testing.assert_allclose(aggregate.own_log_density(z), own, rtol=1e-9)
    terms[:, np.arange(30), np.arange(30)] = -np.inf
    wanted = special.logsumexp(terms, axis=2)
    np.testing.assert_allclose(aggregate.log_sums_of_others(z), wanted, rtol=1e-6)


def test_samples_have_the_mixture_s_moments():
    aggregate = scattered(5, 2)
    z = aggregate.sample(200_000, seed=3)
    variance = np.exp(aggregate.log_variance).mean(0) + aggregate.mean.var(0)
    np.testing.assert_allclose(z.mean(0), aggregate.mean.mean(0), atol=0.02)
    np.testing.assert_allclose(z.var(0), variance, rtol=0.02)


def test_the_density_of_a_plane_gives_the_marginals_of_both_its_units():
    aggregate = scattered(20, 3)
    places = np.linspace(-6, 6, 400), np.linspace(-7, 7, 500)
    plane = aggregate.plane_density((2, 0), places)
    assert plane.shape == (500, 400)
    for axis, unit in ((0, 2), (1, 0)):
        found = np.trapezoid(plane, places[1 - axis], axis=axis)
        marginal = aggregate.marginal_density(unit, places[axis])
        np.testing.assert_allclose(found, marginal, atol=1e-6)
    i, j = 250, 130
    deviation = np.exp(aggregate.log_variance[:, [2, 0]] / 2)
    at = np.array([places[0][j], places[1][i]])
    by_hand = stats.norm.pdf(at, aggregate.mean[:, [2, 0]], deviation).prod(1).mean()
    assert plane[i, j] == pytest.approx(by_hand, rel=1e-5)


def test_the_grids_hold_all_of_the_mass():
    places, density = scattered(40, 4).marginals()
    np.testing.assert_allclose(np.trapezoid(density, places, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("deviation", [2e-2, 2e-3, 1e-4, 1e-7])
def test_spikes_between_the_points_of_a_grid_are_seen(deviation):
    """One unit has no other to hang together with, however narrow its posteriors are."""
    mean = np.random.default_rng(0).normal(size=(100, 1))
    aggregate = AggregatePosterior(mean, np.full((100, 1), 2 * np.log(deviation)))
    places, density = aggregate.marginals()
    np.testing.assert_allclose(np.trapezoid(density, places, axis=1), 1, atol=1e-6)
    # Of the mean and the variance no more is lost than the width of a step.
    first = np.trapezoid(density * places, places, axis=1)
    second = np.trapezoid(density * (places - first) ** 2, places, axis=1)
    np.testing.assert_allclose(first, mean.mean(0), atol=1e-6)
    width = max(deviation, float(places[0, 1] - places[0, 0]))
    np.testing.assert_allclose(second, mean.var(0) + width**2, rtol=1e-5)


@pytest.mark.parametrize(
    ("mean", "log_variance", "words"),
    [
        (np.zeros(3), np.zeros(3), "num_images, latent_dim"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "at least one image"),
        (np.zeros((2, 3)), np.zeros((2, 2)), r"\(2, 2\)"),
        (np.full((2, 3), np.nan), np.zeros((2, 3)), "not finite"),
    ],
)
def test_what_is_no_posterior_is_refused(mean, log_variance, words):
    with pytest.raises(ValueError, match=words):
        AggregatePosterior(mean, log_variance)


def test_latents_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"expected \(num, 3\)"):
        scattered().log_density(np.zeros((4, 2)))


# --- the two parts


def test_where_all_posteriors_are_equal_a_draw_tells_nothing():
    mean, log_variance = np.full((50, 3), 0.7), np.full((50, 3), -1.2)
    cut = dissect_posterior(AggregatePosterior(mean, log_variance), StandardNormal())
    kl = 1.5 * (0.49 + math.exp(-1.2) - 1 + 1.2)
    assert cut.mutual_information == pytest.approx(0, abs=1e-6)
    assert cut.most_information == pytest.approx(0, abs=1e-6)
    assert cut.aggregate_kl == pytest.approx(kl, rel=1e-5)
    np.testing.assert_allclose(cut.aggregate_kl_per_unit, kl / 3, rtol=1e-5)
    assert cut.total_correlation == pytest.approx(0, abs=1e-5)


def test_where_no_posteriors_meet_a_draw_tells_the_picture():
    mean = 100.0 * np.arange(64)[:, None]
    cut = dissect_posterior(AggregatePosterior(mean, np.zeros((64, 1))), StandardNormal())
    assert cut.mutual_information == pytest.approx(math.log(64), abs=1e-12)
    assert cut.monte_carlo_error == pytest.approx(0, abs=1e-12)
    assert cut.aggregate_kl == pytest.approx(cut.kl - math.log(64), rel=1e-6)
    # More than log 64 would be known of more pictures, all of them apart.
    assert cut.most_information > 1000


def test_the_parts_are_the_integrals_for_one_latent():
    mean = np.array([-1.5, -0.2, 0.1, 2.0])
    deviation = np.array([0.3, 0.5, 0.2, 0.8])

    def density(z):
        return stats.norm.pdf(z, mean, deviation).mean()

    entropies = 0.5 * np.log(2 * np.pi * np.e * deviation**2)
    information = entropy(density, -9, 12) - entropies.mean()
    kl = 0.5 * (mean**2 + deviation**2 - 1 - 2 * np.log(deviation)).mean()
    aggregate = AggregatePosterior(mean[:, None], 2 * np.log(deviation)[:, None])
    cut = dissect_posterior(aggregate, StandardNormal(), num_draws=20_000)
    assert cut.monte_carlo_error < 0.004
    assert cut.kl == pytest.approx(kl, rel=1e-5)
    assert cut.mutual_information == pytest.approx(information, abs=4 * cut.monte_carlo_error)
    assert cut.aggregate_kl == pytest.approx(kl - information, abs=4 * cut.monte_carlo_error)
    assert cut.aggregate_kl_per_unit[0] == pytest.approx(kl - information, abs=1e-5)


def test_no_draw_tells_more_than_the_logarithm_of_their_number():
    for num_images in (1, 2, 7, 300):
        for spread in (-12.0, 0.0, 3.0):
            mean = RNG.normal(size=(num_images, 4))
            posterior = AggregatePosterior(mean, np.full((num_images, 4), spread))
            cut = dissect_posterior(posterior, StandardNormal())
            assert cut.mutual_information <= math.log(num_images) + 1e-12
            assert cut.kl == pytest.approx(cut.mutual_information + cut.aggregate_kl)


def linear_gaussian(num_images, rng):
    """z is x and noise, x ~ N(0, 1): I(x; z) = log(1 + 1 / variance) / 2 for pictures at large."""
    variance = 0.1
    mean = rng.normal(size=(num_images, 1))
    return AggregatePosterior(mean, np.full((num_images, 1), math.log(variance))), variance


def test_the_information_of_pictures_at_large_lies_between_the_two_bounds():
    rng = np.random.default_rng(7)
    cuts = []
    for seed in range(60):
        aggregate, variance = linear_gaussian(12, rng)
        cuts.append(dissect_posterior(aggregate, StandardNormal(), num_draws=50, seed=seed))
    truth = 0.5 * math.log(1 + 1 / variance)
    least, most = (
        np.array([getattr(cut, name) for cut in cuts])
        for name in ("mutual_information", "most_information")
    )
    error = [bound.std() / math.sqrt(len(bound)) for bound in (least, most)]
    assert least.mean() < truth - 3 * error[0]  # of 12 pictures less is known, not by chance
    assert most.mean() > truth + 3 * error[1]
    larger, _ = linear_gaussian(3000, rng)
    cut = dissect_posterior(larger, StandardNormal())
    assert cut.mutual_information == pytest.approx(truth, abs=0.06)
    assert cut.most_information == pytest.approx(truth, abs=0.06)


def test_the_error_is_that_of_other_draws():
    aggregate = scattered(20, 2)
    cuts = [dissect_posterior(aggregate, StandardNormal(), seed=seed) for seed in range(200)]
    spread = np.std([cut.mutual_information for cut in cuts])
    stated = np.mean([cut.monte_carlo_error for cut in cuts])
    assert stated == pytest.approx(spread, rel=0.2)


def test_units_that_hang_together_have_a_total_correlation():
    corners = np.array(np.meshgrid([-2, 2], [-1, 1])).reshape(2, -1).T
    variances = np.full((4, 2), -2.0)
    free = dissect_posterior(
        AggregatePosterior(corners, variances), StandardNormal(), num_draws=4000
    )
    assert free.total_correlation == pytest.approx(0, abs=5 * free.monte_carlo_error)
    diagonal = corners[[0, 3, 0, 3]]  # now one unit tells the other
    tied = dissect_posterior(
        AggregatePosterior(diagonal, variances), StandardNormal(), num_draws=4000
    )
    wanted = math.log(2)  # but for the overlap of neighbours along the second unit
    assert 0.9 * wanted < tied.total_correlation < wanted + 1e-3


def test_a_prior_without_a_closed_form_gives_the_same_numbers():
    aggregate = scattered()
    closed = dissect_posterior(aggregate, StandardNormal(), num_draws=2000)
    drawn = dissect_posterior(aggregate, Unclosed(), num_draws=2000)
    assert drawn.kl == pytest.approx(closed.kl, abs=0.02)
    assert drawn.mutual_information == closed.mutual_information
    assert drawn.aggregate_kl == pytest.approx(closed.aggregate_kl, abs=0.02)
    assert kl_per_unit(aggregate.mean, aggregate.log_variance, Unclosed()) is None


def test_the_prior_is_asked_in_batches(monkeypatch):
    z = RNG.normal(size=(4, 5, 3))
    monkeypatch.setattr("safelight.vae.surgery._BATCH_SIZE", 7)
    wanted = stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(log_prior(StandardNormal(), z), wanted, rtol=1e-5)


def test_fewer_than_two_draws_have_no_error():
    with pytest.raises(ValueError, match="num_draws=1: expected 2"):
        dissect_posterior(scattered(), StandardNormal(), num_draws=1)


def test_a_model_s_kl_is_what_its_elbo_subtracts():
    images = RNG.integers(0, 256, (20, 5, 4, 1), dtype="uint8")
    settings = {"latent_dim": 3, "hidden_units": (8,), "precision": "float32"}
    model = vae.build_vae((5, 4, 1), vae.TrainConfig(likelihood="gaussian", **settings))
    cut = dissect(model, images)
    assert cut.kl == pytest.approx(model.elbo(images)["kl"].mean(), rel=1e-5)
    assert cut.kl == pytest.approx(cut.kl_per_unit.sum(), rel=1e-6)
    with pytest.raises(ValueError, match="at most 10,000"):
        dissect(model, np.zeros((10_001, 5, 4, 1), "uint8"))


def test_two_layers_have_no_surgery():
    settings = {"latent_dim": 3, "hidden_units": (8,), "precision": "float32"}
    config = vae.TrainConfig(likelihood="gaussian", second_latent_dim=2, **settings)
    model, images = vae.build_vae((5, 4, 1), config), np.zeros((8, 5, 4, 1), "uint8")
    with pytest.raises(ValueError, match="two stochastic layers"):
        dissect(model, images)
    report = vae.evaluate(model, images, num_importance_samples=0)
    assert report.surgery is None
    assert "no Gaussian" in report.protocol["surgery"]


def test_the_sentence_says_what_the_most_is():
    cut = dissect_posterior(scattered(), StandardNormal())
    assert "at most log 30 = 3.4" in cut.sentence
    assert cut.to_dict()["sentence"] == cut.sentence
    assert "30 images, 4 draws" in cut.protocol


def test_a_report_brings_the_surgery_of_its_own_images():
    images = RNG.integers(0, 256, (20, 5, 4, 1), dtype="uint8")
    settings = {"latent_dim": 3, "hidden_units": (8,), "precision": "float32"}
    model = vae.build_vae((5, 4, 1), vae.TrainConfig(likelihood="bernoulli", **settings))
    report = vae.evaluate(model, images, num_importance_samples=0)
    # The KL of the ELBO and that of the surgery are of the same black and white pixels.
    assert report.surgery.kl == pytest.approx(report.kl.value, rel=1e-5)
    assert report.to_dict()["surgery"]["num_images"] == 20
    assert report.protocol["surgery"] == report.surgery.protocol
