"""What every variant of the VAE's training benchmark must do alike.

NumPy only: the peers import this module in environments without Keras or Safelight.
"""

from __future__ import annotations

import dataclasses

from saving import Saved

CLAIM = "vae_training_speed"
LEVELS = (-105, -100, -97)


@dataclasses.dataclass(frozen=True)
class Protocol(Saved):
    """The one recipe: network 784-400-20-400-784 (`network.LAYERS`), ReLU, Bernoulli likelihood.

    Attributes:
        num_train, num_test: Images, from MNIST's official parts. The test images judge, outside the
            clock, on one draw of black and white pixels.
        binarization: `"dynamic"`: every variant draws each pixel anew, with its grey value as
            probability of white, every time it is seen.
        epochs: Passes over the training images; also the length of Safelight's learning rate decay.
        max_seconds: A variant that has trained longer stops after the epoch it is in.
        learning_rate: Adam's, constant but where a variant says otherwise.
        seed: Of the first weights, order and noise; one per repeat.
        data_digest: SHA-256 of pixels, so that results of other data never mix.
    """

    dataset: str = "mnist"
    num_train: int = 60_000
    num_test: int = 10_000
    binarization: str = "dynamic"
    batch_size: int = 128
    epochs: int = 20
    max_seconds: float = 30.0
    learning_rate: float = 1e-3
    seed: int = 0
    data_digest: str = ""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table: which module runs it, on which framework, how.

    Attributes:
        backend: `"tensorflow"`, `"jax"` or `"torch"`, which also chooses the interpreter.
        package: Whose version stands in the result's file name.
        in_memory: Whether the data lie ready in memory and the optimiser is fused (PyTorch only).
        ours: Whether it is Safelight.
    """

    letter: str
    title: str
    module: str
    backend: str
    package: str
    precision: str = "float32"
    in_memory: bool = False
    ours: bool = False


def _ours(letter: str, framework: str, backend: str, precision: str) -> Variant:
    title = f"Safelight on {framework}, {precision}"
    return Variant(letter, title, "vae.ours", backend, "keras", precision, True, True)


VARIANTS = {
    variant.letter: variant
    for variant in (
        _ours("a", "TensorFlow", "tensorflow", "float32"),
        _ours("b", "TensorFlow", "tensorflow", "bfloat16"),
        _ours("c", "JAX", "jax", "float32"),
        _ours("d", "JAX", "jax", "bfloat16"),
        Variant("e", "pythae's trainer", "peers.vae_pythae", "torch", "torch"),
        Variant("f", "Keras example's loop", "peers.vae_keras_example", "tensorflow", "keras"),
        Variant("g", "pytorch/examples' loop", "peers.vae_torch_example", "torch", "torch"),
        Variant(
            "h",
            "the same, in memory, fused Adam, bfloat16",
            "peers.vae_torch_example",
            "torch",
            "torch",
            "bfloat16",
            in_memory=True,
        ),
        Variant("i", "plain JAX, epoch in one scan", "peers.vae_jax", "jax", "jax"),
        Variant("j", "the same, bfloat16", "peers.vae_jax", "jax", "jax", "bfloat16"),
    )
}
