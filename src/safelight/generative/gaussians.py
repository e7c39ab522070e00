"""How far a diagonal Gaussian is from the standard one."""

from __future__ import annotations

from typing import Any

from keras import ops


def kl_per_unit(mean: Any, log_variance: Any) -> Any:
    """KL divergence of `N(mean, exp(log_variance))` from `N(0, 1)`, of each latent unit.

    Kingma & Welling 2014 (arXiv 1312.6114), appendix B.

    Args:
        mean: `(..., latent_dim)`.
        log_variance: The same shape.

    Returns:
        `(..., latent_dim)`, nats, at least 0.
    """
    return 0.5 * (ops.square(mean) + ops.exp(log_variance) - 1.0 - log_variance)


def kl_divergence(mean: Any, log_variance: Any) -> Any:
    """The sum of `kl_per_unit` over the latent units: `(...)`, nats per image."""
    return ops.sum(kl_per_unit(mean, log_variance), axis=-1)
