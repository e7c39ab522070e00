"""Keras on TensorFlow: as Safelight runs it, under XLA, or in several processes at once."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from trunk.protocol import OUTPUTS

if TYPE_CHECKING:
    import keras

    from trunk.child import Assignment, Run

_started: list[Run] = []  # in a process of its own: the function it computes by


def build_model(image_size: int, precision: str) -> keras.Model:
    """VGG16 from resized pixels to the pooled activations that the default head sees.

    The same as Safelight's extraction builds: pooled in float32, whatever the precision.
    """
    import keras

    from safelight.transfer import backbones, features

    backbone = backbones.load_backbone("vgg16", image_size=image_size)
    model = backbones.copy_model(backbone, precision=precision)
    model.trainable = False
    pairs = [wanted.split("/") for wanted in OUTPUTS]
    outputs = [features.pool(model.get_layer(layer).output, kind) for layer, kind in pairs]
    return keras.Model(backbones.find_resizing(model).output, outputs)


def start(image_size: int, precision: str, threads: int, jit_compile: bool) -> Run:
    """Set TensorFlow's threads, which has to come first, and build."""
    import tensorflow as tf

    from safelight.transfer import engines

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = build_model(image_size, precision)
    if jit_compile:
        model.compile(jit_compile=True)
    return engines.build_engine("keras", model, precision=precision)


def start_process(image_size: int, precision: str) -> None:
    """Be a process of one thread."""
    _started.append(start(image_size, precision, 1, False))


def compute(images: np.ndarray) -> list[np.ndarray]:
    """What a process started by `start_process` does."""
    return _started[0](images)


def build_processes(assignment: Assignment) -> Run:
    """Each core computes an equal share of the batch in a process of its own."""
    arguments = (assignment.protocol.image_size, assignment.variant.precision)
    context = multiprocessing.get_context("spawn")
    # A pool of one each: a pool of several might give one of them two shares.
    pools = [
        ProcessPoolExecutor(1, mp_context=context, initializer=start_process, initargs=arguments)
        for _ in range(assignment.num_threads)
    ]

    def run(images: np.ndarray) -> list[np.ndarray]:
        shares = np.array_split(images, len(pools))
        futures = [pool.submit(compute, share) for pool, share in zip(pools, shares, strict=True)]
        columns = zip(*(future.result() for future in futures), strict=True)
        return [np.concatenate(column) for column in columns]

    return run


def build(assignment: Assignment) -> tuple[Run, dict[str, object]]:
    """The function that is timed, and what a reader must know of it."""
    variant = assignment.variant
    if variant.options.get("processes"):
        count = assignment.num_threads
        return build_processes(assignment), {"processes": count, "threads_of_each": 1}
    jit_compile = bool(variant.options.get("jit_compile"))
    size, threads = assignment.protocol.image_size, assignment.num_threads
    return start(size, variant.precision, threads, jit_compile), {"jit_compile": jit_compile}
