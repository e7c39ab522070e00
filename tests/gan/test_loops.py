"""The compiled game against the same sums by another route."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from safelight.gan import networks
from safelight.gan.augmentation import augment
from safelight.gan.loops import EpochLoop, Rates, choose_batch_size
from safelight.gan.models import build_gan
from safelight.generative.backends import EPSILON
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


def soften(model):
    """Smooth activations: the slope of one with a kink jumps."""
    for network in (model.generator, model.discriminator, model.encoder):
        for layer in [] if network is None else network.layers:
            if isinstance(layer, keras.layers.Activation):
                layer.activation = ops.tanh


def assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def column(loop, start):
    """What a loop keeps under names that start so."""
    return [array for name, array in loop.read().items() if name.startswith(start)]


def draws_of(loop, numpy, turn):
    """What the first round draws, by the same generators."""
    bits = {name: next_states(states) for name, states in loop._noise.items()}
    dim = loop._model.latent_dim
    normal = {name: draw_normal(bits[name], dim) for name in ("latents", "posterior")}
    uniform = {name: draw_uniform(bits[name]) for name in ("augmentation", "between")}
    return {name: numpy(values)[turn] for name, values in {**normal, **uniform}.items()}


def changed(pictures, uniform, policy, numpy):
    return numpy(augment(*map(ops.convert_to_tensor, (pictures, uniform)), policy))


def encode(model, pictures, noise, numpy):
    """Draws of q(z|x), and the KL divergence from N(0, I), by Kingma & Welling's appendix B."""
    mean, log_variance = (numpy(each).astype("float64") for each in model.encoder(pictures))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1).mean()
    return (mean + np.exp(log_variance / 2) * noise).astype("float32"), kl


def softplus(x):
    return np.logaddexp(0, x)


def logits_of(model, config, pictures, labels, numpy):
    """Of one batch, as in training."""
    by_batch = config.chosen_normalization == "batch"
    return numpy(model.discriminate(pictures, labels, training=by_batch)[0]).astype("float64")


def features_of(model, pictures, numpy):
    return numpy(model.discriminate(pictures, training=True)[1]).astype("float64")


def shown(model, loop, images, turn, numpy):
    """What the discriminator sees in a step of the first round, real pictures first.

    Then their labels, if it is told any, and the draws.
    """
    rows, draws = numpy(loop._order)[0, turn], draws_of(loop, numpy, turn)
    labels = (np.arange(len(images)) % 3)[rows] if model.num_classes else None
    real = images[rows].astype("float32") / 255
    latents = [draws["latents"]]
    if model.encoder is not None:
        latents.append(encode(model, real, draws["posterior"], numpy)[0])
    pictures = [real, *(model.decode(z, labels, training=True) for z in latents)]
    # Each batch by draws of its own, all alike.
    pairs = zip(pictures, draws["augmentation"], strict=False)
    return [changed(*pair, loop._policy, numpy) for pair in pairs], labels, draws


def discriminator_loss(model, config, seen, labels, numpy):
    """By what `shown` gives."""
    r, *fakes = (logits_of(model, config, each, labels, numpy) for each in seen)
    f = np.concatenate(fakes)
    values = {
        "non_saturating": softplus(-r).mean() + softplus(f).mean(),
        "hinge": np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean(),
        "wasserstein": f.mean() - r.mean(),
    }
    return values[config.loss]


def check_slopes(value, start, found, *, apart=True, rel=0.02, margin=2e-3):
    """Gradients against differences in a direction of chance: of all weights, then of each."""
    rng = np.random.default_rng(0)
    whole = [rng.normal(size=w.shape) * (np.std(w) + 0.1) for w in start]
    ways = [whole]
    if apart:
        ways += [[d * (i == j) for j, d in enumerate(whole)] for i in range(len(whole))]
    step = 1e-3
    for number, way in enumerate(ways):
        moved = [[w + s * d for w, d in zip(start, way, strict=True)] for s in (step, -step)]
        wanted = (value(moved[0]) - value(moved[1])) / (2 * step)
        slope = sum((g * d).sum() for g, d in zip(found, way, strict=True))
        assert slope == pytest.approx(wanted, rel=rel, abs=margin), number


