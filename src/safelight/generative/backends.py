"""What a compiled training loop needs of a backend beyond `keras.ops`: a row for each of them.

Adam is that of Keras, written as one pass over the memory (Kingma & Ba 2015, arXiv 1412.6980).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from safelight.generative.schedules import BETAS

EPSILON = 1e-7  # of Adam, as in Keras

State = dict[str, list[Any]]
"""Tensors: the weights, Adam's two averages and the running one of each, and other variables."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """What the loop needs of a backend beyond `keras.ops`.

    Attributes:
        gradient: `(function, values)`, where `function(values)` is `(loss, rest)`, to `(rest,
            gradients)`.
        input_gradient: `(function, value)`, where `function(value)` is a scalar, to its gradient,
            through which `gradient` can differentiate again.
        update: `(state, gradients, step size, how much of the weights goes into the average)` to
            the next state; by name `betas`, the decays of Adam's averages.
        repeat: `(first, last, body, state)`, with `state = body(step, state)` for each step.
        compile: A function, and whether the model has convolutions, to a faster one.
        tensor: A NumPy array to a tensor of its own memory.
    """

    gradient: Callable[[Callable[..., Any], list[Any]], tuple[Any, list[Any]]]
    input_gradient: Callable[[Callable[[Any], Any], Any], Any]
    update: Callable[..., State]
    repeat: Callable[..., Any]
    compile: Callable[[Callable[..., Any], bool], Callable[..., Any]]
    tensor: Callable[[np.ndarray], Any]


def _update(
    state: State,
    gradients: list[Any],
    size: Any,
    share: Any,
    betas: tuple[float, float] = BETAS,
) -> State:
    """Adam and the average; a compiler makes one pass over the memory of it."""
    pairs = list(zip(state["mean"], state["square"], gradients, strict=True))
    mean = [m + (g - m) * (1 - betas[0]) for m, _, g in pairs]
    square = [s + (g * g - s) * (1 - betas[1]) for _, s, g in pairs]
    moved = zip(state["weights"], mean, square, strict=True)
    weights = [w - size * m / (ops.sqrt(s) + EPSILON) for w, m, s in moved]
    average = [a + share * (w - a) for a, w in zip(state["average"], weights, strict=True)]
    return {**state, "weights": weights, "mean": mean, "square": square, "average": average}


def _update_torch(
    state: State,
    gradients: list[Any],
    size: Any,
    share: Any,
    betas: tuple[float, float] = BETAS,
) -> State:
    """In place, and Adam in one pass: new memory would cost more than the sums."""
    import torch

    # The correction for averages that start at 0 is in the step size; here it is over.
    steps = [torch.full((), 1e9, device=state["weights"][0].device)] * len(gradients)
    torch._fused_adam_(
        state["weights"],
        gradients,
        state["mean"],
        state["square"],
        [],
        steps,
        lr=float(size),
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=0.0,
        eps=EPSILON,
        amsgrad=False,
        maximize=False,
    )
    torch._foreach_lerp_(state["average"], state["weights"], float(share))
    return state


def _tensorflow() -> Backend:
    import tensorflow as tf

    def gradient(function: Callable[..., Any], values: list[Any]) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss, rest = function(values)
        return rest, tape.gradient(loss, values, unconnected_gradients="zero")

    def input_gradient(function: Callable[[Any], Any], value: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(value)
            found = function(value)
        return tape.gradient(found, value, unconnected_gradients="zero")

    def repeat(first: Any, last: Any, body: Callable[..., Any], state: Any) -> Any:
        return tf.while_loop(
            lambda step, _: step < last,
            lambda step, state: (step + 1, body(step, state)),
            (first, state),
            parallel_iterations=1,
        )[1]

    def compiled(function: Callable[..., Any], convolutional: bool) -> Callable[..., Any]:
        # XLA's convolutions on a CPU take two to four times as long as TensorFlow's own.
        return tf.function(function, jit_compile=not convolutional, autograph=False)

    return Backend(gradient, input_gradient, _update, repeat, compiled, tf.constant)


def _jax() -> Backend:
    import jax

    def gradient(function: Callable[..., Any], values: list[Any]) -> tuple[Any, list[Any]]:
        gradients, rest = jax.grad(function, has_aux=True)(values)
        return rest, gradients

    def compiled(function: Callable[..., Any], _: bool) -> Callable[..., Any]:
        return jax.jit(function)

    def input_gradient(function: Callable[[Any], Any], value: Any) -> Any:
        return jax.grad(function)(value)

    return Backend(gradient, input_gradient, _update, jax.lax.fori_loop, compiled, jax.numpy.array)


def _torch() -> Backend:
    import torch

    def gradient(function: Callable[..., Any], values: list[Any]) -> tuple[Any, list[Any]]:
        with torch.enable_grad():
            leaves = [value.requires_grad_(True) for value in values]
            loss, rest = function(leaves)
            gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
        # A convolution's may lie in memory with channels last; fused Adam goes by the weights'.
        return rest, [gradient.contiguous() for gradient in gradients]

    def input_gradient(function: Callable[[Any], Any], value: Any) -> Any:
        value = value.detach().requires_grad_(True)
        with torch.enable_grad():
            (found,) = torch.autograd.grad(
                function(value), [value], create_graph=True, materialize_grads=True
            )
        return found

    def repeat(first: Any, last: Any, body: Callable[..., Any], state: Any) -> Any:
        with torch.no_grad():
            for step in range(int(first), int(last)):
                state = body(step, state)
        return state

    # Keras computes on a GPU where there is one; PyTorch makes its tensors on the processor.
    tensor = functools.partial(torch.tensor, device=ops.zeros(()).device)
    return Backend(
        gradient, input_gradient, _update_torch, repeat, lambda function, _: function, tensor
    )


_BACKENDS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}


def without_gradients() -> contextlib.AbstractContextManager[Any]:
    """Within it nothing is kept that gradients would need; the others do so only when asked."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def full_product(a: Any, b: Any) -> Any:
    """The product of two float32 matrices in float32, on a GPU as well.

    There JAX and TensorFlow round the factors to TF32, eleven bits, unless they are told otherwise;
    what is left of a difference of large products is then nothing.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.numpy.matmul(a, b, precision="highest")
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            a, b = ops.cast(a, "float64"), ops.cast(b, "float64")
    return ops.cast(ops.matmul(a, b), "float32")


def find_backend() -> Backend:
    """The row of the backend that Keras runs on.

    Raises:
        ValueError: It cannot train.
    """
    name = keras.backend.backend()
    if name not in _BACKENDS:
        raise ValueError(
            f"Keras runs on {name!r}: training needs one of {', '.join(_BACKENDS)}; set "
            "KERAS_BACKEND."
        )
    return _BACKENDS[name]()
