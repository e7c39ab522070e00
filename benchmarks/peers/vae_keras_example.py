"""The training loop of Keras' official example "Variational AutoEncoder", on the dense network.

Our own script in its manner: a model with a `train_step` under a gradient tape and three mean
trackers, `fit` on a float32 array. Departures: dense layers in place of convolutions; one line that
draws black and white pixels inside the compiled step; the training part alone instead of training
and test images together; given first weights.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from vae.measuring import Assignment, Clock, Measured, run_variant
from vae.network import LATENT_DIM, LAYERS, Weights


class Sampling(layers.Layer):
    """Draws z."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        mean, log_variance = inputs
        noise = keras.random.normal(tf.shape(mean), seed=self.seed_generator)
        return mean + tf.exp(0.5 * log_variance) * noise


def build_networks() -> tuple[keras.Model, keras.Model]:
    """Encoder to (mean, log variance, z), decoder to probabilities (n, 28, 28, 1)."""
    images = keras.Input((28, 28, 1))
    x = layers.Dense(400, activation="relu", name="hidden")(layers.Flatten()(images))
    mean = layers.Dense(LATENT_DIM, name="mean")(x)
    log_variance = layers.Dense(LATENT_DIM, name="log_variance")(x)
    z = Sampling()([mean, log_variance])
    encoder = keras.Model(images, [mean, log_variance, z], name="encoder")
    latents = keras.Input((LATENT_DIM,))
    x = layers.Dense(400, activation="relu", name="decoder_hidden")(latents)
    x = layers.Dense(784, activation="sigmoid", name="pixels")(x)
    return encoder, keras.Model(latents, layers.Reshape((28, 28, 1))(x), name="decoder")


class VAE(keras.Model):
    """The example's model."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = build_networks()
        self.trackers = {
            name: keras.metrics.Mean(name=name)
            for name in ("loss", "reconstruction_loss", "kl_loss")
        }

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.trackers.values())

    def train_step(self, data: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step of Adam on a batch of grey values."""
        data = tf.cast(tf.random.uniform(tf.shape(data)) < data, "float32")
        with tf.GradientTape() as tape:
            mean, log_variance, z = self.encoder(data)
            entropy = keras.losses.binary_crossentropy(data, self.decoder(z))
            likelihood = tf.reduce_mean(tf.reduce_sum(entropy, axis=(1, 2)))
            kl = -0.5 * (1 + log_variance - tf.square(mean) - tf.exp(log_variance))
            kl = tf.reduce_mean(tf.reduce_sum(kl, axis=1))
            total = likelihood + kl
        gradients = tape.gradient(total, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        for tracker, value in zip(self.metrics, (total, likelihood, kl), strict=True):
            tracker.update_state(value)
        return {name: tracker.result() for name, tracker in self.trackers.items()}


def layers_of(model: VAE) -> dict[str, layers.Layer]:
    """The dense layers under the names that all variants share."""
    found = {layer.name: layer for part in (model.encoder, model.decoder) for layer in part.layers}
    return {name: found[name] for name in LAYERS}


def read_weights(model: VAE) -> Weights:
    """The weights in the layout of all variants."""
    weights: Weights = {}
    for name, layer in layers_of(model).items():
        weights[f"{name}/kernel"], weights[f"{name}/bias"] = layer.get_weights()
    return weights


class EpochEnds(keras.callbacks.Callback):
    """Tells the benchmark's clock when an epoch is over."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Note the time; stop if it is up."""
        if self.clock.end_epoch(lambda: read_weights(self.model)):
            self.model.stop_training = True


def measure(assignment: Assignment, clock: Clock) -> Measured:
    """Run the example's fit."""
    tf.config.threading.set_intra_op_parallelism_threads(assignment.num_threads)
    protocol = assignment.protocol
    keras.utils.set_random_seed(protocol.seed)
    clock.start()
    model = VAE()
    for name, layer in layers_of(model).items():
        layer.set_weights([assignment.weights[f"{name}/{part}"] for part in ("kernel", "bias")])
    digits = np.expand_dims(assignment.images, -1).astype("float32") / 255
    model.compile(optimizer=keras.optimizers.Adam(protocol.learning_rate))
    model.fit(
        digits,
        epochs=protocol.epochs,
        batch_size=protocol.batch_size,
        callbacks=[EpochEnds(clock)],
        verbose=2,
    )
    settings = {
        "threads": assignment.num_threads,
        "dtype": "float32",
        "data": "float32 array, fit",
        "jit_compile": bool(model.jit_compile),
    }
    versions = {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }
    return Measured(versions, settings)


if __name__ == "__main__":
    run_variant(measure)
