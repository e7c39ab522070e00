import dataclasses
import functools
import json
import types

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from safelight import runs
from safelight.metrics import mean_intervals
from safelight.transfer.backbones import dtype_policy
from safelight.vae import networks, objectives, weighing
from safelight.vae.building import build_vae
from safelight.vae.config import TrainConfig
from safelight.vae.estimates import draw_pixels, estimate_log_likelihood
from safelight.vae.evaluation import active_units, evaluate, posterior_means
from safelight.vae.importance_weights import (
    DenseDecoder,
    PlainWeights,
    fast_bernoulli_log_likelihood,
    standard_normal,
)
from safelight.vae.models import VAE
from safelight.vae.probes import choose, probe

SHAPE = (3, 2, 1)
SCALE = 0.1  # of the likelihood "gaussian"
KERNEL = np.array(  # two columns, nearly orthogonal, so that the posterior is nearly diagonal
    [[0.08, 0.05], [0.09, -0.06], [0.07, 0.06], [0.08, -0.07], [0.09, 0.05], [0.06, -0.04]]
)
POSTERIOR = np.linalg.inv(np.eye(2) + KERNEL.T @ KERNEL / SCALE**2)


@functools.cache
def linear_gaussian() -> VAE:
    """x = 1/2 + KERNEL z + noise, with a proposal near the true posterior but not on it."""
    images = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(images)
    heads = [keras.layers.Dense(2), keras.layers.Dense(2)]
    encoder = keras.Model(images, [head(flat) for head in heads])
    exact = KERNEL @ POSTERIOR.T / SCALE**2
    heads[0].set_weights([exact, -exact.sum(0) / 2 + 0.1])
    heads[1].set_weights([np.zeros((6, 2)), np.log(1.3 * np.diag(POSTERIOR))])
    z = keras.Input((2,))
    dense = keras.layers.Dense(6)
    # The library's location is what a sigmoid makes the mean of.
    mean = ops.clip(dense(z), 1e-4, 1 - 1e-4)
    location = keras.layers.Reshape(SHAPE)(ops.log(mean) - ops.log1p(-mean))
    decoder = keras.Model(z, location)
    dense.set_weights([KERNEL.T, np.full(6, 0.5)])
    return VAE(encoder, decoder, likelihood="gaussian")


