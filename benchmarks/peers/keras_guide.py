"""The recipe of Keras' guide "Transfer learning & fine-tuning", on VGG16, TensorFlow, float32.

Kept from the guide: augmentation with RandomFlip("horizontal") and RandomRotation(0.1), the frozen
base called with training=False inside one model, preprocessing in the model, global average
pooling, Dropout 0.2, a Dense layer of logits, Adam for the head, then Adam(1e-5) on the unfrozen
base, batches of 32, images cached in memory, prefetching, validation after every epoch.

Changed, the same for every variant: VGG16 in place of Xception, only block5 unfrozen, softmax over
the classes, shuffling each epoch, and the weights of the best validation loss restored at the end
of each stage. None of it costs the recipe time.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import time

import keras
import numpy as np
import tensorflow as tf

from measuring import (
    Assignment,
    Measured,
    Part,
    Stopwatch,
    read_parts,
    read_weights,
    run_variant,
)
from protocol import Protocol

History = dict[str, list[float]]


class ValidationClock(keras.callbacks.Callback):
    """Seconds that fit() spends on the validation images."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._start = 0.0

    def on_test_begin(self, logs: dict | None = None) -> None:
        self._start = time.perf_counter()

    def on_test_end(self, logs: dict | None = None) -> None:
        self.seconds += time.perf_counter() - self._start


def build_base(weights: dict[str, np.ndarray], image_size: int) -> keras.Model:
    """VGG16's convolutions with the given arrays, frozen."""
    shape = (image_size, image_size, 3)
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=shape)
    for layer in base.layers:
        if layer.weights:
            layer.set_weights([weights[f"{layer.name}/kernel"], weights[f"{layer.name}/bias"]])
    base.trainable = False
    return base


def build_model(base: keras.Model, protocol: Protocol, *, num_classes: int) -> keras.Model:
    """The guide's model: preprocessing, frozen base, pooling, dropout, logits."""
    inputs = keras.Input((protocol.image_size, protocol.image_size, 3))
    x = keras.applications.vgg16.preprocess_input(inputs)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(protocol.dropout, seed=protocol.seed)(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x))


def unfreeze_block5(base: keras.Model) -> None:
    """Make block5, and nothing below it, trainable."""
    base.trainable = True
    for layer in base.layers:
        layer.trainable = layer.name.startswith("block5")


def training_batches(part: Part, protocol: Protocol) -> tf.data.Dataset:
    """Decoded images in memory, shuffled, batched, augmented afresh in the pipeline."""
    layers = [
        keras.layers.RandomFlip(protocol.flip, seed=protocol.seed),
        keras.layers.RandomRotation(protocol.rotation, seed=protocol.seed + 1),
    ]

    def augment(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.cast(images, tf.float32)
        for layer in layers:
            images = layer(images, training=True)
        return images, labels

    batches = tf.data.Dataset.from_tensor_slices((part.images, part.labels))
    batches = batches.shuffle(len(part.labels), seed=protocol.seed).batch(protocol.batch_size)
    return batches.map(augment).prefetch(tf.data.AUTOTUNE)


def plain_batches(part: Part, protocol: Protocol) -> tf.data.Dataset:
    """The same without shuffling and augmentation, for validation and test."""
    batches = tf.data.Dataset.from_tensor_slices((part.images, part.labels))
    batches = batches.batch(protocol.batch_size)
    cast = batches.map(lambda images, labels: (tf.cast(images, tf.float32), labels))
    return cast.prefetch(tf.data.AUTOTUNE)


def fit(
    model: keras.Model,
    datasets: tuple[tf.data.Dataset, tf.data.Dataset],
    *,
    epochs: int,
    learning_rate: float,
    clock: ValidationClock,
) -> History:
    """Compile and train one stage, and leave the best weights in the model."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    keep_best = keras.callbacks.EarlyStopping(patience=epochs, restore_best_weights=True)
    training, validation = datasets
    history = model.fit(
        training,
        validation_data=validation,
        epochs=epochs,
        callbacks=[keep_best, clock],
        verbose=2,
    )
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def train_and_predict(
    assignment: Assignment, watch: Stopwatch
) -> tuple[np.ndarray, dict[str, History]]:
    """Follow the recipe from pixels to the test part's probabilities."""
    protocol = assignment.protocol
    with watch.stage("decode"):
        parts = read_parts(assignment.data)
        datasets = (
            training_batches(parts["train"], protocol),
            plain_batches(parts["validation"], protocol),
        )
        test = plain_batches(parts["test"], protocol)
    num_classes = int(parts["train"].labels.max()) + 1
    clock, history = ValidationClock(), {}
    with watch.stage("head"):
        base = build_base(read_weights(assignment.weights), protocol.image_size)
        model = build_model(base, protocol, num_classes=num_classes)
        rate, epochs = protocol.head_learning_rate, protocol.head_epochs
        history["head"] = fit(model, datasets, epochs=epochs, learning_rate=rate, clock=clock)
    with watch.stage("block5"):
        unfreeze_block5(base)
        rate, epochs = protocol.block5_learning_rate, protocol.block5_epochs
        history["block5"] = fit(model, datasets, epochs=epochs, learning_rate=rate, clock=clock)
    with watch.stage("evaluation"):
        logits = model.predict(test, verbose=0)
    watch.seconds["validation"] = clock.seconds
    return np.asarray(keras.ops.softmax(logits)), history


def measure(assignment: Assignment) -> Measured:
    """Run the variant with TensorFlow's threads set to the machine's cores."""
    tf.config.threading.set_intra_op_parallelism_threads(assignment.num_threads)
    keras.utils.set_random_seed(assignment.protocol.seed)
    watch = Stopwatch()
    probabilities, history = train_and_predict(assignment, watch)
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__, "numpy": np.__version__}
    settings = {"threads": assignment.num_threads, "xla": False, "dtype": "float32"}
    return Measured(probabilities, watch.seconds, versions, settings, history)


if __name__ == "__main__":
    run_variant(measure)
