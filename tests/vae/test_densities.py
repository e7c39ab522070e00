"""Densities of latents against scikit-learn, SciPy and what is known beforehand."""

import math

import numpy as np
import pytest
from scipy import special, stats
from sklearn.mixture import GaussianMixture

from safelight import vae
from safelight.runs import Run
from safelight.vae.densities import (
    FittedDensity,
    LatentMixture,
    choose_mixture,
    fit_density,
    fit_mixture,
    keep_density,
    read_density,
)
from safelight.vae.fitted_flows import FittedFlow, fit_flow, learn
from safelight.vae.flows import Flow
from safelight.vae.priors import StandardNormal

RNG = np.random.default_rng(0)
CENTRES = np.array([[-4.0, 0.0], [0.0, 4.0], [4.0, -1.0]])


def three_clouds(num, *, seed):
    """Draws, and the density that they are from."""
    rng = np.random.default_rng(seed)
    z = CENTRES[rng.integers(3, size=num)] + 0.5 * rng.normal(size=(num, 2))
    terms = stats.norm.logpdf(z[:, None], CENTRES, 0.5).sum(-1)
    return z, special.logsumexp(terms, axis=1) - math.log(3)


def some_mixture():
    factors = np.array([[[0.5, 0.0], [0.3, 0.4]], [[1.0, 0.0], [-0.8, 0.2]]])
    return LatentMixture(np.array([0.3, 0.7]), np.array([[0.0, 1.0], [2.0, -1.0]]), factors)


def test_its_density_is_that_of_its_gaussians():
    mixture, z = some_mixture(), RNG.normal(size=(20, 2))
    terms = [
        math.log(weight) + stats.multivariate_normal(mean, factor @ factor.T).logpdf(z)
        for weight, mean, factor in zip(
            mixture.weights, mixture.means, mixture.factors, strict=True
        )
    ]
    np.testing.assert_allclose(mixture.log_density(z), special.logsumexp(terms, axis=0))


def test_its_draws_have_its_moments():
    mixture = some_mixture()
    z = mixture.sample(200_000, seed=1)
    mean = mixture.weights @ mixture.means
    covariances = mixture.factors @ mixture.factors.transpose(0, 2, 1)
    apart = mixture.means - mean
    spread = np.einsum("k,ki,kj->ij", mixture.weights, apart, apart)
    wanted = np.einsum("k,kij->ij", mixture.weights, covariances) + spread
    np.testing.assert_allclose(z.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(np.cov(z.T), wanted, atol=0.03)


def test_a_fit_is_scikit_learn_s():
    z, _ = three_clouds(300, seed=2)
    reference = GaussianMixture(3, tol=0.01, random_state=4).fit(z)
    np.testing.assert_allclose(
        fit_mixture(z, 3, seed=4).log_density(z), reference.score_samples(z), rtol=1e-6
    )


def test_what_is_held_out_chooses_as_many_as_there_are():
    z, _ = three_clouds(1500, seed=0)
    held_out, log_density = three_clouds(1500, seed=1)
    mixture, tried = choose_mixture(z, held_out, num_components=(1, 2, 3, 5, 8, 13, 21))
    assert len(mixture) == 3
    assert len(tried) == 5  # after two that were no better there were no more
    assert mixture.log_density(held_out).mean() == pytest.approx(log_density.mean(), abs=0.02)
    assert tried[3] == pytest.approx(mixture.log_density(held_out).mean())


def test_few_latents_are_not_spread_over_many_gaussians():
    z, _ = three_clouds(60, seed=0)
    _, tried = choose_mixture(z, z, num_components=(1, 5, 6, 7))
    assert set(tried) == {1, 5, 6}


# --- of a model


def small_model(**settings):
    values = {"latent_dim": 2, "hidden_units": (8,), "precision": "float32", **settings}
    return vae.build_vae(
        (4, 3, 1), vae.TrainConfig(**{"likelihood": "gaussian", **values}), num_classes=2
    )


def some_images(num_images, *, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, 4, 3, 1), dtype=np.uint8)


def put_posteriors(monkeypatch, model, latents, *, log_variance=-3.0):
    """Lets the encoder say where a picture lies: its first pixel is its number."""

    def encoded(images, labels=None):
        mean = latents[images[:, 0, 0, 0]].astype("float32")
        return [mean, np.full_like(mean, log_variance)]

    monkeypatch.setattr(type(model), "encoded", lambda self, *parts: encoded(*parts))


