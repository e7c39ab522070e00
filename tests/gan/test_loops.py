"""The compiled game against the same sums by another route."""

import dataclasses

import numpy as np
import pytest
from keras import ops

from safelight.gan import networks
from safelight.gan.loops import EpochLoop, Rates, choose_batch_size
from safelight.gan.models import build_gan
from safelight.generative.noise import draw_normal, draw_uniform, next_states
from safelight.generative.schedules import average_decays, step_sizes


def make_rates(loop, config, rate=1e-3, critic=1e-3, first=0, num=None):
    num = loop.num_steps if num is None else num
    turns = config.discriminator_steps
    betas = (config.beta_1, config.beta_2)
    return Rates(
        step_sizes(np.full(num, rate), first, betas),
        step_sizes(np.full(num * turns, critic), first * turns, betas).reshape(num, turns),
        average_decays(config.weight_average, first, num),
    )


def build(config, images, *, spread=None, **options):
    """With `spread`, weights far from 0, so that a slope is far from 0 as well."""
    model = build_gan(images.shape[1:], config, num_classes=3)
    if spread is not None:
        rng = np.random.default_rng(7)
        for variable in model.trainable_variables:
            # Biases of 0 would put whole areas on the kink of leaky ReLU, which has no slope.
            moved = rng.normal(size=variable.shape).astype("float32") * spread
            variable.assign(moved + (1.0 if variable.path.endswith("gamma") else 0.0))
    labels = np.arange(len(images)) % 3 if config.conditional else None
    return model, EpochLoop(model, images, labels, config=config, **options)


def draws_of(loop, numpy, turn):
    """What the first round draws, by the same generators."""
    bits = {name: next_states(states) for name, states in loop._noise.items()}
    dim = loop._model.latent_dim
    return {
        "latents": numpy(draw_normal(bits["latents"], dim))[turn],
        "between": numpy(draw_uniform(bits["between"]))[turn],
    }


def softplus(x):
    return np.logaddexp(0, x)


def logits_of(model, config, pictures, labels, numpy):
    """Of one batch, as in training."""
    by_batch = config.chosen_normalization == "batch"
    return numpy(model.discriminate(pictures, labels, training=by_batch)[0]).astype("float64")


