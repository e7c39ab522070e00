"""The mathematics of the game: losses of both players, and penalties on the discriminator.

D(x) is a logit, the larger the more real. All losses are means over the batch, to be minimised;
docs/theory/gan.md derives them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

LOSSES = ("non_saturating", "hinge", "wasserstein")
PENALTIES = ("gradient", "r1")
_TINY = 1e-12  # under the root, whose slope at 0 is infinite


def discriminator_loss(real: Any, fake: Any, loss: str = "non_saturating") -> Any:
    """What the discriminator minimises.

    Goodfellow et al. 2014 (arXiv 1406.2661), equation 1, as cross-entropy: E[softplus(-D(x))] +
    E[softplus(D(G(z)))]. Hinge, Lim & Ye 2017 (arXiv 1705.02894): E[max(0, 1 - D(x))] + E[max(0, 1
    + D(G(z)))]. Wasserstein, Arjovsky et al. 2017 (arXiv 1701.07875): E[D(G(z))] - E[D(x)].

    Args:
        real: `(batch,)` logits of real pictures.
        fake: `(batch,)` logits of generated ones.
        loss: One of `LOSSES`.

    Raises:
        ValueError: Another loss.
    """
    if loss == "non_saturating":
        return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))
    if loss == "hinge":
        return ops.mean(ops.relu(1.0 - real)) + ops.mean(ops.relu(1.0 + fake))
    if loss == "wasserstein":
        return ops.mean(fake) - ops.mean(real)
    raise ValueError(f"loss={loss!r}: expected one of {', '.join(LOSSES)}.")


def generator_loss(fake: Any, loss: str = "non_saturating") -> Any:
    """What the generator minimises.

    Non-saturating: E[softplus(-D(G(z)))], whose gradient does not vanish where the discriminator is
    sure (Goodfellow et al. 2014, section 3); hinge and Wasserstein: -E[D(G(z))].

    Args:
        fake: `(batch,)` logits of generated pictures.
        loss: One of `LOSSES`.

    Raises:
        ValueError: Another loss.
    """
    if loss == "non_saturating":
        return ops.mean(ops.softplus(-fake))
    if loss in LOSSES:
        return -ops.mean(fake)
    raise ValueError(f"loss={loss!r}: expected one of {', '.join(LOSSES)}.")


def gradient_penalty(
    discriminate: Callable[[Any], Any], points: Any, input_gradient: Callable[..., Any], kind: str
) -> Any:
    """How far the discriminator's gradient by pictures is from what it should be.

    By pictures from -1 to 1, as the papers have them, so that their weights hold here: half of the
    gradient by pictures from 0 to 1.

    `"gradient"`: E[(|grad D(x)| - 1)^2], at points between real and generated pictures: what a
    discriminator that measures the Wasserstein distance has (Gulrajani et al. 2017, arXiv
    1704.00028, equation 3). `"r1"`: E[|grad D(x)|^2] / 2, at real pictures: with it the game
    converges (Mescheder et al. 2018, arXiv 1801.04406, equation 9).

    Args:
        discriminate: From pictures to logits `(batch,)`; each looks at its own picture only.
        points: `(batch, height, width, channels)` pictures in [0, 1].
        input_gradient: As in `Backend`.
        kind: One of `PENALTIES`.

    Raises:
        ValueError: Another kind.
    """
    if kind not in PENALTIES:
        raise ValueError(f"penalty={kind!r}: expected one of {', '.join(PENALTIES)}.")
    slopes = 0.5 * input_gradient(lambda x: ops.sum(discriminate(x)), points)
    squares = ops.sum(ops.square(slopes), axis=(1, 2, 3))
    if kind == "r1":
        return 0.5 * ops.mean(squares)
    return ops.mean(ops.square(ops.sqrt(squares + _TINY) - 1.0))


def interpolate(real: Any, fake: Any, shares: Any) -> Any:
    """Points on straight lines between pictures.

    Args:
        real: `(batch, height, width, channels)`.
        fake: The same shape.
        shares: `(batch,)` in [0, 1], of the real one.
    """
    shares = ops.reshape(shares, (-1, 1, 1, 1))
    return fake + shares * (real - fake)
