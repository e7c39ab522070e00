import dataclasses
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from safelight.vae import building, likelihoods, models, networks, objectives, priors
from safelight.vae.config import TrainConfig

SHAPE, NUM_CLASSES = (6, 5, 1), 3
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (23, *SHAPE), np.uint8)
LABELS = RNG.integers(0, NUM_CLASSES, 23)
BACKEND = keras.backend.backend()


def numpy(values) -> np.ndarray:
    return ops.convert_to_numpy(values)


def build(image_shape=SHAPE, *, mean_picture=None, **settings) -> models.VAE:
    settings = {"latent_dim": 2, "hidden_units": (8,), **settings}
    num_classes = NUM_CLASSES if settings.get("conditional") else 0
    config = TrainConfig(**settings)
    return building.build_vae(
        image_shape, config, num_classes=num_classes, mean_picture=mean_picture
    )


def flat(terms: dict) -> dict:
    return {name: numpy(value).astype("float64") for name, value in terms.items()}


# What is trained for.


@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("conditional", [False, True])
def test_terms_are_what_encoder_decoder_and_formulas_give(num_samples, conditional):
    model = build(conditional=conditional, likelihood="gaussian")
    labels = LABELS[:3] if conditional else None
    x = model.prepare(IMAGES[:3])
    np.testing.assert_allclose(numpy(x), IMAGES[:3] / 255, rtol=1e-6)
    terms = model.terms(x, labels, num_samples, seed=5)
    shapes = {name: tuple(value.shape) for name, value in terms.items()}
    assert shapes == {
        "log_likelihood": (num_samples, 3),
        "log_weights": (num_samples, 3),
        "kl": (3,),
        "kl_per_unit": (3, 2),
        "mean": (3, 2),
        "log_variance": (3, 2),
    }
    mean, log_variance = model.encode(IMAGES[:3], labels)
    np.testing.assert_allclose(numpy(terms["mean"]), mean, atol=1e-6)
    np.testing.assert_allclose(numpy(terms["log_variance"]), log_variance, atol=1e-6)
    axis = None if num_samples == 1 else num_samples
    z = numpy(model.sampling((mean, log_variance), num_samples=axis, seed=5))
    for z_k, log_likelihood, log_weight in zip(
        z.reshape(num_samples, 3, 2), terms["log_likelihood"], terms["log_weights"], strict=True
    ):
        pictures = model.decode(z_k, labels)
        squares = ((IMAGES[:3] / 255 - pictures) / 0.1) ** 2 + np.log(2 * np.pi * 0.1**2)
        expected = -squares.sum((1, 2, 3)) / 2
        np.testing.assert_allclose(numpy(log_likelihood), expected, rtol=1e-4)
        log_ratio = -0.5 * (z_k**2 - (z_k - mean) ** 2 / np.exp(log_variance) - log_variance)
        np.testing.assert_allclose(numpy(log_weight), expected + log_ratio.sum(1), rtol=1e-4)
    closed = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    np.testing.assert_allclose(numpy(terms["kl_per_unit"]), closed, atol=1e-6)
    np.testing.assert_allclose(numpy(terms["kl"]), closed.sum(1), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "kl_weight"),
    [({}, 1.0), ({}, 0.25), ({"beta": 3.0}, 0.5), ({"beta": 2.0, "free_bits": 0.6}, 0.5)],
)
def test_the_loss_by_hand(settings, kl_weight):
    model = build(**settings)
    model.kl_weight.assign(kl_weight)
    terms = model.terms(model.prepare(IMAGES))
    loss, logs = model.objective(terms)
    t = flat(terms)
    floor = settings.get("free_bits", 0.0)
    assert floor == 0 or (t["kl_per_unit"].mean(0) < floor).any()
    punished = np.maximum(t["kl_per_unit"].mean(0), floor).sum()
    weight = settings.get("beta", 1.0) * kl_weight
    expected = -(t["log_likelihood"].mean() - weight * punished)
    assert float(numpy(loss)) == pytest.approx(expected, rel=1e-5)
    assert float(numpy(logs["reconstruction"])) == pytest.approx(
        t["log_likelihood"].mean(), rel=1e-5
    )
    assert float(numpy(logs["kl"])) == pytest.approx(t["kl"].mean(), rel=1e-5)
    expected = t["log_likelihood"].mean() - t["kl"].mean()
    assert float(numpy(logs["elbo"])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kl_weight", [1.0, 0.5])
def test_the_importance_weighted_loss_by_hand(kl_weight):
    model = build(num_samples=5)
    model.kl_weight.assign(kl_weight)
    terms = model.terms(model.prepare(IMAGES), num_samples=5)
    t = flat(terms)
    weights = t["log_likelihood"] + kl_weight * (t["log_weights"] - t["log_likelihood"])
    expected = -np.log(np.exp(weights).mean(0)).mean()
    loss, logs = model.objective(terms)
    assert float(numpy(loss)) == pytest.approx(expected, rel=1e-5)
    assert float(numpy(logs["elbo"])) == pytest.approx(t["log_likelihood"].mean() - t["kl"].mean())


def test_the_bound_of_one_draw_is_the_elbo_in_expectation():
    """On the model: closed KL and sampled KL have the same mean; more draws give a higher bound."""
    model = build()
    x = model.prepare(IMAGES[:4], seed=1)
    t = flat(model.terms(x, num_samples=4000, seed=2))
    sampled = t["log_likelihood"] - t["log_weights"]
    error = sampled.std(0) / np.sqrt(len(sampled))
    assert np.all(np.abs(sampled.mean(0) - t["kl"]) < 4.5 * error)
    bounds = []
    for k in (1, 8, 100):
        grouped = ops.convert_to_tensor(t["log_weights"].reshape(-1, k, 4).astype("float32"))
        bounds.append(numpy(objectives.importance_weighted_bound(grouped, axis=1)).mean())
    assert all(lower < higher for lower, higher in itertools.pairwise(bounds))


def test_twice_the_picture_has_twice_the_reconstruction():
    """Through the model: an average over pixels would stay as it was."""
    narrow, wide = build((6, 5, 1)), build((6, 10, 1))
    for model in (narrow, wide):
        model.decoder.set_weights([np.zeros_like(w) for w in model.decoder.get_weights()])
    once = narrow.elbo(IMAGES)["reconstruction"]
    twice = wide.elbo(np.concatenate([IMAGES, IMAGES], 2))["reconstruction"]
    np.testing.assert_allclose(once, -30 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)


def test_dynamic_binarisation_draws_anew_with_the_grey_value_as_probability():
    model = build((40, 50, 1))
    images = np.repeat(np.array([0, 51, 255], np.uint8), 2000).reshape(3, 40, 50, 1)
    first, second = (numpy(model.prepare(images)) for _ in range(2))
    assert set(np.unique(first)) == {0.0, 1.0}
    assert first[0].max() == 0
    assert first[2].min() == 1
    assert first[1].mean() == pytest.approx(0.2, abs=4.5 * (0.16 / 2000) ** 0.5)
    assert np.any(first != second)
    again = [numpy(model.prepare(images, seed=7)) for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_a_prior_without_closed_form_takes_the_draw():
    class Open(priors.StandardNormal):
        def kl_per_unit(self, mean, log_variance):
            return None

    model = build()
    opened = models.VAE(model.encoder, model.decoder, prior=Open())
    x = model.prepare(IMAGES[:4], seed=1)
    closed, sampled = (m.terms(x, num_samples=3000, seed=2) for m in (model, opened))
    assert sampled["kl_per_unit"] is None
    np.testing.assert_allclose(numpy(sampled["kl"]), numpy(closed["kl"]), atol=0.1)
    with pytest.raises(ValueError, match=r"free_bits=0\.5 with a prior"):
        models.VAE(model.encoder, model.decoder, prior=Open(), free_bits=0.5)


def compiled_step(model):
    """(loss, seed states after it) of one step, as a user's own compiled loop would take it."""
    states = [generator.state for generator in model.seed_generators]

    def step(images):
        loss, _ = model.objective(model.terms(model.prepare(images), None, model.num_samples))
        return loss

    if BACKEND == "tensorflow":
        import tensorflow as tf

        return lambda images: (
            tf.function(step, jit_compile=True)(images),
            [state.value for state in states],
        )
    if BACKEND == "jax":
        import jax

        def stateless(images, values, seeds):
            mapping = [*zip(model.variables, values, strict=True), *zip(states, seeds, strict=True)]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                loss = step(images)
            return loss, [scope.get_current_value(state) for state in states]

        return lambda images: jax.jit(stateless)(
            images, [v.value for v in model.variables], [state.value for state in states]
        )
    return lambda images: (step(images), [state.value for state in states])


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_a_step_can_be_compiled(num_samples, architecture):
    model = build(num_samples=num_samples, architecture=architecture)
    before = [numpy(generator.state).copy() for generator in model.seed_generators]
    images = ops.convert_to_tensor(np.zeros((4, *SHAPE), np.uint8))  # no chance in the pixels
    loss, after = compiled_step(model)(images)
    assert np.isfinite(float(numpy(loss)))
    for old, new in zip(before, after, strict=True):
        assert np.any(old != numpy(new))


def test_all_randomness_is_in_variables_of_the_model():
    model = build()
    assert all(
        any(generator.state is variable for variable in model.variables)
        for generator in model.seed_generators
    )
    start = [numpy(generator.state).copy() for generator in model.seed_generators]
    losses = []
    for _ in range(2):
        for generator, state in zip(model.seed_generators, start, strict=True):
            generator.state.assign(state)
        losses.append(float(numpy(model.objective(model(IMAGES))[0])))
    assert losses[0] == losses[1]
    assert losses[0] != float(numpy(model.objective(model(IMAGES))[0]))


def test_bfloat16_products_leave_sums_and_answers_in_float32():
    model = build(precision="bfloat16")
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    terms = model(IMAGES)
    assert {keras.backend.standardize_dtype(value.dtype) for value in terms.values()} == {"float32"}
    exact = build(precision="float32")
    exact.set_weights(model.get_weights())
    np.testing.assert_allclose(model.elbo(IMAGES)["elbo"], exact.elbo(IMAGES)["elbo"], rtol=0.02)


# Plain fit.


@pytest.mark.parametrize(
    "settings",
    [
        {"likelihood": "bernoulli"},
        {"likelihood": "discretized_logistic", "num_samples": 3, "conditional": True},
    ],
)
def test_fit_lowers_the_loss_and_evaluate_agrees_with_elbo(settings):
    model = build(**settings)
    images = np.repeat(np.where(IMAGES[:2] > 127, 255, 0).astype(np.uint8), 20, axis=0)
    labels = np.repeat([0, 2], 20)
    data = (images, labels) if settings.get("conditional") else images
    model.compile(keras.optimizers.Adam(0.02))
    history = model.fit(data, epochs=12, batch_size=16, verbose=0).history
    assert set(history) == {"loss", "elbo", "reconstruction", "kl"}
    assert np.mean(history["loss"][-2:]) < history["loss"][0] - 1
    np.testing.assert_allclose(
        history["elbo"], np.subtract(history["reconstruction"], history["kl"]), rtol=1e-4
    )
    found = model.evaluate(data, batch_size=16, verbose=0, return_dict=True)
    own = model.elbo(images, labels if settings.get("conditional") else None, seed=1)
    error = own["elbo"].std() / np.sqrt(40) + 0.01
    assert abs(found["elbo"] - own["elbo"].mean()) < 6 * error
    assert found["kl"] == pytest.approx(own["kl"].mean(), rel=1e-3)
    if "num_samples" not in settings:
        assert found["loss"] == pytest.approx(-found["elbo"], rel=1e-5)


def test_targets_are_refused():
    model = build()
    model.compile("adam", run_eagerly=True)
    with pytest.raises(ValueError, match=r"expected fit\(images\)"):
        model.fit(IMAGES, IMAGES, verbose=0)


# What it is used for.


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("image_shape", [SHAPE, (7, 4, 3)])
def test_the_numpy_face(image_shape, conditional):
    model = build(image_shape, conditional=conditional)
    images = RNG.integers(0, 256, (5, *image_shape), np.uint8)
    labels = [0, 2, 1, 1, 0] if conditional else None
    mean, log_variance = model.encode(images, labels)
    assert mean.shape == log_variance.shape == (5, 2)
    np.testing.assert_allclose(mean, model.encode(images, labels, batch_size=2)[0], atol=1e-6)
    pictures = model.decode(mean, labels)
    assert pictures.shape == images.shape
    assert pictures.dtype == np.float32
    assert 0 <= pictures.min() <= pictures.max() <= 1
    np.testing.assert_array_equal(pictures, model.reconstruct(images, labels))
    first, again, other = (model.sample(5, labels=labels, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    cold = model.sample(5, labels=labels, temperature=0)
    np.testing.assert_allclose(cold, model.decode(np.zeros((5, 2)), labels), atol=1e-6)
    found = model.elbo(images, labels, seed=3)
    assert {value.shape for value in found.values()} == {(5,)}
    np.testing.assert_array_equal(found["elbo"], found["reconstruction"] - found["kl"])
    np.testing.assert_array_equal(found["elbo"], model.elbo(images, labels, seed=3)["elbo"])


def test_elbo_leaves_the_noise_of_training_alone():
    model = build()
    before = [numpy(generator.state).copy() for generator in model.seed_generators]
    model.elbo(IMAGES)
    model.sample(2)
    after = [numpy(generator.state) for generator in model.seed_generators]
    np.testing.assert_array_equal(before, after)


def test_labels_change_what_is_said():
    model = build(conditional=True)
    same = np.repeat(IMAGES[:1], 3, axis=0)
    assert np.ptp(model.encode(same, [0, 1, 2])[0], axis=0).min() > 0
    assert np.ptp(model.decode(np.zeros((3, 2)), [0, 1, 2]), axis=0).min() > 0


@pytest.mark.parametrize("num_samples", [1, 3])
def test_each_row_of_a_batch_has_its_own_label(num_samples):
    model = build(conditional=True, likelihood="gaussian")
    both = flat(model.terms(model.prepare(IMAGES[:4]), LABELS[:4], num_samples, seed=1))
    swapped = LABELS[:4].copy()
    swapped[2] = (swapped[2] + 1) % NUM_CLASSES
    found = flat(model.terms(model.prepare(IMAGES[:4]), swapped, num_samples, seed=1))
    same = np.all(both["log_weights"] == found["log_weights"], axis=0)
    np.testing.assert_array_equal(same, [True, True, False, True])


@pytest.mark.parametrize("likelihood", likelihoods.LIKELIHOODS)
def test_a_new_model_starts_at_the_mean_picture(likelihood):
    picture = np.linspace(0.03, 0.97, 30).reshape(SHAPE)
    model = build(likelihood=likelihood, mean_picture=picture)
    pixels = model.decoder.get_layer("pixels")
    pixels.set_weights([np.zeros_like(w) for w in pixels.get_weights()])
    np.testing.assert_allclose(model.sample(3), np.stack([picture] * 3), atol=1e-5)


def test_one_seed_gives_one_model():
    first, again, other = (build(seed=seed) for seed in (1, 1, 2))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(numpy(first.prepare(IMAGES)), numpy(again.prepare(IMAGES)))
    assert np.any(first.encode(IMAGES)[0] != other.encode(IMAGES)[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": "conv", "hidden_units": (3, 4), "conditional": True},
        {"likelihood": "learned_gaussian", "num_samples": 2},
        {"beta": 4.0, "free_bits": 0.1, "precision": "bfloat16"},
    ],
)
def test_a_saved_model_loads_in_safe_mode_and_answers_alike(tmp_path, settings):
    model = build(**settings)
    labels = LABELS if settings.get("conditional") else None
    for variable in model.trainable_variables:
        variable.assign(variable + 0.01)
    model.kl_weight.assign(0.5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(loaded) is models.VAE
    networks = {"encoder", "decoder"}
    kept, found = (
        {name: value for name, value in m.get_config().items() if name not in networks}
        for m in (model, loaded)
    )
    assert found == kept
    for kept, found in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(numpy(kept), numpy(found))
    for kept, found in zip(
        model.encode(IMAGES, labels), loaded.encode(IMAGES, labels), strict=True
    ):
        np.testing.assert_array_equal(kept, found)
    np.testing.assert_array_equal(
        model.elbo(IMAGES, labels)["elbo"], loaded.elbo(IMAGES, labels)["elbo"]
    )


def test_auto_suits_the_number_of_channels():
    grey, colour = build((4, 4, 1)), build((4, 4, 3))
    assert (grey.likelihood.name, grey.binarization) == ("bernoulli", "dynamic")
    assert (colour.likelihood.name, colour.binarization) == ("discretized_logistic", "none")
    assert build(likelihood="bernoulli", binarization="static").binarization == "none"
    # Grey values that are kept have no probability under a Bernoulli.
    kept = build((4, 4, 1), binarization="none")
    assert (kept.likelihood.name, kept.binarization) == ("discretized_logistic", "none")
    drawn = build((4, 4, 3), binarization="static")
    assert (drawn.likelihood.name, drawn.binarization) == ("bernoulli", "none")
    assert grey.log_scale is None
    assert colour.log_scale.trainable
    assert not build(likelihood="gaussian").log_scale.trainable


# What is refused.


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES / 255, "dtype float64 .*expected uint8.*Scale values"),
        (IMAGES[..., 0], r"shape \(23, 6, 5\): expected uint8"),
        (IMAGES[:, :5], r"\('num_images', 6, 5, 1\)"),
        (IMAGES[:0], "no rows"),
    ],
)
@pytest.mark.parametrize("method", ["encode", "reconstruct", "elbo"])
def test_other_images_are_refused(method, images, message):
    with pytest.raises(ValueError, match=message):
        getattr(build(), method)(images)


def test_fit_refuses_other_images_too():
    model = build()
    model.compile("adam", run_eagerly=True)
    with pytest.raises(ValueError, match="expected uint8"):
        model.fit(IMAGES.astype("float32"), verbose=0)


@pytest.mark.parametrize(
    "labels", [LABELS[:5], LABELS / 2, LABELS - 1, LABELS + 1, np.eye(3)[LABELS]]
)
def test_other_labels_are_refused(labels):
    with pytest.raises(ValueError, match="expected 23 integers from 0 to 2"):
        build(conditional=True).encode(IMAGES, labels)


def test_missing_and_surplus_labels_are_refused():
    conditional, plain = build(conditional=True), build()
    for call in (conditional.encode, conditional.elbo, conditional):
        with pytest.raises(ValueError, match=r"labels are missing.*0 to 2"):
            call(IMAGES)
    with pytest.raises(ValueError, match="labels are missing"):
        conditional.sample(4)
    for call in (plain.encode, plain.elbo, plain.reconstruct):
        with pytest.raises(ValueError, match="unconditional"):
            call(IMAGES, LABELS)
    with pytest.raises(ValueError, match="unconditional"):
        plain((IMAGES, LABELS))


def test_latents_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 3\): expected \(num, 2\)"):
        build().decode(np.zeros((4, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 2, "beta": 0.5}, "no KL term"),
        ({"num_samples": 2, "free_bits": 0.5}, "no KL term"),
        ({"num_samples": 0}, "at least 1 sample"),
        ({"beta": -1.0}, "no negative"),
        ({"likelihood": "poisson"}, "'poisson': expected one of bernoulli"),
        ({"likelihood": "gaussian", "binarization": "dynamic"}, "need likelihood='bernoulli'"),
        ({"binarization": "static"}, "expected 'dynamic', 'none' or None"),
        ({"betta": 1.0}, "betta"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    model = build()
    with pytest.raises((ValueError, TypeError), match=message):
        models.VAE(model.encoder, model.decoder, **options)


def test_networks_that_do_not_fit_are_refused():
    shape, size = (4, 4, 1), {"hidden_units": (3,)}
    encoder = networks.build_encoder(shape, 2, **size)
    others = {
        "latents": networks.build_decoder(shape, 3, **size),
        "pictures": networks.build_decoder((4, 5, 1), 2, **size),
        "labels": networks.build_decoder(shape, 2, num_classes=3, **size),
    }
    for what, decoder in others.items():
        with pytest.raises(ValueError, match=f"do not agree on the {what}"):
            models.VAE(encoder, decoder)


def test_impossible_configurations_are_refused():
    config = TrainConfig(conditional=True)
    with pytest.raises(ValueError, match="expected the number of labels"):
        building.build_vae(SHAPE, config)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        build(mean_picture=IMAGES.mean(0))
    assert dataclasses.is_dataclass(config)