GAMES = [
    ({}, "none"),
    ({}, "all"),
    ({"normalization": "spectral"}, "none"),
    ({"penalty": "r1", "penalty_weight": 2.0}, "all"),
    ({"loss": "hinge", "conditional": True}, "none"),
    ({"loss": "hinge", "conditional": True, "normalization": "spectral"}, "none"),
    ({"loss": "wasserstein"}, "none"),
    ({"autoencoder": True, "normalization": "none"}, "all"),
]


@pytest.mark.parametrize(("options", "policy"), GAMES)
def test_the_discriminator_s_first_step_goes_down_its_loss(
    config, images, numpy, options, policy, monkeypatch
):
    """Adam's average after one step is (1 - beta_1) times the gradient: against differences.

    Of real and generated pictures that are changed alike, each in a way of its own. With a smooth
    activation: slopes of one with a kink jump, and so does a penalty on them.
    """
    monkeypatch.setattr(networks, "leaky_relu", ops.tanh)
    config = dataclasses.replace(config, **options)
    model, loop = build(config, images, spread=0.3, policy=policy)
    loop.begin(0)
    seen, labels, draws = shown(model, loop, images, 0, numpy)
    assert len(seen) == (3 if config.autoencoder else 2)
    variables = model.discriminator.trainable_variables
    start = [numpy(v).astype("float64") for v in variables]

    def loss(weights):
        for variable, weight in zip(variables, weights, strict=True):
            # By the singular value itself, where the loop has an iteration.
            if config.chosen_normalization == "spectral" and variable.path.endswith("kernel"):
                weight = weight / np.linalg.norm(weight.reshape(-1, weight.shape[-1]), 2)
            variable.assign(weight)
        value = discriminator_loss(model, config, seen, labels, numpy)
        return value + penalty_by_differences(model, config, *seen[:2], draws, numpy)

    loop.run(make_rates(loop, config, num=1))
    found = [m.astype("float64") / (1 - config.beta_1) for m in column(loop, "discriminator/mean/")]
    # Too coarse for single biases: a hinge, and differences of differences.
    plain = config.chosen_penalty == "none"
    smooth = plain and config.loss == "non_saturating"
    check_slopes(loss, start, found, apart=smooth, rel=0.04, margin=2e-3 if plain else 1e-2)


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


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({"normalization": "batch"}, "none"),
        ({"normalization": "batch", "loss": "hinge"}, "all"),
        ({"normalization": "spectral", "loss": "hinge"}, "none"),
        ({"normalization": "spectral", "discriminator_steps": 2}, "all"),
    ],
)
def test_the_generator_s_first_step_goes_down_its_loss(config, images, numpy, options, policy):
    """With a discriminator that does not move; its draws are the last of a round."""
    config = dataclasses.replace(config, **options)
    model, loop = build(config, images, spread=0.3, policy=policy)
    soften(model)
    loop.begin(0)
    draws = draws_of(loop, numpy, config.discriminator_steps)
    variables = model.generator.trainable_variables
    start = [numpy(v).astype("float64") for v in variables]
    effective = loop.discriminator()
    for variable, value in zip(model.discriminator.trainable_variables, effective, strict=False):
        variable.assign(value)

    def value(weights):
        assign(variables, weights)
        drawn = model.decode(draws["latents"], training=True)
        seen = changed(drawn, draws["augmentation"][0], policy, numpy)
        logits = logits_of(model, config, seen, None, numpy)
        return softplus(-logits).mean() if config.loss == "non_saturating" else -logits.mean()

    loop.run(make_rates(loop, config, critic=0.0, num=1))
    found = [m.astype("float64") / (1 - config.beta_1) for m in column(loop, "generator/mean/")]
    check_slopes(value, start, found)