def linear_gaussian_images(num_images: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    x = 0.5 + rng.normal(size=(num_images, 2)) @ KERNEL.T + SCALE * rng.normal(size=(num_images, 6))
    return np.round(255 * np.clip(x, 0, 1)).astype("uint8").reshape(-1, *SHAPE)


def exact_log_likelihood(images: np.ndarray) -> np.ndarray:
    marginal = stats.multivariate_normal(np.full(6, 0.5), KERNEL @ KERNEL.T + SCALE**2 * np.eye(6))
    return marginal.logpdf(images.reshape(-1, 6) / 255)


def random_images(num_images: int, shape: tuple[int, ...] = (5, 3, 1)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (num_images, *shape), dtype="uint8")


@functools.cache
def small_vae(shape=(5, 3, 1), num_classes=0, **settings) -> VAE:
    config = TrainConfig(latent_dim=3, **{"hidden_units": (8,), "precision": "float32", **settings})
    model = build_vae(shape, config, num_classes=num_classes)
    # Weights large enough for pictures to differ and logits to be far from 0.
    for weight in model.trainable_weights:
        weight.assign(3 * weight)
    return model


# log p(x).


def test_the_estimate_meets_the_exact_marginal_of_a_linear_gaussian_vae():
    images = linear_gaussian_images(24)
    found = estimate_log_likelihood(linear_gaussian(), images, num_importance_samples=40_000)
    exact = exact_log_likelihood(images)
    assert abs(found.mean - exact.mean()) < 0.002
    np.testing.assert_allclose(found.values, exact, atol=0.02)
    assert found.mean == pytest.approx(found.values.mean())
    assert found.standard_error == pytest.approx(stats.sem(found.values))
    assert 0.3 * 40_000 < found.effective_sample_size < 40_000
    assert found.images_per_second == pytest.approx(24 / found.seconds)
    assert "40,000 importance samples from q(z|x)" in found.protocol
    assert "(a density)" in found.protocol
    assert "24 images" in found.protocol


def test_the_monte_carlo_error_is_what_other_samples_change():
    # Copies of one image have noise of their own each, so they show the spread over samples.
    images = np.repeat(linear_gaussian_images(1), 1500, axis=0)
    found = estimate_log_likelihood(linear_gaussian(), images, num_importance_samples=100)
    spread = found.values.std(ddof=1) / np.sqrt(1500)
    assert found.monte_carlo_error == pytest.approx(spread, rel=0.15)


def test_one_sample_gives_the_elbo_and_more_samples_a_higher_bound():
    model = linear_gaussian()
    images = np.repeat(linear_gaussian_images(20), 200, axis=0)
    elbo = model.elbo(images, seed=5)["elbo"]
    means = []
    for k in (1, 4, 30):
        found = estimate_log_likelihood(model, images, num_importance_samples=k, seed=k)
        means.append(found.values.reshape(20, 200).mean(1))
        if k == 1:
            assert np.isnan(found.monte_carlo_error)
            # Both routes have noise of their own around one bound.
            spreads = [x.reshape(20, 200).var(1).mean() for x in (found.values, elbo)]
            error = np.sqrt(sum(spreads) / 4000)
            assert abs(found.mean - elbo.mean()) < 4 * error < 0.15
    exact = exact_log_likelihood(linear_gaussian_images(20))
    for lower, higher in zip(means, [*means[1:], exact], strict=True):
        assert lower.mean() < higher.mean()
    assert means[0].mean() < exact.mean() - 0.05
    assert means[2].mean() > exact.mean() - 0.02


@pytest.mark.parametrize(
    "settings",
    [
        {"likelihood": "bernoulli"},
        {"likelihood": "discretized_logistic", "shape": (4, 5, 3)},
        {"likelihood": "learned_gaussian", "conditional": True, "num_classes": 4},
        {"architecture": "conv", "hidden_units": (4, 4), "likelihood": "continuous_bernoulli"},
    ],
    ids=lambda settings: settings["likelihood"],
)
def test_the_estimate_is_what_the_definition_gives(settings, monkeypatch, noise_of):
    model = small_vae(**settings)
    images, k = random_images(5, model.image_shape), 23
    labels = np.arange(5) % 4 if model.num_classes else None
    drawn = draw_pixels(model, images, seed=7)
    mean, log_variance = (np.repeat(part, k, axis=0) for part in model.encode(drawn, labels))
    noise = np.concatenate([noise_of(i, k, 3, seed=7) for i in range(5)])
    scale = np.exp(log_variance / 2)
    z = mean + scale * noise
    told = [] if labels is None else [np.eye(4, dtype="float32")[np.repeat(labels, k)]]
    x = ops.convert_to_tensor(np.repeat(drawn / np.float32(255), k, axis=0))
    location = model.decoder([z, *told] if told else z)
    log_weights = (
        ops.convert_to_numpy(model.likelihood.log_likelihood(x, location, model.log_scale))
        + stats.norm.logpdf(z).sum(1)
        - stats.norm.logpdf(z, mean, scale).sum(1)
    )
    expected = special.logsumexp(log_weights.reshape(5, k), axis=1) - np.log(k)
    for rows in (4, 50):
        monkeypatch.setattr(weighing, "_cached_rows", lambda _, rows=rows: rows)
        found = estimate_log_likelihood(
            model, images, labels=labels, num_importance_samples=k, seed=7
        )
        np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-4)
        assert found.approximation_error == 0