def numbered(numbers):
    images = np.zeros((len(numbers), 4, 3, 1), np.uint8)
    images[:, 0, 0, 0] = numbers
    return images


def test_where_pictures_lie_in_three_clouds_a_mixture_gains_what_it_can(monkeypatch):
    model = small_model()
    latents = three_clouds(250, seed=0)[0]
    put_posteriors(monkeypatch, model, latents)
    parts = {
        "train": numbered(np.arange(150)),
        "validation": numbered(np.arange(150, 200)),
        "test": numbered(np.arange(200, 250)),
    }
    fitted = fit_density(model, **parts, num_components=(1, 2, 3, 5, 8))
    assert len(fitted.mixture) >= 3
    assert len(fitted.gaussian) == 1
    # An independent way to the same numbers: fresh draws around the test pictures' means.
    rng = np.random.default_rng(9)
    z = latents[200:].repeat(200, axis=0)
    z = z + math.exp(-1.5) * rng.normal(size=z.shape)
    prior = stats.norm.logpdf(z).sum(1).mean()
    assert fitted.log_density["prior"] == pytest.approx(prior, abs=0.2)
    wanted = fitted.mixture.log_density(z).mean() - prior
    gain = fitted.gain["mixture"]
    assert gain.value == pytest.approx(wanted, abs=0.3)
    assert gain.low < gain.value < gain.high
    assert gain.value > fitted.gain["gaussian"].high
    # Ten draws a picture do not make it ten pictures: 50 of them, not 500, are in the interval.
    latents_apart = stats.norm.logpdf(latents[200:]).sum(1).std() / math.sqrt(50)
    assert (gain.high - gain.low) / 3.92 == pytest.approx(latents_apart, rel=0.4)
    assert gain.value == pytest.approx(
        fitted.log_density["mixture"] - fitted.log_density["prior"], abs=1e-6
    )


def test_a_unit_that_says_nothing_keeps_the_prior_s_spread(monkeypatch):
    model = small_model()
    put_posteriors(monkeypatch, model, np.zeros((60, 2)), log_variance=0.0)
    parts = {name: numbered(np.arange(60)) for name in ("train", "validation", "test")}
    fitted = fit_density(model, **parts, num_components=(1,))
    # Draws of q(z|x) are those of the prior; of the means there would be a spike left.
    covariance = fitted.gaussian.factors[0] @ fitted.gaussian.factors[0].T
    np.testing.assert_allclose(covariance, np.eye(2), atol=0.2)
    assert abs(fitted.gain["gaussian"].value) < 0.05


def test_the_prior_may_be_any(monkeypatch):
    class Shifted(StandardNormal):
        def log_density(self, z):
            return super().log_density(z - 2.0)

        def kl_per_unit(self, mean, log_variance):
            return None

    model = small_model()
    model.prior = Shifted()
    put_posteriors(monkeypatch, model, np.full((60, 2), 2.0), log_variance=0.0)
    parts = {name: numbered(np.arange(60)) for name in ("train", "validation", "test")}
    fitted = fit_density(model, **parts, num_components=(1,))
    assert abs(fitted.gain["gaussian"].value) < 0.05


def test_conditional_models_take_labels():
    model = small_model(conditional=True)
    parts = {
        name: (some_images(30, seed=i), np.arange(30) % 2)
        for i, name in enumerate(("train", "validation", "test"))
    }
    fitted = fit_density(model, **parts, num_components=(1, 2))
    labels = np.array([0, 1, 1])
    drawn = fitted.mixture.decode(model, 3, labels=labels, seed=4)
    z = fitted.mixture.sample(3, seed=4)
    np.testing.assert_allclose(drawn, model.decode(z, labels), rtol=1e-6)


@pytest.mark.parametrize("inference", ["top_down", "bottom_up"])
def test_latents_of_two_layers_are_drawn_together(inference):
    model = small_model(second_latent_dim=3, inference=inference)
    parts = {n: some_images(40, seed=i) for i, n in enumerate(("train", "validation", "test"))}
    fitted = fit_density(model, **parts, num_components=(1,))
    assert fitted.mixture.latent_dim == 5
    assert fitted.mixture.decode(model, 2).shape == (2, 4, 3, 1)


