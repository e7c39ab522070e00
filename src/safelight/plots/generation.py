"""What a generative model makes: reconstructions, samples, walks through its latent space.

Pictures are integers from 0 to 255 or floats from 0 to 1, all of one size, grey or colour.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from safelight.plots.grids import as_pictures, draw_mosaic, fill_rows
from safelight.plots.style import signed

STANDARD_SCALE = "standard deviations of the prior"
LEARNED_SCALE = "place among the prior's draws, as a score of N(0, 1)"
_PER_ROW = 10  # pictures, beyond which pairs go on in the next rows


def plot_reconstructions(
    originals: ArrayLike, reconstructions: ArrayLike, *, columns: int | None = None
) -> Figure:
    """Draw pictures, and below each what the model makes of it after its bottleneck.

    Args:
        originals: (n, height, width, channels).
        reconstructions: the same shape; the type may be another.
        columns: pairs side by side; chosen if None.

    Raises:
        ValueError: if there is no picture, or the shapes differ.
    """
    above, below = (as_pictures(array, "n") for array in (originals, reconstructions))
    if above.shape != below.shape:
        raise ValueError(
            f"originals of shape {np.shape(originals)} and reconstructions of shape "
            f"{np.shape(reconstructions)}; pass one reconstruction per original, of its size."
        )
    blocks = math.ceil(len(above) / _PER_ROW)
    columns = columns or math.ceil(len(above) / blocks)
    rows = np.stack([fill_rows(above, columns), fill_rows(below, columns)], axis=1)
    rows = rows.reshape(-1, *rows.shape[2:])
    error = math.sqrt(np.square(above - below, dtype=np.float64).mean())
    many = (
        f"{len(above)} pictures and their reconstructions" if len(above) > 1 else "reconstruction"
    )
    return draw_mosaic(
        rows,
        title=f"{many}, root mean square error {error:.3f} (black 0, white 1)",
        row_names=["original", "reconstruction"] * (len(rows) // 2),
        breaks=(range(2, len(rows), 2), ()),
    )


def plot_samples(
    pictures: ArrayLike,
    *,
    columns: int | None = None,
    row_names: Sequence[str] = (),
    title: str | None = None,
    temperature: float = 1.0,
) -> Figure:
    """Draw pictures that the model made from nothing.

    Args:
        pictures: (n, height, width, channels).
        columns: pictures in a row; chosen if None.
        row_names: what each row shows, for instance the class that a conditional model was asked
            for; the pictures go row by row.
        title: what is seen; if None, what the pictures were decoded from.
        temperature: factor of the draws from the prior; it stands in that title.

    Raises:
        ValueError: if there is no picture, or there are not as many rows as names.
    """
    shown = as_pictures(pictures, "n")
    title = _say_source(temperature) if title is None else title
    if row_names and columns is None:
        columns = math.ceil(len(shown) / len(row_names))
    rows = fill_rows(shown, columns or _oblong(len(shown)))
    if row_names and len(row_names) != len(rows):
        raise ValueError(
            f"{len(row_names)} row_names for {len(shown)} pictures in {len(rows)} rows of "
            f"{rows.shape[1]}; pass one name per row."
        )
    return draw_mosaic(rows, title=title, row_names=row_names)


def plot_latent_manifold(
    pictures: ArrayLike,
    *,
    values: ArrayLike | None = None,
    unit_names: tuple[str, str] = ("first latent unit", "second latent unit"),
    scale: str = STANDARD_SCALE,
) -> Figure:
    """Draw the expected pictures over a plane of the latent space, laid out like a map.

    Args:
        pictures: (n, n, height, width, channels), as `vae.latent_manifold` gives them: the first
            unit grows to the right, the second upwards, so row 0 is the top.
        values: (n,) of both units, rising; the quantiles (i + 1/2) / n of N(0, 1) if None.
        unit_names: what the units are called.
        scale: what the values are.

    Raises:
        ValueError: if the shape is another one, or values do not fit or do not rise.
    """
    shown = as_pictures(pictures, "n", "n")
    num = len(shown)
    prior = [NormalDist().inv_cdf((i + 0.5) / num) for i in range(num)]
    places = np.asarray(prior if values is None else values, dtype=float)
    if shown.shape[1] != num or places.shape != (num,) or not (np.diff(places) > 0).all():
        raise ValueError(
            f"pictures in {num} rows and {shown.shape[1]} columns, values of shape {places.shape}; "
            "pass as many rows as columns, and for each a value larger than the one before."
        )
    spacing = "" if values is not None else ", each for an equal share of the two units' prior"
    return draw_mosaic(
        shown,
        title=f"decoded over the latent plane: {num} × {num} pictures{spacing}",
        row_names=[signed(value) for value in places[::-1]],
        column_names=[signed(value) for value in places],
        axis_names=(f"{unit_names[0]} ({scale})", unit_names[1]),
    )


def plot_interpolation(
    pictures: ArrayLike | Mapping[str, ArrayLike],
    *,
    originals: tuple[ArrayLike, ArrayLike] | None = None,
) -> Figure:
    """Draw the ways from one picture to another through the latent space, one a row.

        ways = {"linear": vae.interpolate(model, a, b)}
        ways["spherical"] = vae.interpolate(model, a, b, spherical=True)
        plots.plot_interpolation(ways, originals=(images_a, images_b))

    Args:
        pictures: (num_pairs, steps, height, width, channels), or a name for each of several such
            arrays; then the ways between one pair are drawn below each other.
        originals: (num_pairs, height, width, channels) where the ways begin, and where they end,
            drawn at both sides.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    named = pictures if isinstance(pictures, Mapping) else {"": pictures}
    ways = [as_pictures(array, "num_pairs", "steps") for array in named.values()]
    if len({way.shape for way in ways}) != 1:
        found = ", ".join(f"{name}: {np.shape(array)}" for name, array in named.items())
        raise ValueError(
            f"arrays of shapes {found or 'none'}; pass at least one, all of one shape."
        )
    rows, (num_pairs, num_steps) = np.stack(ways, axis=1), ways[0].shape[:2]
    columns = [f"{100 * step / max(num_steps - 1, 1):.0f} %" for step in range(num_steps)]
    if originals is not None:
        rows = _between(rows, [as_pictures(array, "num_pairs") for array in originals])
        columns = ["original", *columns, "original"]
    return draw_mosaic(
        rows.reshape(-1, *rows.shape[2:]),
        title="decoded on the way between two pictures through the latent space",
        row_names=[name for name in named if name] * num_pairs,
        column_names=columns,
        axis_names=("share of the way from the left end to the right end", ""),
        breaks=(
            range(len(ways), num_pairs * len(ways), len(ways)) if len(ways) > 1 else (),
            () if originals is None else (1, num_steps + 1),
        ),
    )


