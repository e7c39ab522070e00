import re

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from safelight.vae import likelihoods, objectives, priors
from safelight.vae.config import CHOICES

NAMES = list(likelihoods.LIKELIHOODS)
LOCATIONS = np.array([-4.0, -1.0, -0.2, -1e-4, 0.0, 0.1, 2.0, 5.0]).reshape(2, 4, 1)


def numpy(values) -> np.ndarray:
    return ops.convert_to_numpy(values)


def tensor(values) -> object:
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def draws(row, location, log_scale, num: int, seed: int = 0) -> np.ndarray:
    """`(num, ...)` draws at a location of shape `(...)`."""
    repeated = tensor(np.broadcast_to(location, (num, *np.shape(location))))
    return numpy(row.sample(repeated, tensor([log_scale]), seed))


def test_the_configuration_names_every_row():
    assert set(CHOICES["likelihood"]) == {"auto", *NAMES}
    assert all(likelihoods.find_likelihood(name).name == name for name in NAMES)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match="poisson") as told:
        likelihoods.find_likelihood("poisson")
    assert {"poisson", *NAMES} <= set(re.findall(r"\w+", str(told.value)))


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_rows_mean(name):
    """With a small scale, so that next to nothing is cut off at black and white."""
    row = likelihoods.find_likelihood(name)
    location = LOCATIONS if not row.has_scale else np.clip(LOCATIONS, -2, 2)
    found = draws(row, location, -4.5, 20_000)
    assert found.min() >= 0
    assert found.max() <= 1
    error = found.std(0) / np.sqrt(len(found)) + 1e-5
    assert np.all(np.abs(found.mean(0) - numpy(row.mean(tensor(location)))) < 4.5 * error)


@pytest.mark.parametrize("name", NAMES)
def test_the_initial_location_is_the_inverse_of_the_mean(name):
    row = likelihoods.find_likelihood(name)
    picture = np.linspace(0.02, 0.98, 97).reshape(1, -1, 1)
    location = row.initial_location(picture)
    assert location.dtype == np.float32
    np.testing.assert_allclose(numpy(row.mean(tensor(location))), picture, atol=1e-6)
    assert np.isfinite(row.initial_location(np.array([0.0, 1.0]))).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_gives_one_picture(name):
    row = likelihoods.find_likelihood(name)
    first, again, other = (draws(row, LOCATIONS, -2.0, 4, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


@pytest.mark.parametrize("location", [-3.0, 1e-4, 0.5, 4.0])
def test_draws_of_the_continuous_bernoulli_have_its_distribution(location):
    row = likelihoods.find_likelihood("continuous_bernoulli")
    found = draws(row, np.full((1, 1, 1), location), 0.0, 4000).ravel()

    def cdf(x):
        return np.expm1(location * x) / np.expm1(location)

    assert stats.kstest(found, cdf).pvalue > 1e-3


def test_draws_of_the_discretized_logistic_come_as_often_as_it_says():
    row = likelihoods.find_likelihood("discretized_logistic")
    location, log_scale, num = np.full((1, 1, 1), -1.5), np.log(0.02), 50_000
    found = np.rint(draws(row, location, log_scale, num).ravel() * 255).astype(int)
    levels = tensor((np.arange(256) / 255).reshape(-1, 1, 1, 1))
    log_p = row.log_likelihood(levels, tensor(location), tensor([log_scale]))
    expected = np.exp(numpy(log_p)) * num
    counts, common = np.bincount(found, minlength=256), expected > 20
    pieces = [*((counts - expected) ** 2 / expected)[common]]
    assert stats.chi2(len(pieces)).sf(sum(pieces)) > 1e-3


def test_rows_say_what_their_values_are():
    """Only black and white, and grey levels, have probabilities; a density may exceed one."""
    discrete = {name for name, row in likelihoods.LIKELIHOODS.items() if row.discrete}
    assert discrete == {"bernoulli", "discretized_logistic"}
    x = tensor(np.full((1, 1, 1, 1), 0.5))
    for name, row in likelihoods.LIKELIHOODS.items():
        highest = float(numpy(row.log_likelihood(x, tensor([[[0.0]]]), tensor([-5.0])))[0])
        if row.discrete:
            assert highest <= 0
        elif row.has_scale:
            assert highest > 0, name


def test_the_standard_normal_prior():
    prior = priors.StandardNormal()
    z = numpy(prior.sample((50_000, 2), 1))
    assert stats.kstest(z.ravel(), stats.norm.cdf).pvalue > 1e-3
    np.testing.assert_array_equal(z, numpy(prior.sample((50_000, 2), 1)))
    expected = stats.norm().logpdf(z[:9]).sum(1)
    np.testing.assert_allclose(numpy(prior.log_density(tensor(z[:9]))), expected, rtol=1e-5)
    mean, log_variance = (tensor(np.random.default_rng(i).normal(size=(3, 2))) for i in (0, 1))
    np.testing.assert_array_equal(
        numpy(prior.kl_per_unit(mean, log_variance)),
        numpy(objectives.kl_per_unit(mean, log_variance)),
    )
    config = keras.saving.serialize_keras_object(prior)
    assert isinstance(keras.saving.deserialize_keras_object(config), priors.StandardNormal)
