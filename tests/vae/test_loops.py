import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from safelight.generative import noise
from safelight.generative.schedules import average_decays, step_sizes
from safelight.vae import loops
from safelight.vae.building import build_vae
from safelight.vae.config import TrainConfig
from safelight.vae.loops import EpochLoop, Validator
from safelight.vae.models import VAE

SHAPE = (5, 3, 1)
CONFIG = TrainConfig(latent_dim=3, hidden_units=(6,), batch_size=4, seed=3)


def make_images(num=10, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 256, (num, *shape)).astype("uint8")


def build(shape=SHAPE, num_classes=0, **changes):
    return build_vae(shape, dataclasses.replace(CONFIG, **changes), num_classes=num_classes)


def run(loop, epochs=1, rate=0.01, decay=0.9, blocks=1):
    """Whole epochs; in as many blocks each as asked for."""
    for epoch in range(epochs):
        loop.begin(epoch)
        for part in np.array_split(np.arange(loop.num_steps), blocks):
            first = epoch * loop.num_steps + part[0]
            rates = np.full(len(part), rate)
            sizes = step_sizes(rates, first)
            loop.run(rates, sizes, average_decays(decay, first, len(part)))
    return loop


def train_by_hand(model, images, labels, epochs, rate, decay):
    """The same sums, eagerly: Keras' own gradients and optimizer, a step at a time."""
    weights = model.trainable_variables
    optimizer = keras.optimizers.Adam(rate)
    average = [ops.convert_to_numpy(w) for w in weights]
    batch, step, totals = CONFIG.batch_size, 0, []
    for epoch in range(epochs):
        order = noise.epoch_order(CONFIG.seed, epoch, len(images), batch)
        bits = {
            name: noise.noise_states(shape, CONFIG.seed, epoch, stream)
            for stream, (name, shape) in enumerate(noise_shapes(model, batch).items(), start=1)
        }
        for rows in order:
            bits = {k: ops.convert_to_numpy(noise.next_states(v)) for k, v in bits.items()}
            x = ops.cast(images[rows], "float32") / 255.0
            if model.binarization == "dynamic":
                x = noise.draw_binary(images[rows], bits["pixels"])
            z = noise.draw_normal(ops.convert_to_tensor(bits["latents"]), model.latent_dim)
            draw = {"noise": z}
            if "choices" in bits:
                draw["uniform"] = noise.draw_uniform(ops.convert_to_tensor(bits["choices"]))
            known = None if labels is None else labels[rows]
            totals.append(step_by_hand(model, optimizer, x, known, draw))
            step += 1
            share = 1 - average_decays(decay, step - 1, 1)[0]
            now = [ops.convert_to_numpy(w) for w in weights]
            average = [a + share * (w - a) for a, w in zip(average, now, strict=True)]
    return average, totals