def plot_traversals(
    pictures: ArrayLike,
    kl_per_unit: ArrayLike,
    *,
    values: ArrayLike,
    units: Sequence[int] | None = None,
    scale: str = STANDARD_SCALE,
) -> Figure:
    """Draw what one latent unit at a time changes while the others stay, the busiest unit on top.

    Args:
        pictures: (rows, steps, height, width, channels).
        kl_per_unit: (latent_dim,) nats, of all units.
        values: (steps,) that the unit takes, on the scale.
        units: (rows,) the unit that a row moves; if None, the rows are those of `vae.traverse`:
            the units with most KL, largest first.
        scale: what the values are.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    rows = as_pictures(pictures, "rows", "steps")
    kl, places = np.asarray(kl_per_unit, dtype=float), np.asarray(values, dtype=float)
    busiest = np.argsort(-kl, kind="stable")[: len(rows)] if kl.ndim == 1 else ()
    moved = np.asarray(busiest if units is None else units, dtype=int)
    known = kl.ndim == 1 and moved.size and moved.min() >= 0 and moved.max() < len(kl)
    if not known or moved.shape != rows.shape[:1] or places.shape != rows.shape[1:2]:
        raise ValueError(
            f"{len(rows)} rows of {rows.shape[1]} pictures, kl_per_unit of shape {kl.shape}, "
            f"values of shape {places.shape}, units {moved.tolist()}; pass the KL of all units, a "
            "value per column and a unit per row."
        )
    order = np.argsort(-kl[moved], kind="stable")
    return draw_mosaic(
        rows[order],
        title="one latent unit moves, the others stay; the unit with most KL on top",
        row_names=[f"unit {unit}, KL {_nats(kl[unit])} nats" for unit in moved[order]],
        column_names=[signed(value) for value in places],
        axis_names=(f"value of the unit ({scale})", ""),
    )


def plot_generators(rows: Sequence[tuple[str, ArrayLike]], *, num: int = 12) -> Figure:
    """Draw what several generators make, a row for each.

    Args:
        rows: of each its name and pictures, (n, height, width, channels) of one size.
        num: pictures in a row, the first ones.

    Raises:
        ValueError: if there is no row, or none of its pictures.
    """
    if not rows:
        raise ValueError("no generator was passed: pass a name and pictures at least.")
    shown = [as_pictures(pictures, "n")[:num] for _, pictures in rows]
    most = min(len(each) for each in shown)
    return plot_samples(
        np.concatenate([each[:most] for each in shown]),
        columns=most,
        row_names=[name for name, _ in rows],
        title="what each draws",
    )


def _say_source(temperature: float) -> str:
    """Where samples come from, with the variance that the temperature leaves of the prior's."""
    if temperature == 1:
        return "decoded from draws of the prior"  # which may be a learned one
    if temperature == 0:
        return "decoded from the middle of the prior, z = 0 (temperature 0)"
    return f"decoded at temperature {temperature:g}: z ~ N(0, {temperature:g}² I)"


def _oblong(num: int) -> int:
    """Columns of a table that is somewhat wider than high, and full if that can be."""
    wanted = math.sqrt(1.6 * num)
    full = [c for c in range(math.isqrt(num), math.ceil(1.6 * wanted) + 1) if c and num % c == 0]
    full = [c for c in full if c * c >= num]
    return min(full, key=lambda c: abs(c - wanted), default=math.ceil(wanted))


def _between(rows: NDArray[np.float32], ends: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Put the originals at both sides of (num_pairs, ways, steps, h, w, 3) pictures."""
    wanted = (len(rows), *rows.shape[3:])
    if any(end.shape != wanted for end in ends) or len(ends) != 2:
        raise ValueError(
            f"originals of shapes {[end.shape[:-1] for end in ends]}; pass two arrays of "
            f"{wanted[:-1]}: the first and the last picture of each pair."
        )
    left, right = (np.repeat(end[:, None, None], rows.shape[1], axis=1) for end in ends)
    return np.concatenate([left, rows, right], axis=2)


def _nats(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}" if value >= 0.01 else "< 0.01"