def test_blocks_of_any_size_give_the_same_and_none_is_larger(monkeypatch):
    model, images, sizes = small_vae(), random_images(7), []
    weigh = PlainWeights.predict_on_batch

    def watched(self, inputs):
        sizes.append(np.prod(inputs[0].shape[:2]))
        return weigh(self, inputs)

    monkeypatch.setattr(PlainWeights, "predict_on_batch", watched)
    done = []
    estimate = functools.partial(estimate_log_likelihood, model, images, num_importance_samples=30)
    whole = estimate(progress=lambda *counts: done.append(counts))
    assert sizes == [7 * 30]
    assert done == [(7, 7)]
    for rows in (13, 64):
        sizes.clear()
        monkeypatch.setattr(weighing, "_cached_rows", lambda _, rows=rows: rows)
        np.testing.assert_allclose(estimate().values, whole.values, atol=1e-5)
        assert max(sizes) <= rows
    assert "dynamic binarisation (one draw, seed 0)" in whole.protocol


def test_a_gpu_is_given_more_at_once(monkeypatch):
    model, rows = small_vae(), []
    for accelerator in (None, "Some Card"):
        monkeypatch.setattr(weighing, "find_accelerator", lambda name=accelerator: name)
        rows.append(weighing._cached_rows(model))
    widest = max(np.prod(layer.output.shape[1:]) for layer in model.decoder.layers)
    assert 4 * widest * rows[0] <= 12 << 20 < 1 << 29 < 4 * widest * rows[1] <= 1 << 30