@pytest.mark.parametrize("weight", [0.7, 0.0])
def test_a_vae_gan_s_first_step_goes_down_its_objective(config, images, numpy, weight):
    """Likelihood of features, KL divergence, and being believed: Larsen et al. 2016, section 2.

    What is made of pictures is to be believed as well, but that is no business of the encoder's.
    """
    options = {"reconstruction_weight": weight, "kl_weight": 0.3, "normalization": "none"}
    config = dataclasses.replace(config, autoencoder=True, **options)
    model, loop = build(config, images, spread=0.3, policy="all")
    soften(model)
    loop.begin(0)
    draws = draws_of(loop, numpy, 1)
    real = images[numpy(loop._order)[0, 0]].astype("float32") / 255
    variables = loop._variables["generator"].trained
    start = [numpy(v).astype("float64") for v in variables]
    trained = (model.generator, model.encoder)
    assert len(start) == sum(len(each.trainable_variables) for each in trained)
    fixed, _ = encode(model, real, draws["posterior"], numpy)
    wanted = features_of(model, real, numpy)  # of a discriminator that does not move

    def value(weights):
        assign(variables, weights)
        z, kl = encode(model, real, draws["posterior"], numpy)
        made = model.decode(z, training=True)
        differences = wanted - features_of(model, made, numpy)
        error = 0.5 * np.square(differences).sum((1, 2, 3)).mean()
        fakes = [model.decode(each, training=True) for each in (draws["latents"], fixed)]
        pairs = zip(fakes, draws["augmentation"], strict=False)
        seen = [changed(*pair, "all", numpy) for pair in pairs]
        logits = np.concatenate([logits_of(model, config, each, None, numpy) for each in seen])
        return softplus(-logits).mean() + weight * (error + 0.3 * kl)

    loop.run(make_rates(loop, config, critic=0.0, num=1))
    found = [m.astype("float64") / (1 - config.beta_1) for m in column(loop, "generator/mean/")]
    check_slopes(value, start, found)


def test_each_step_of_the_discriminator_has_pictures_and_draws_of_its_own(config, images, numpy):
    """Adam's average after two: (1 - beta_1) times (beta_1 times the first slope + the second).

    Both at the same weights, which stand still.
    """
    config = dataclasses.replace(config, discriminator_steps=2, normalization="none")
    model, loop = build(config, images, spread=0.3, policy="all")
    soften(model)
    loop.begin(0)
    turns = [shown(model, loop, images, turn, numpy)[0] for turn in range(2)]
    variables = model.discriminator.trainable_variables
    start = [numpy(v).astype("float64") for v in variables]

    def loss(weights):
        assign(variables, weights)
        first, second = (discriminator_loss(model, config, seen, None, numpy) for seen in turns)
        return config.beta_1 * first + second

    loop.run(make_rates(loop, config, critic=0.0, num=1))
    found = [m.astype("float64") / (1 - config.beta_1) for m in column(loop, "discriminator/mean/")]
    check_slopes(loss, start, found)


def test_each_step_of_the_discriminator_has_a_size_of_its_own(config, images):
    """Only the second moves the weights, and by as much as Adam does; the generator's stand."""
    config = dataclasses.replace(config, discriminator_steps=2)
    model, loop = build(config, images)
    names = ("generator/weights/", "discriminator/weights/")
    generator, before = (column(loop, name) for name in names)
    assert len(before) == len(model.discriminator.trainable_variables)
    loop.begin(0)
    loop.run(Rates(np.zeros(1), np.array([[0.0, 1e-3]]), np.zeros(1)))
    mean, square = (column(loop, f"discriminator/{name}/") for name in ("mean", "square"))
    moved = zip(before, mean, square, column(loop, names[1]), strict=True)
    for old, m, s, new in moved:
        np.testing.assert_allclose(new, old - 1e-3 * m / (np.sqrt(s) + EPSILON), atol=1e-6)
    for old, new in zip(generator, column(loop, names[0]), strict=True):
        np.testing.assert_array_equal(new, old)


def test_the_running_mean_of_the_generator_s_weights_is_kept(config, images, numpy):
    """Of a short memory first: min(decay, (1 + t) / (10 + t)) of it stays in step t."""
    config = dataclasses.replace(config, weight_average=0.28)
    model, loop = build(config, images)
    loop.begin(0)
    wanted = column(loop, "generator/weights/")
    assert loop.num_steps == 3
    for i, decay in enumerate((2 / 11, 3 / 12, 0.28)):
        loop.run(make_rates(loop, config, rate=1e-2, first=i, num=1))
        weights = column(loop, "generator/weights/")
        pairs = zip(wanted, weights, strict=True)
        wanted = [decay * old + (1 - decay) * new for old, new in pairs]
        assert max(np.abs(w - a).max() for w, a in zip(weights, wanted, strict=True)) > 1e-3
        for found, value in zip(loop.average(), wanted, strict=False):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)
    loop.assign(loop.average(), loop.discriminator())
    for variable, value in zip(model.generator.trainable_variables, wanted, strict=True):
        np.testing.assert_allclose(numpy(variable), value, rtol=1e-5, atol=1e-6)


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
