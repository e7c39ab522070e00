"""The same VAE in plain JAX: a whole epoch is one compiled scan over batches, data in memory.

Our own script; what a JAX user without a library would write to be fast: bytes in one array, rows
gathered inside the scan, Adam as a tree map, the state donated. Random numbers come from JAX's
`unsafe_rbg` generator, which costs a CPU less than the default one, as bytes where bytes will do.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
from jax import numpy as jnp

from vae.measuring import Assignment, Clock, Measured, run_variant
from vae.network import LATENT_DIM, Weights

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
State = tuple[Weights, Weights, Weights, jax.Array, jax.Array]
"""Weights, Adam's two averages, the number of steps done, and a key."""


def dense(weights: Weights, name: str, x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """A layer whose product is in `dtype`, summed up and answered in float32."""
    product = jnp.dot(
        x.astype(dtype),
        weights[f"{name}/kernel"].astype(dtype),
        preferred_element_type=jnp.float32,
    )
    return product + weights[f"{name}/bias"]


def loss(weights: Weights, x: jax.Array, noise: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Minus the mean ELBO of pixels (batch, 784) of 0 and 1."""
    hidden = jax.nn.relu(dense(weights, "hidden", x, dtype))
    mean = dense(weights, "mean", hidden, dtype)
    log_variance = dense(weights, "log_variance", hidden, dtype)
    z = mean + jnp.exp(0.5 * log_variance) * noise
    hidden = jax.nn.relu(dense(weights, "decoder_hidden", z, dtype))
    logits = dense(weights, "pixels", hidden, dtype)
    log_likelihood = jnp.sum(x * logits - jax.nn.softplus(logits))
    kl = 0.5 * jnp.sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance)
    return (kl - log_likelihood) / len(x)


def adam(state: State, gradients: Weights, learning_rate: float) -> State:
    """One step of Adam (Kingma & Ba 2015)."""
    weights, first, second, step, key = state
    step = step + 1
    first = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, second, gradients)
    size = learning_rate * jnp.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
    weights = jax.tree.map(
        lambda w, m, v: w - size * m / (jnp.sqrt(v) + EPSILON), weights, first, second
    )
    return weights, first, second, step, key


def make_epoch(images: jax.Array, learning_rate: float, dtype: jnp.dtype):  # noqa: ANN201
    """A compiled function from a state and the rows of each batch to the next state."""

    def body(state: State, rows: jax.Array) -> tuple[State, jax.Array]:
        *rest, key = state
        key, for_pixels, for_latents = jax.random.split(key, 3)
        grey = images[rows]
        drawn = jax.random.bits(for_pixels, grey.shape, jnp.uint8)
        # P(white) is k / 256 up to grey 127 and (k + 1) / 256 from there: black and white are sure.
        x = ((drawn < grey) | ((drawn == grey) & (grey > 127))).astype(jnp.float32)
        noise = jax.random.normal(for_latents, (len(rows), LATENT_DIM))
        value, gradients = jax.value_and_grad(loss)(state[0], x, noise, dtype)
        return adam((*rest, key), gradients, learning_rate), value

    return jax.jit(lambda state, order: jax.lax.scan(body, state, order), donate_argnums=0)


def epoch_order(num_images: int, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """A new order as (steps, batch) int32; the last batch is filled up from the beginning."""
    shape = (-(-num_images // batch_size), batch_size)
    return np.resize(rng.permutation(num_images), shape).astype("int32")


def measure(assignment: Assignment, clock: Clock) -> Measured:
    """Run the scan, once per epoch."""
    protocol = assignment.protocol
    rng = np.random.default_rng(protocol.seed)
    clock.start()
    images = jnp.asarray(assignment.images.reshape(-1, 784))
    weights = jax.tree.map(jnp.array, assignment.weights)
    zeros = [jax.tree.map(jnp.zeros_like, weights) for _ in range(2)]
    key = jax.random.key(protocol.seed, impl="unsafe_rbg")
    state: State = (weights, *zeros, jnp.zeros((), "float32"), key)
    train = make_epoch(images, protocol.learning_rate, jnp.dtype(assignment.variant.precision))
    for _ in range(protocol.epochs):
        order = epoch_order(len(images), protocol.batch_size, rng)
        state, losses = train(state, order)
        losses.block_until_ready()
        if clock.end_epoch(functools.partial(jax.device_get, state[0])):
            break
    settings = {
        "threads": assignment.num_threads,
        "dtype": assignment.variant.precision,
        "data": "bytes in one array, gathered inside the scan",
        "random_numbers": "unsafe_rbg",
    }
    return Measured({"jax": jax.__version__, "numpy": np.__version__}, settings)


if __name__ == "__main__":
    run_variant(measure)