def test_noise_is_normal_and_never_infinite():
    bits = np.random.SFC64(0).random_raw(200_000).view("int32")
    noise = ops.convert_to_numpy(standard_normal(ops.convert_to_tensor(bits)))
    assert stats.kstest(noise, "norm").pvalue > 0.01
    np.testing.assert_allclose(stats.describe(noise)[2:6], [0, 1, 0, 0], atol=0.02)
    ends = np.array([-(2**31), -1, 0, 2**31 - 1], "int32")
    found = ops.convert_to_numpy(standard_normal(ops.convert_to_tensor(ends)))
    expected = special.ndtri(((ends >> 9) + 0.5) / 2**23 + 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert found[1] == -found[2] != 0


def confident_vae(num_classes: int = 0, **more) -> VAE:
    """Most pixels are black whatever z is, as around a digit; the others depend on it."""
    settings = {"latent_dim": 4, "hidden_units": (24, 20), "precision": "float32"}
    config = TrainConfig(conditional=num_classes > 0, **settings, **more)
    rng = np.random.default_rng(0)
    mean_picture = np.where(rng.random((9, 7, 1)) < 0.6, 0.0, 0.5)
    model = build_vae((9, 7, 1), config, num_classes=num_classes, mean_picture=mean_picture)
    pixels = model.decoder.get_layer("pixels")
    kernel = rng.normal(size=(24, 63)) * (mean_picture.reshape(-1) > 0)
    pixels.set_weights([kernel])
    model.decoder.get_layer("location").bias.assign(np.where(mean_picture > 0, 0.0, -14.0))
    return model


@pytest.mark.parametrize(
    ("num_classes", "settings"),
    [
        (0, {}),
        (3, {}),
        (3, {"second_latent_dim": 2}),
        (0, {"second_latent_dim": 3, "inference": "bottom_up"}),
    ],
)
def test_the_short_cut_agrees_with_every_pixel_of_every_sample(num_classes, settings, monkeypatch):
    model = confident_vae(num_classes, **settings)
    images = np.where(
        model.sample(30, labels=np.arange(30) % 3 if num_classes else None) > 0.5, 255, 0
    )
    images = images.astype("uint8")
    images[4, :, 0] = 255  # white where the model is certain of black
    labels = np.arange(30) % 3 if num_classes else None
    estimate = functools.partial(
        estimate_log_likelihood, model, images, labels=labels, num_importance_samples=600
    )
    plain, short = estimate(precision="float32"), estimate(precision="bfloat16")
    assert 0 < short.approximation_error < 0.05
    # Rounding moves each sample's log w by that much, an image's estimate by less, and their mean
    # not at all.
    gaps = short.values - plain.values
    assert np.abs(gaps).max() < 2 * short.approximation_error
    assert abs(gaps.mean()) < 4 * gaps.std(ddof=1) / len(gaps) ** 0.5
    assert "bfloat16" in short.protocol
    monkeypatch.setattr(weighing, "_BUCKET_ROWS", 4000)
    monkeypatch.setattr(weighing, "_CALL_ROWS", 700)
    monkeypatch.setattr(weighing, "_cached_rows", lambda _: 250)
    cut = estimate(precision="bfloat16")
    np.testing.assert_allclose(cut.values, plain.values, atol=2 * short.approximation_error)


def test_the_short_cut_takes_chains_of_dense_layers_only():
    assert DenseDecoder.find(confident_vae()).bias.shape == (63,)
    assert DenseDecoder.find(confident_vae(3)).kernel.shape == (63, 24)
    for settings in (
        {"likelihood": "continuous_bernoulli"},
        {"architecture": "conv", "hidden_units": (4, 4), "likelihood": "bernoulli"},
    ):
        assert DenseDecoder.find(small_vae(**settings)) is None
    with pytest.raises(ValueError, match="decoder of dense layers"):
        estimate_log_likelihood(small_vae(**settings), random_images(1), precision="bfloat16")
    with pytest.raises(ValueError, match="precision='double'"):
        estimate_log_likelihood(small_vae(), random_images(1), precision="double")


def test_a_chain_wired_otherwise_is_not_taken_for_one():
    model = confident_vae()
    z = keras.Input((4,))
    skipping = model.decoder.get_layer("hidden_0")(z)
    deeper = keras.layers.Dense(24, "tanh")(keras.layers.Concatenate()([z, skipping]))
    x = keras.layers.Dense(63, use_bias=False)(deeper)
    decoder = keras.Model(z, networks.PictureBias()(keras.layers.Reshape((9, 7, 1))(x)))
    assert DenseDecoder.find(VAE(model.encoder, decoder)) is None


@pytest.mark.parametrize("num_pixels", [1, 64, 67, 784])
def test_the_fast_bernoulli_is_the_plain_one(num_pixels):
    rng = np.random.default_rng(num_pixels)
    logits = rng.normal(size=(2, 50, num_pixels)) * np.array([1.0, 30.0])[:, None, None]
    logits[:, 0], logits[:, 1] = 80, -80
    logits[:, 2] = np.where(rng.random(num_pixels) < 0.5, 80, -80)
    logits[:, 3] = 0
    x = (rng.random((2, 1, num_pixels)) < 0.3).astype("float32")
    tensors = [ops.convert_to_tensor(array.astype("float32")) for array in (x, logits)]
    fast = fast_bernoulli_log_likelihood(*tensors)
    exact = (x * logits - np.logaddexp(0, logits)).sum(-1)
    np.testing.assert_allclose(ops.convert_to_numpy(fast), exact, rtol=2e-6, atol=2e-4)
    plain = objectives.bernoulli_log_likelihood(
        *(ops.reshape(tensor, (2, -1, num_pixels, 1, 1)) for tensor in tensors)
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(fast), ops.convert_to_numpy(plain), rtol=2e-6, atol=1e-3
    )


def test_a_model_whose_weights_are_gone_is_told_so():
    model = keras.models.clone_model(small_vae())
    model.decoder.weights[0].assign(np.nan * model.decoder.weights[0])
    with pytest.raises(ValueError, match="image 0 is not finite"):
        estimate_log_likelihood(model, random_images(2), num_importance_samples=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_importance_samples": 0}, "num_importance_samples=0"),
        ({"images": random_images(0)}, "0 images"),
        ({"labels": np.zeros(2, int)}, "labels"),
        ({"images": random_images(2) / 255}, "uint8"),
    ],
)
def test_impossible_estimates_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        estimate_log_likelihood(small_vae(), **{"images": random_images(2), **arguments})


# The report.


