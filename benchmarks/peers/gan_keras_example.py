"""The DCGAN example of Keras ("DCGAN to generate face images", overriding `train_step`) on MNIST.

    python -m peers.gan_keras_example --minutes 20 --data mnist.npz --output samples.npz

Networks, losses, noisy labels, dropout, batches and rates as there: three convolutions of 4 pixels
with 64, 128 and 128 filters, Adam at 1e-4, batches of 32, no normalization. Departures, all of
which help it here: the first map is 7 x 7 and two transposed convolutions (128 and 256 filters)
double it, since MNIST has 28 pixels and not 64; the batches are prefetched, the step is compiled
once; and the products are in bfloat16 where the processor multiplies it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from measuring import machine, write_json

LATENT_DIM, BATCH_SIZE, RATE = 128, 32, 1e-4


def build_discriminator() -> keras.Model:
    model = keras.Sequential([keras.Input((28, 28, 1))], name="discriminator")
    for filters in (64, 128, 128):
        model.add(layers.Conv2D(filters, 4, strides=2, padding="same"))
        model.add(layers.LeakyReLU(negative_slope=0.2))
    model.add(layers.Flatten())
    model.add(layers.Dropout(0.2))
    model.add(layers.Dense(1, activation="sigmoid", dtype="float32"))
    return model


def build_generator() -> keras.Model:
    model = keras.Sequential([keras.Input((LATENT_DIM,))], name="generator")
    model.add(layers.Dense(7 * 7 * 128))
    model.add(layers.Reshape((7, 7, 128)))
    for filters in (128, 256):
        model.add(layers.Conv2DTranspose(filters, 4, strides=2, padding="same"))
        model.add(layers.LeakyReLU(negative_slope=0.2))
    model.add(layers.Conv2D(1, 5, padding="same", activation="sigmoid", dtype="float32"))
    return model


def make_step(discriminator: keras.Model, generator: keras.Model) -> object:
    """The example's `train_step`, as one compiled function."""
    loss = keras.losses.BinaryCrossentropy()
    optimizers = [keras.optimizers.Adam(RATE), keras.optimizers.Adam(RATE)]
    for optimizer, model in zip(optimizers, (discriminator, generator), strict=True):
        optimizer.build(model.trainable_variables)

    @tf.function
    def step(real: tf.Tensor) -> None:
        num = tf.shape(real)[0]
        fake = generator(tf.random.normal((num, LATENT_DIM)), training=True)
        labels = tf.concat([tf.ones((num, 1)), tf.zeros((num, 1))], 0)
        labels += 0.05 * tf.random.uniform(tf.shape(labels))
        with tf.GradientTape() as tape:
            answers = discriminator(tf.concat([fake, real], 0), training=True)
            value = loss(labels, answers)
        weights = discriminator.trainable_variables
        optimizers[0].apply(tape.gradient(value, weights), weights)
        with tf.GradientTape() as tape:
            made = generator(tf.random.normal((num, LATENT_DIM)), training=True)
            value = loss(tf.zeros((num, 1)), discriminator(made, training=True))
        weights = generator.trainable_variables
        optimizers[1].apply(tape.gradient(value, weights), weights)

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    if machine()["bfloat16"]:
        keras.config.set_dtype_policy("mixed_bfloat16")
    with np.load(options.data) as arrays:
        images = arrays["train"].astype("float32")[..., None] / 255
    data = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images), seed=options.seed)
    batches = data.batch(BATCH_SIZE, drop_remainder=True).repeat().prefetch(tf.data.AUTOTUNE)
    discriminator, generator = build_discriminator(), build_generator()
    step, started, steps = make_step(discriminator, generator), time.perf_counter(), 0
    for batch in batches:
        step(batch)
        steps += 1
        if time.perf_counter() - started >= 60 * options.minutes:
            break
    seconds = time.perf_counter() - started
    z = np.random.default_rng(options.seed).standard_normal((options.num, LATENT_DIM), "float32")
    samples = np.concatenate([np.asarray(generator(part)) for part in np.array_split(z, 40)])
    np.savez(options.output, samples=samples)
    said = {"seconds": seconds, "images_per_second": steps * BATCH_SIZE / seconds}
    write_json(
        options.output.with_suffix(".json"), {**said, "version": f"keras {keras.__version__}"}
    )


if __name__ == "__main__":
    main()