def noise_shapes(model, batch):
    pixels = int(np.prod(model.image_shape)) if model.binarization == "dynamic" else 0
    samples = () if model.num_samples == 1 else (model.num_samples,)
    latents = (2, *samples, batch, -(-model.latent_dim // 2))
    few = {"choices": (batch,)} if model.goes_through_few(model.num_samples) else {}
    return {"pixels": (batch, -(-pixels // 2)), "latents": latents, **few}


def step_by_hand(model, optimizer, x, labels, draw):
    weights = model.trainable_variables

    def loss():
        terms = model.terms(x, labels, model.num_samples, **draw)
        return model.objective(terms)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value, logs = loss()
        gradients = tape.gradient(value, [w.value for w in weights])
    elif backend == "torch":
        import torch

        value, logs = loss()
        gradients = torch.autograd.grad(value, [w.value for w in weights])
    else:
        import jax

        def function(values):
            with keras.StatelessScope(state_mapping=zip(weights, values, strict=True)):
                return loss()

        gradients, logs = jax.grad(function, has_aux=True)([w.value for w in weights])
    optimizer.apply(gradients, weights)
    return {name: float(ops.convert_to_numpy(value)) for name, value in logs.items()}


VARIANTS = {
    "black and white": {},
    "grey": {"likelihood": "discretized_logistic"},
    "conditional": {"conditional": True},
    "importance weighted": {"num_samples": 3},
    "through few": {"num_samples": 3, "backward_samples": 2, "gradient": "dreg"},
    "convolutional": {"architecture": "conv", "hidden_units": (2, 3), "latent_dim": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_compiled_loop_is_the_same_as_steps_by_hand(variant):
    changes = VARIANTS[variant]
    images = make_images()
    conditional = bool(changes.get("conditional"))
    labels = np.arange(10) % 2 if conditional else None
    compiled, eager = (build(num_classes=2 * conditional, **changes) for _ in range(2))
    loop = EpochLoop(compiled, images, labels, batch_size=4, seed=CONFIG.seed)
    run(loop, epochs=2, decay=0.8)
    average, totals = train_by_hand(eager, images, labels, 2, 0.01, 0.8)
    # Adam divides by gradients' sizes, so that rounding in the smallest shows most.
    for mine, wanted in zip(loop.average(), average, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-3, atol=2e-4)
    last = totals[loop.num_steps :]
    for name in ("elbo", "reconstruction", "kl"):
        wanted = np.mean([logs[name] for logs in last])
        assert loop.means()[name] == pytest.approx(wanted, rel=1e-3)


def test_blocks_and_going_back_change_no_bit(no_xla):
    """One run in one go; one in blocks, put away after an epoch and taken up by another loop."""
    images = make_images()
    whole = run(EpochLoop(build(), images, batch_size=4, seed=1), epochs=2)
    first = run(EpochLoop(build(), images, batch_size=4, seed=1), blocks=3)
    kept = first.read()
    second = EpochLoop(build(seed=9), images, batch_size=4, seed=1)
    second.write(kept)
    second.begin(1)
    rates = np.full(3, 0.01)
    second.run(rates, step_sizes(rates, 3), average_decays(0.9, 3, 3))
    for mine, wanted in zip(second.read().items(), whole.read().items(), strict=True):
        assert mine[0] == wanted[0]
        np.testing.assert_array_equal(mine[1], wanted[1])
    assert second.means()["elbo"] == whole.means()["elbo"]


def test_a_seed_generator_inside_the_networks_starts_anew_each_epoch(no_xla):
    """Dropout for instance: its noise too follows from seed and epoch alone."""
    model = build()
    others = [np.asarray(ops.convert_to_numpy(v)) for v in model.non_trainable_variables]
    variables = loops._variables_of(model)
    assert len(variables.seeds) == 2
    states = []
    for epoch in (0, 1, 0):
        variables.set_seeds(others, 5, epoch)
        states.append([tuple(others[place]) for place in variables.seeds])
    assert states[0] == states[2] != states[1]
    assert len({state for some in states[:2] for state in some}) == 4
    assert not any("seed" in name for name in EpochLoop(model, make_images(), batch_size=4).read())


def dropping(layer):
    """A model whose encoder has one more layer."""
    inputs = keras.Input(SHAPE)
    hidden = layer(keras.layers.Dense(8, "tanh")(keras.layers.Flatten()(inputs)))
    outputs = [keras.layers.Dense(3)(hidden), keras.layers.Dense(3)(hidden)]
    return VAE(keras.Model(inputs, outputs), build().decoder)


def test_dropout_drops_while_a_model_is_trained_and_not_while_it_is_asked(no_xla):
    """With rate 0 the loop's answers are those of no dropout; with .5 they are others."""
    images, told = make_images(), []
    for rate in (0.0, 0.5):
        keras.utils.set_random_seed(0)
        model = dropping(keras.layers.Dropout(rate, seed=1))
        asked = [model.elbo(images, seed=0)["elbo"] for _ in range(2)]
        np.testing.assert_array_equal(*asked)
        loop = EpochLoop(model, images, batch_size=4)
        told.append((asked[0].mean(), run(loop, rate=0.0).means()["kl"]))
    assert told[0][0] == pytest.approx(told[1][0], rel=1e-5)
    assert abs(told[0][1] - told[1][1]) > 1e-3


def test_statistics_of_batches_are_refused(no_xla):
    model = dropping(keras.layers.BatchNormalization())
    with pytest.raises(ValueError, match=r"BatchNormalization.*LayerNormalization"):
        EpochLoop(model, make_images(), batch_size=4)
    for layer in model.encoder.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    EpochLoop(model, make_images(), batch_size=4)


@pytest.mark.parametrize("few", [{}, {"backward_samples": 2}])
def test_a_loop_with_an_objective_of_its_own_is_that_of_a_model_with_it(no_xla, few):
    images, tight = make_images(), {"num_samples": 3, "gradient": "dreg", **few}
    model = build(gradient="stl")
    mine = run(EpochLoop(model, images, batch_size=4, **tight)).read()
    wanted = run(EpochLoop(build(**tight), images, batch_size=4)).read()
    assert (model.num_samples, model.gradient, model.backward_samples) == (1, "stl", 0)
    assert [*mine] == [*wanted]
    for name, array in wanted.items():
        np.testing.assert_array_equal(mine[name], array)


@pytest.mark.parametrize("prior", ["flow", "mixture"])
def test_weight_decay_takes_its_part_of_kernels_only_and_beside_adam(no_xla, prior):
    """One step with it and one without differ by rate * decay * kernel and nothing else."""
    images, rate, decay = make_images(4), 0.01, 3.0
    start = EpochLoop(build(prior=prior), images, batch_size=4).read()
    ends = [
        run(EpochLoop(build(prior=prior), images, batch_size=4, weight_decay=amount), rate=rate)
        for amount in (0.0, decay)
    ]
    # Of dense networks the kernels are what has two axes; a mixture's components have them, too.
    rows = [*zip(start.items(), *(loop.read().values() for loop in ends), strict=True)]
    rows = [row for row in rows if row[0][0].startswith("weights/")]
    kernels = [name for (name, old), *_ in rows if old.ndim == 2 and "/mixture" not in name]
    assert len(kernels) == (5 + 18 if prior == "flow" else 5)
    for (name, old), plain, decayed in rows:
        part = rate * decay if name in kernels else 0.0
        np.testing.assert_allclose(decayed, plain - part * old, rtol=1e-5, atol=1e-6)


def test_every_variable_is_kept_under_a_name_of_its_own(no_xla):
    kept = EpochLoop(build(), make_images(), batch_size=4).read()
    assert {"weights/encoder/hidden_0/kernel", "weights/decoder/hidden_0/kernel"} <= set(kept)
    num_trained = len(build().trainable_variables)
    for place in ("weights", "mean", "square", "average"):
        assert sum(name.startswith(f"{place}/") for name in kept) == num_trained


def test_weights_of_another_model_are_refused(no_xla):
    kept = EpochLoop(build(), make_images(), batch_size=4).read()
    other = EpochLoop(build(latent_dim=2), make_images(), batch_size=4)
    with pytest.raises(ValueError, match=r"another model: .* has the shape .* expected"):
        other.write(kept)


def test_the_model_s_own_variables_are_left_alone(no_xla):
    model = build()
    before = [np.array(w) for w in model.get_weights()]
    loop = run(EpochLoop(model, make_images(), batch_size=4))
    loop.begin(1, kl_weight=0.25)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    place = loop._kl_weight
    assert float(ops.convert_to_numpy(loop._state["others"][place])) == 0.25


def test_the_kl_weight_of_an_epoch_changes_what_is_learned_not_what_is_told(no_xla):
    losses = []
    for weight in (1.0, 0.0):
        loop = EpochLoop(build(), make_images(), batch_size=4, seed=1)
        loop.begin(0, kl_weight=weight)
        rates = np.full(3, 0.1)
        loop.run(rates[:1], step_sizes(rates[:1], 0), np.zeros(1))
        losses.append(loop.means())
        loop.run(rates[1:], step_sizes(rates[1:], 1), np.zeros(2))
        losses.append(loop.means())
    assert losses[0]["elbo"] == losses[2]["elbo"]
    assert losses[1]["kl"] < losses[3]["kl"]
    assert losses[0]["elbo"] == pytest.approx(losses[0]["reconstruction"] - losses[0]["kl"])
    assert losses[0]["kl_per_unit"].sum() == pytest.approx(losses[0]["kl"], rel=1e-5)


def test_the_validator_scores_every_image_once(no_xla):
    """Seven images in batches of four, the last one filled up: the padding must not count."""
    model = build()
    images = np.random.default_rng(2).integers(0, 2, (7, *SHAPE)).astype("uint8") * 255
    scores = Validator(model, images, batch_size=4).scores(
        [np.array(ops.convert_to_numpy(w)) for w in model.trainable_variables]
    )
    mean, log_variance = model.encode(images)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    np.testing.assert_allclose(scores.kl_per_unit, kl.mean(0), rtol=1e-4)
    assert scores.kl == pytest.approx(kl.sum(1).mean(), rel=1e-4)
    assert scores.active_units == (mean.var(0) > 0.01).sum()
    assert scores.elbo == pytest.approx(scores.reconstruction - scores.kl)
    many = [model.elbo(images, seed=seed)["reconstruction"].mean() for seed in range(200)]
    assert abs(scores.reconstruction - np.mean(many)) < 5 * np.std(many)


def test_the_validator_goes_by_the_label_of_each_image(no_xla):
    """Seven images in two batches; their divergences by hand, and those with others' labels."""
    model, rng = build(num_classes=3, conditional=True), np.random.default_rng(5)
    for weight in model.trainable_variables:  # as they are made, labels would matter less
        weight.assign(ops.convert_to_numpy(weight) + 0.5 * rng.normal(size=weight.shape))
    images, labels = make_images(7), np.array([0, 2, 1, 1, 0, 2, 2])

    def divergences(labels):
        mean, log_variance = model.encode(images, labels)
        return (0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)).mean(0)

    scores = Validator(model, images, labels, batch_size=4).scores(
        [np.array(ops.convert_to_numpy(w)) for w in model.trainable_variables]
    )
    expected = divergences(labels)
    np.testing.assert_allclose(scores.kl_per_unit, expected, rtol=1e-4)
    assert scores.kl == pytest.approx(expected.sum(), rel=1e-4)
    for others in (np.roll(labels, 1), labels[::-1].copy(), np.zeros_like(labels)):
        assert np.abs(divergences(others) / expected - 1).max() > 0.01


def test_the_validator_looks_with_the_same_eyes_at_the_weights_it_is_given(no_xla):
    model = build()
    weights = [np.array(ops.convert_to_numpy(w)) for w in model.trainable_variables]
    validator = Validator(model, make_images(6), batch_size=4)
    first = validator.scores(weights)
    other = validator.scores([w + 0.1 for w in weights])
    again = validator.scores(weights)
    assert first.elbo == again.elbo != other.elbo
    np.testing.assert_array_equal(first.kl_per_unit, again.kl_per_unit)