def test_the_report_s_numbers_belong_together():
    model, images = small_vae(), random_images(40)
    report = evaluate(model, images, num_importance_samples=200)
    for name in ("elbo", "reconstruction", "kl", "log_likelihood", "reconstruction_error"):
        interval = getattr(report, name)
        assert interval.low < interval.value < interval.high, name
    assert report.elbo.value == pytest.approx(report.reconstruction.value - report.kl.value)
    assert report.kl_per_unit.sum() == pytest.approx(report.kl.value, rel=1e-5)
    assert report.log_likelihood.value > report.elbo.value
    assert report.log_likelihood.value == pytest.approx(report.estimate.mean)
    half = (report.log_likelihood.high - report.log_likelihood.low) / 2
    assert half == pytest.approx(1.96 * report.estimate.standard_error, rel=0.2)
    errors = model.reconstruct(images) - images / 255
    assert report.reconstruction_error.value == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-5)
    drawn = draw_pixels(model, images)
    assert set(np.unique(drawn)) == {0, 255}
    assert report.elbo.value == pytest.approx(model.elbo(drawn, seed=0)["elbo"].mean())
    assert report.active_units == active_units(model.encode(drawn)[0]).sum()


def test_the_gap_is_between_log_likelihood_and_bound_of_the_same_images():
    model, images = small_vae(), random_images(40)
    report = evaluate(model, images, num_importance_samples=50, num_images=12)
    bound = report.log_likelihood.value - report.elbo.value
    assert report.gap.value == pytest.approx(bound, rel=1e-5)
    assert report.to_dict()["importance_sampling"]["num_images"] == 12
    whole = evaluate(model, images, num_importance_samples=50)
    bounds = model.elbo(draw_pixels(model, images), seed=0)["elbo"]
    apart = whole.estimate.values - bounds  # in pairs
    expected = mean_intervals({"gap": apart}, num_resamples=1000)["gap"]
    for end in ("value", "low", "high"):
        assert getattr(whole.gap, end) == pytest.approx(getattr(expected, end), rel=1e-4)


def test_the_report_is_written_as_json_with_what_was_left_out_as_null():
    report = evaluate(small_vae(), random_images(9), num_importance_samples=0, num_images=4)
    written = json.loads(runs.to_json(report))
    assert set(written) >= {
        *("elbo", "reconstruction", "kl", "log_likelihood", "standard_error"),
        *("num_importance_samples", "active_units", "num_images", "protocol"),
    }
    assert written["log_likelihood"] is None
    assert written["standard_error"] is None
    assert written["num_importance_samples"] == 0
    assert written["num_images"] == report.num_images == 4
    assert written["protocol"]["images"] == "4 of 9, drawn with seed 0"
    assert written["latent_dim"] == len(written["kl_per_unit"]) == 3
    with_estimate = evaluate(small_vae(), random_images(9), num_importance_samples=3).to_dict()
    assert with_estimate["num_importance_samples"] == 3
    assert with_estimate["standard_error"] > 0
    assert "3 importance samples" in with_estimate["protocol"]["log_likelihood"]
    assert with_estimate["importance_sampling"]["monte_carlo_error"] > 0


def test_the_protocol_says_where_a_bernoulli_has_no_likelihood():
    """Over black and white pictures its values sum to one; those of grey ones come on top."""
    model = small_vae(likelihood="bernoulli", binarization="none")
    grey, drawn = random_images(6), 255 * (random_images(6) // 128)
    for images, expected in (
        (grey, "grey pixels as they are, bernoulli (a cross entropy, no likelihood)"),
        (drawn, "black and white pixels as they are, bernoulli,"),
    ):
        protocol = evaluate(model, images, num_importance_samples=3).protocol
        assert expected in protocol["log_likelihood"]
        assert expected.rstrip(",") in protocol["elbo"]
    other = small_vae(likelihood="discretized_logistic")
    protocol = evaluate(other, grey, num_importance_samples=3).protocol
    assert "pixels as they are, discretized logistic, 6 images" in protocol["log_likelihood"]


def test_a_conditional_model_is_judged_with_labels_and_never_probed():
    model = small_vae(conditional=True, num_classes=4)
    part = random_images(8), np.arange(8) % 4
    report = evaluate(model, part, train=part, num_importance_samples=5)
    other = evaluate(model, (part[0], 3 - part[1]), num_importance_samples=5)
    assert report.log_likelihood.value != pytest.approx(other.log_likelihood.value, abs=1e-3)
    assert report.probes is None
    with pytest.raises(ValueError, match="conditional"):
        probe(model, part, part)
    with pytest.raises(ValueError, match="labels are missing"):
        evaluate(model, part[0], num_importance_samples=0)


def test_subsets_of_one_seed_lie_within_each_other():
    fewer, more = choose(100, 10, seed=4), choose(100, 30, seed=4)
    assert set(fewer) < set(more)
    assert not np.array_equal(fewer, choose(100, 10, seed=5))
    np.testing.assert_array_equal(choose(5, None), np.arange(5))
    with pytest.raises(ValueError, match="num_images=0"):
        choose(5, 0)


def test_active_units_are_those_whose_mean_varies():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(5000, 4)) * np.sqrt([1.0, 0.012, 0.008, 0.0])
    np.testing.assert_array_equal(active_units(means + 5), [True, True, False, False])