VARIANTS = [
    {},
    {"normalization": "spectral"},
    {"penalty": "r1", "penalty_weight": 2.0},
    {"loss": "hinge", "conditional": True},
    {"loss": "hinge", "conditional": True, "normalization": "spectral"},
    {"loss": "wasserstein"},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_the_discriminator_s_first_step_goes_down_its_loss(
    config, images, numpy, options, monkeypatch
):
    """Adam's average after one step is (1 - beta_1) times the gradient: against differences.

    With a smooth activation: slopes of one with a kink jump, and so does a penalty on them.
    """
    monkeypatch.setattr(networks, "leaky_relu", ops.tanh)
    config = dataclasses.replace(config, **options)
    model, loop = build(config, images, spread=0.3)
    loop.begin(0)
    rows, draws = numpy(loop._order)[0, 0], draws_of(loop, numpy, 0)
    labels = (np.arange(len(images)) % 3)[rows] if config.conditional else None
    fake = numpy(model.decode(draws["latents"], labels, training=True))
    real = images[rows].astype("float32") / 255
    variables = model.discriminator.trainable_variables
    start = [numpy(v).astype("float64") for v in variables]

    def loss(weights):
        for variable, weight in zip(variables, weights, strict=True):
            # By the singular value itself, where the loop has an iteration.
            if config.chosen_normalization == "spectral" and variable.path.endswith("kernel"):
                weight = weight / np.linalg.norm(weight.reshape(-1, weight.shape[-1]), 2)
            variable.assign(weight)
        r, f = (logits_of(model, config, x, labels, numpy) for x in (real, fake))
        values = {
            "non_saturating": softplus(-r).mean() + softplus(f).mean(),
            "hinge": np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean(),
            "wasserstein": f.mean() - r.mean(),
        }
        return values[config.loss] + penalty_by_differences(model, config, real, fake, draws, numpy)

    loop.run(make_rates(loop, config, num=1))
    state = loop.read()
    names = [n for n in state if n.startswith("discriminator/mean/")]
    found = [state[n].astype("float64") / (1 - config.beta_1) for n in names]
    rng = np.random.default_rng(0)
    direction = [rng.normal(size=w.shape) * (np.std(w) + 0.1) for w in start]
    step = 1e-3
    ends = [loss([w + s * d for w, d in zip(start, direction, strict=True)]) for s in (step, -step)]
    wanted = (ends[0] - ends[1]) / (2 * step)
    slope = sum((g * d).sum() for g, d in zip(found, direction, strict=True))
    assert slope == pytest.approx(wanted, rel=0.04, abs=2e-3)


def penalty_by_differences(model, config, real, fake, draws, numpy):
    """The penalty of the first quarter, its slopes by differences in every pixel."""
    if config.chosen_penalty == "none":
        return 0.0
    num = max(1, config.batch_size // 4)
    points = real[:num]
    if config.chosen_penalty == "gradient":
        shares = draws["between"].reshape(-1, 1, 1, 1)
        points = fake[:num] + shares * (real[:num] - fake[:num])
    pixels = int(np.prod(points.shape[1:]))
    steps = 1e-2 * np.eye(pixels, dtype="float32").reshape(pixels, 1, *points.shape[1:])
    squares = np.zeros(num)
    moved = [(points[None] + sign * steps).reshape(-1, *points.shape[1:]) for sign in (1, -1)]
    high, low = (numpy(model.discriminate(each)[0]).reshape(pixels, num) for each in moved)
    squares = (((high - low) / 4e-2) ** 2).sum(0)  # by pictures from -1 to 1
    if config.chosen_penalty == "r1":
        return config.penalty_weight * 0.5 * squares.mean()
    return 10 * ((np.sqrt(squares) - 1) ** 2).mean()


@pytest.mark.parametrize("normalization", ["batch", "spectral"])
@pytest.mark.parametrize("loss", ["non_saturating", "hinge"])
def test_the_generator_s_first_step_goes_down_its_loss(config, images, numpy, loss, normalization):
    """With a discriminator that does not move."""
    config = dataclasses.replace(config, loss=loss, normalization=normalization)
    model, loop = build(config, images, spread=0.3)
    loop.begin(0)
    draws = draws_of(loop, numpy, 1)
    variables = model.generator.trainable_variables
    start = [numpy(v).astype("float64") for v in variables]
    effective = loop.discriminator()
    for variable, value in zip(model.discriminator.trainable_variables, effective, strict=False):
        variable.assign(value)

    def value(weights):
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)
        drawn = model.decode(draws["latents"], training=True)
        logits = logits_of(model, config, drawn, None, numpy)
        return softplus(-logits).mean() if loss == "non_saturating" else -logits.mean()

    loop.run(make_rates(loop, config, critic=0.0, num=1))
    state = loop.read()
    found = [
        state[n].astype("float64") / (1 - config.beta_1)
        for n in state
        if n.startswith("generator/mean/")
    ]
    rng = np.random.default_rng(0)
    direction = [rng.normal(size=w.shape) * (np.std(w) + 0.1) for w in start]
    step = 1e-3
    ends = [
        value([w + s * d for w, d in zip(start, direction, strict=True)]) for s in (step, -step)
    ]
    slope = sum((g * d).sum() for g, d in zip(found, direction, strict=True))
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02, abs=2e-3)


def test_rounds_in_two_calls_are_those_of_one(config, images):
    config = dataclasses.replace(config, discriminator_steps=2)
    loops = [build(config, images, policy="all")[1] for _ in range(2)]
    for loop in loops:
        loop.begin(0)
    num = loops[0].num_steps
    assert num == 2
    loops[0].run(make_rates(loops[0], config))
    for i in range(num):
        loops[1].run(make_rates(loops[1], config, first=i, num=1))
    first, second = (loop.read() for loop in loops)
    assert list(first) == list(second)
    for name, array in first.items():
        np.testing.assert_allclose(second[name], array, rtol=1e-5, atol=1e-7, err_msg=name)