def test_no_number_of_components_is_refused():
    images = some_images(20)
    with pytest.raises(ValueError, match=r"num_components=\(\)"):
        fit_density(small_model(), train=images, validation=images, test=images, num_components=())


# --- kept


def test_what_is_kept_is_read_again_to_the_bit(tmp_path):
    run, model = Run.create(tmp_path / "run"), small_model()
    assert read_density(run, FittedDensity) is None
    parts = {n: some_images(40, seed=i) for i, n in enumerate(("train", "validation", "test"))}
    fitted = fit_density(model, **parts, num_components=(1, 2))
    keep_density(run, fitted)
    found = read_density(run, FittedDensity)
    assert isinstance(found, FittedDensity)
    assert (found.chosen_by, found.log_density, found.gain) == (
        fitted.chosen_by, fitted.log_density, fitted.gain,
    )  # fmt: skip
    for name in ("gaussian", "mixture"):
        again, before = (each.density(name).sample(5, seed=1) for each in (found, fitted))
        np.testing.assert_array_equal(again, before)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"x" * 100])
def test_a_damaged_file_is_a_sentence(tmp_path, content):
    run = Run.create(tmp_path / "run")
    (run.path / "density.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"density\.npz is damaged .*sample again"):
        read_density(run, FittedDensity)


def test_a_new_run_in_its_place_does_not_keep_it(tmp_path):
    run = Run.create(tmp_path / "run")
    (run.path / "density.npz").write_bytes(b"old")
    Run.create(tmp_path / "run", overwrite=True)
    assert read_density(run, FittedDensity) is None


# --- flows


def bent_cloud(num, *, seed):
    """Draws of a banana, (a, b + a^2), and its density: the bend changes no volume."""
    a, b = np.random.default_rng(seed).normal(size=(2, num))
    b = 0.3 * b
    return np.stack([5 + a, b + a**2], axis=1), stats.norm.logpdf(a) + stats.norm.logpdf(b, 0, 0.3)


def new_flow(latent_dim=2):
    flow = Flow(4, 16, seed=1)
    flow.connect_units(latent_dim)
    return flow


def test_a_flow_learns_a_bend_that_no_gaussian_has():
    rounds = (bent_cloud(2000, seed=i)[0] for i in range(2, 32))
    held_out, known = bent_cloud(2000, seed=0)
    found = learn(new_flow(), rounds, held_out=held_out)
    z, known = bent_cloud(4000, seed=1)
    gap = known.mean() - found.log_density(z).mean()  # the divergence from the true one
    one = known.mean() - fit_mixture(bent_cloud(4000, seed=2)[0], 1).log_density(z).mean()
    assert -0.02 < gap < 0.25 < 0.5 < one
    drawn = found.sample(4000, seed=3)
    np.testing.assert_allclose(drawn.mean(0), [5, 1], atol=0.3)
    assert np.mean(np.abs(drawn[:, 1] - (drawn[:, 0] - 5) ** 2) < 1) > 0.8


def test_the_density_of_a_flow_is_one_of_latents():
    """Its integral over the plane is 1, whatever the shift, the scale and the weights."""
    flow = new_flow()
    rng = np.random.default_rng(0)
    flow.set_weights([0.5 * rng.normal(size=w.shape) for w in flow.weights])
    found = learn(flow, iter([bent_cloud(50, seed=0)[0]]), held_out=np.zeros((1, 2)))
    places = np.linspace(-40, 60, 501)
    grid = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    assert np.exp(found.log_density(grid)).sum() * 0.2**2 == pytest.approx(1, abs=0.02)


def test_the_weights_that_held_out_latents_like_best_are_kept():
    """Neither the first nor the last ones: what is learned from moves away after six rounds."""
    flow, held_out = new_flow(), bent_cloud(1000, seed=0)[0]
    seen, worth = [flow.get_weights()], []

    def rounds():
        for number in range(9):
            yield bent_cloud(2000, seed=number + 1)[0] + 9 * (number >= 6)
            seen.append(flow.get_weights())  # as this round has left them

    found = learn(flow, rounds(), held_out=held_out)
    kept = found.log_density(held_out).mean()
    for weights in seen:
        flow.set_weights(weights)
        worth.append(found.log_density(held_out).mean())
    assert len(worth) == 10
    assert 0 < np.argmax(worth) < 9
    assert worth[-1] < max(worth) - 1e-3
    assert kept == pytest.approx(max(worth), abs=1e-6)


@pytest.mark.parametrize("settings", [{}, {"second_latent_dim": 3}, {"conditional": True}])
def test_a_flow_of_a_model_is_kept_and_decoded(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("safelight.vae.fitted_flows._ROUNDS", 2)
    model, run = small_model(**settings), Run.create(tmp_path / "run")
    assert read_density(run, FittedFlow) is None
    parts = {n: some_images(40, seed=i) for i, n in enumerate(("train", "validation", "test"))}
    if "conditional" in settings:
        parts = {name: (images, np.arange(40) % 2) for name, images in parts.items()}
    fitted = fit_flow(model, **parts)
    assert fitted.gain.value == pytest.approx(
        fitted.log_density["flow"] - fitted.log_density["prior"], abs=1e-6
    )
    keep_density(run, fitted)
    found = read_density(run, FittedFlow)
    assert isinstance(found, FittedFlow)
    assert (found.gain, found.log_density) == (fitted.gain, fitted.log_density)
    z = fitted.density.sample(6, seed=4)
    np.testing.assert_array_equal(found.density.sample(6, seed=4), z)
    np.testing.assert_array_equal(found.density.log_density(z), fitted.density.log_density(z))
    labels = np.arange(6) % 2 if "conditional" in settings else None
    drawn = found.density.decode(model, 6, labels=labels, seed=4)
    np.testing.assert_allclose(drawn, model.decode(z, labels), rtol=1e-6)


@pytest.mark.one_backend
def test_a_flow_gains_over_the_prior_where_pictures_lie_elsewhere(monkeypatch):
    model = small_model()
    put_posteriors(monkeypatch, model, bent_cloud(250, seed=0)[0], log_variance=-3.0)
    numbers = {"train": (0, 150), "validation": (150, 200), "test": (200, 250)}
    parts = {name: numbered(np.arange(*ends)) for name, ends in numbers.items()}
    monkeypatch.setattr("safelight.vae.fitted_flows._ROUNDS", 15)
    flow, others = fit_flow(model, **parts), fit_density(model, **parts, num_components=(1,))
    # The same latents judge both, so that they can be compared.
    assert flow.log_density["prior"] == pytest.approx(others.log_density["prior"], rel=1e-6)
    assert flow.log_density["flow"] > others.log_density["gaussian"] + 0.1


def test_a_fit_ends_when_held_out_latents_like_nothing_better():
    asked = []

    def rounds():
        for number in range(60):
            asked.append(number)
            yield np.random.default_rng(number).normal(size=(250, 2))

    # What is learned from moves away after the first round.
    moving = (z + 5 * number for number, z in enumerate(rounds()))
    learn(new_flow(), moving, held_out=np.random.default_rng(99).normal(size=(500, 2)))
    assert 10 <= len(asked) <= 13


def test_one_unit_is_too_few_for_a_flow():
    images = some_images(20)
    with pytest.raises(ValueError, match="flow of 1 latent unit"):
        fit_flow(small_model(latent_dim=1), train=images, validation=images, test=images)


@pytest.fixture(scope="module")
def kept_flow(tmp_path_factory):
    """A run folder with a flow in it."""
    run, images = Run.create(tmp_path_factory.mktemp("kept") / "run"), some_images(20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safelight.vae.fitted_flows._ROUNDS", 1)
        flow = fit_flow(small_model(), train=images, validation=images, test=images)
    keep_density(run, flow)
    return run


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": np.array([99, 4])},
        {"sizes": np.array([64, 4096])},
        {"scale": np.zeros(2)},
        {"shift": np.zeros(10**6), "scale": np.ones(10**6)},
        {"weight_0": np.zeros((7, 7))},
    ],
)
def test_a_damaged_flow_is_a_sentence_before_anything_is_built(
    kept_flow, change, tmp_path, monkeypatch
):
    run = Run.create(tmp_path / "run")
    with np.load(kept_flow.path / "density_flow.npz") as archive:
        arrays = dict(archive)
    np.savez(run.path / "density_flow.npz", **{**arrays, **change})
    monkeypatch.delattr("safelight.vae.fitted_flows._new_flow")
    with pytest.raises(ValueError, match=r"density_flow\.npz is damaged .*sample again"):
        read_density(run, FittedFlow)