def test_the_noise_of_averages_activates_no_unit():
    """Means that do not vary, each known to .2: their variance would be .04."""
    first, second = 0.2 * np.random.default_rng(0).normal(size=(2, 5000, 3)) + [0.0, 1.0, 2.0]
    assert active_units(first).all()
    assert not active_units(first, second).any()
    varied = np.random.default_rng(1).normal(size=(5000, 1)) * 0.15
    assert active_units(first + varied, second + varied).all()


@pytest.mark.parametrize("inference", ["bottom_up", "top_down"])
def test_means_of_two_layers_are_those_of_their_draws(inference):
    """The mean of one layer at the mean of the other would be another one."""
    model, images = small_vae(second_latent_dim=2, inference=inference), random_images(4)
    found = posterior_means(model, model.encoded(images), seed=3)
    rng, num = np.random.default_rng(0), 4000
    rows = [np.repeat(each, num, axis=0) for each in model.encoded(images)]
    noise = rng.standard_normal((len(rows[0]), model.latent_dim), "float32")
    z = ops.convert_to_numpy(model.prior.propose(*rows, noise)[0]).reshape(4, num, -1)
    errors = z.std(1) * np.sqrt(1 / num + 1 / 16)
    for each in found:
        assert (np.abs(each - z.mean(1)) < 4 * errors).all()
    together, errors = np.mean(found, axis=0), z.std(1) * np.sqrt(1 / num + 1 / 32)
    assert np.square((together - z.mean(1)) / errors).mean() < 2
    at_the_mean = model.encode(images)[0]
    assert (np.abs(at_the_mean - z.mean(1)) > 6 * z.std(1) / np.sqrt(num)).any()
    assert not np.array_equal(*found)
    np.testing.assert_array_equal(posterior_means(model, model.encoded(images), seed=3), found)


def test_the_mean_of_one_layer_is_the_encoder_s():
    model, images = small_vae(), random_images(4)
    (found,) = posterior_means(model, model.encoded(images))
    np.testing.assert_array_equal(found, model.encode(images)[0])


# Probes.


@pytest.fixture(scope="module")
def two_dots() -> types.SimpleNamespace:
    """Pictures of class y are bright at pixel y, and the first latent mean is what tells which."""
    rng = np.random.default_rng(0)

    def part(num_images: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 2, num_images)
        images = rng.integers(0, 200, (num_images, 4, 4, 1), dtype="uint8")
        images.reshape(num_images, -1)[np.arange(num_images), labels] = 255
        images.reshape(num_images, -1)[np.arange(num_images), 1 - labels] = 0
        return images, labels

    def encode(images):
        flat = images.reshape(len(images), -1).astype("float32")
        return np.stack([flat[:, 0], 0 * flat[:, 1]], axis=1) / 255, None

    model = types.SimpleNamespace(num_classes=0, latent_dim=2, encode=encode)
    return types.SimpleNamespace(model=model, train=part(200), test=part(90))