def test_what_is_read_can_be_written_into_another_loop(config, images):
    first, second = (build(dataclasses.replace(config, seed=seed), images)[1] for seed in (0, 1))
    first.begin(0)
    first.run(make_rates(first, config))
    second.write(first.read())
    for name, array in first.read().items():
        np.testing.assert_array_equal(second.read()[name], array)
    with pytest.raises(ValueError, match="another model"):
        build(dataclasses.replace(config, filters=(4, 5)), images)[1].write(first.read())


def test_the_model_keeps_its_own_weights_until_it_is_given_others(config, images, numpy):
    model, loop = build(config, images)
    before = [numpy(v).copy() for v in model.variables]
    loop.begin(0)
    loop.run(make_rates(loop, config))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
    loop.assign(loop.average(), loop.discriminator())
    moved = [np.abs(numpy(v) - b).max() > 0 for v, b in zip(model.variables, before, strict=True)]
    assert all(moved)


def test_the_discriminator_keeps_statistics_of_real_and_generated_pictures(config, images, numpy):
    """They are what Keras' own layers keep, shown the same batches one after the other."""
    model, loop = build(config, images, spread=0.3)
    loop.begin(0)
    rows, draws = numpy(loop._order)[0, 0], draws_of(loop, numpy, 0)
    loop.run(make_rates(loop, config, num=1))
    fake = model.decode(draws["latents"], training=True)
    for pictures in (images[rows].astype("float32") / 255, fake):
        model.discriminate(pictures, training=True)
    kept = loop.discriminator()[len(model.discriminator.trainable_variables) :]
    wanted = [numpy(v) for v in model.discriminator.non_trainable_variables]
    assert len(kept) == len(wanted) == 2
    for found, value in zip(kept, wanted, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-6)


def test_the_kept_discriminator_is_the_one_that_was_trained(config, images, numpy):
    """Plain kernels of the saved network have the largest singular value 1, about."""
    config = dataclasses.replace(config, normalization="spectral")
    model, loop = build(config, images)
    loop.begin(0)
    loop.run(make_rates(loop, config))
    loop.assign(loop.average(), loop.discriminator())
    for variable in model.discriminator.trainable_variables:
        if variable.path.endswith("kernel"):
            matrix = numpy(variable).reshape(-1, variable.shape[-1])
            assert np.linalg.norm(matrix, 2) == pytest.approx(1, rel=0.05)


def test_an_encoder_gets_no_word_of_the_discriminator(config, images, numpy):
    """Without reconstruction the encoder of a VAE/GAN does not move."""
    config = dataclasses.replace(config, autoencoder=True, reconstruction_weight=0.0)
    _, loop = build(config, images)
    before = loop.read()
    loop.begin(0)
    loop.run(make_rates(loop, config))
    after = loop.read()
    kernels = [n for n in before if n.startswith("generator/weights/encoder")]
    assert kernels
    for name in kernels:
        np.testing.assert_array_equal(after[name], before[name])
    moved = [n for n in before if n.startswith("generator/weights/generator")]
    assert any((after[n] != before[n]).any() for n in moved)


def test_losses_of_an_epoch_are_finite_for_all_settings(images):
    from safelight.gan.config import TrainConfig

    for options in (
        {"architecture": "resnet", "conditional": True},
        {"autoencoder": True, "penalty": "r1"},
        {"precision": "bfloat16", "discriminator_steps": 2},
    ):
        config = TrainConfig(latent_dim=3, filters=(4, 6), batch_size=8, **options)
        _, loop = build(config, images, policy="geometric")
        loop.begin(0)
        loop.run(make_rates(loop, config))
        means = loop.means()
        assert set(means) == set(loop.logs())
        assert all(np.isfinite(value) for value in means.values()), (options, means)
        assert 0 <= means["real_accuracy"] <= 1


def test_few_pictures_are_dealt_out_in_small_batches(config, images):
    assert [choose_batch_size(num) for num in (9_999, 10_000)] == [16, 64]
    loop = build(dataclasses.replace(config, batch_size=0), images)[1]
    assert (loop.batch_size, loop.num_steps) == (16, 2)