def test_probes_read_what_is_there_and_guess_what_is_not(two_dots):
    report = probe(two_dots.model, two_dots.train, two_dots.test)
    for interval in (report.latent_linear, report.latent_neighbors):
        assert interval.value == 1
        # Wilson's interval for no error among n: n / (n + 1.96^2).
        assert interval.low == pytest.approx(90 / (90 + 1.959964**2))
    assert report.pca_linear.value > 0.9  # the dots are most of what varies
    assert (report.num_components, report.num_train, report.num_test) == (2, 200, 90)
    rng = np.random.default_rng(1)
    blind = types.SimpleNamespace(
        num_classes=0,
        latent_dim=2,
        encode=lambda images: (rng.normal(size=(len(images), 2)).astype("float32"), None),
    )
    for interval in dataclasses.astuple(probe(blind, two_dots.train, two_dots.test))[:2]:
        assert interval["value"] < 0.75 if isinstance(interval, dict) else interval[0] < 0.75


def test_probes_limit_what_they_fit_on_and_say_so(two_dots, monkeypatch):
    monkeypatch.setattr("safelight.vae.probes.MAX_IMAGES", 60)
    report = probe(two_dots.model, two_dots.train, two_dots.test, seed=2)
    assert (report.num_train, report.num_test) == (60, 60)
    assert "fitted on 60 training images, judged on 60 others" in report.protocol
    assert report.to_dict()["latent"]["linear"]["value"] == 1


@pytest.mark.parametrize("likelihood", ["discretized_logistic", "bernoulli"])
def test_keras_policy_changes_nothing_about_log_p_of_x(likelihood):
    """Sums are float32, and networks have the policy that they were built with."""
    shape = (6, 5, 3) if likelihood == "discretized_logistic" else (5, 3, 1)
    start = small_vae(shape, likelihood=likelihood).get_weights()
    images = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype("uint8")
    found = []
    for policy in ("float32", "mixed_bfloat16"):
        small_vae.cache_clear()  # a model keeps its compiled programs
        model = small_vae(shape, likelihood=likelihood)
        model.set_weights(start)
        with dtype_policy(policy):
            report = estimate_log_likelihood(
                model, images, num_importance_samples=50, precision="float32"
            )
        found.append(report.values)
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_probes_do_not_lose_a_rare_class_by_the_draw(two_dots, monkeypatch):
    monkeypatch.setattr("safelight.vae.probes.MAX_IMAGES", 4)
    images, labels = two_dots.train
    rare = np.zeros_like(labels)
    rare[-1] = 1
    for seed in range(4):
        kept = len(choose(len(rare), 4, seed=seed))
        report = probe(two_dots.model, (images, rare), two_dots.test, seed=seed)
        assert report.num_train in (kept, kept + 1)


def test_probes_refuse_what_teaches_nothing(two_dots):
    images, labels = two_dots.train
    with pytest.raises(ValueError, match="one label only"):
        probe(two_dots.model, (images, 0 * labels), two_dots.test)
    with pytest.raises(ValueError, match="200 images with 199 labels"):
        probe(two_dots.model, (images, labels[:-1]), two_dots.test)


def test_evaluate_probes_where_labels_are_known():
    images, labels = random_images(30), np.arange(30) % 3
    report = evaluate(
        small_vae(), (images, labels), train=(images, labels), num_importance_samples=0
    )
    assert report.probes.num_train == 30
    assert report.protocol["probes"] == report.probes.protocol
    assert json.loads(runs.to_json(report))["probes"]["pca"]["neighbors"]["value"] <= 1


# Walks through the latent space.


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_was_compiled_follows_the_weights_and_is_not_saved(precision, tmp_path):
    model = confident_vae()
    images = np.where(model.sample(6) > 0.5, 255, 0).astype("uint8")
    estimate = functools.partial(
        estimate_log_likelihood, images=images, num_importance_samples=600, precision=precision
    )
    first = estimate(model).values
    np.testing.assert_array_equal(estimate(model).values, first)
    bias = model.decoder.get_layer("location").bias
    bias.assign(bias + 0.5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    changed = estimate(model).values
    assert (np.abs(changed - first) > 0.01).all()
    np.testing.assert_allclose(changed, estimate(loaded).values, atol=1e-5)
