"""What is inside a convolutional network: its first filters, and its answers to one picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from safelight.plots.grids import displayable, draw_grid


def plot_filters(
    kernels: ArrayLike, *, num_filters: int = 64, columns: int = 16, channel_order: str = "rgb"
) -> Figure:
    """Draw the kernels of a first layer as small pictures.

    Each is scaled by itself: zero is grey, its largest weight is black or white.

    Args:
        kernels: (height, width, 3 | 1, num_kernels), the layout of Keras.
        num_filters: how many at most, from the first on.
        columns: kernels in a row.
        channel_order: "rgb", or "bgr" for networks with Caffe's weights, such as VGG16.

    Raises:
        ValueError: if the kernels do not look at 1 or 3 channels.
    """
    kernels = np.asarray(kernels, np.float32)
    if kernels.ndim != 4 or kernels.shape[2] not in (1, 3) or channel_order not in ("rgb", "bgr"):
        raise ValueError(
            f"kernels of shape {kernels.shape}, channel_order {channel_order!r}; pass a first "
            "layer's (height, width, 3 or 1, num_kernels), and 'rgb' or 'bgr'."
        )
    kernels = kernels[:, :, ::-1] if channel_order == "bgr" else kernels
    kernels = np.moveaxis(kernels, -1, 0)[:num_filters]
    largest = np.maximum(np.abs(kernels).max(axis=(1, 2, 3), keepdims=True), 1e-12)
    tiles = [displayable(kernel, (-1, 1)) for kernel in kernels / largest]
    return draw_grid(tiles, [], min(columns, len(tiles)), cell=0.55)


def plot_activations(
    activations: ArrayLike,
    *,
    channels: Sequence[int] | int = 16,
    columns: int = 8,
) -> Figure:
    """Draw what channels of one layer answer to one picture, dark for nothing.

    Args:
        activations: (height, width, channels) of one picture.
        channels: which ones, or how many of those with the largest mean.
        columns: channels in a row.

    Raises:
        ValueError: if the array is no layer's answer to one picture.
    """
    activations = np.asarray(activations, dtype=np.float32)
    if activations.ndim != 3:
        raise ValueError(
            f"activations of shape {activations.shape}; pass one image's (height, width, channels)."
        )
    strongest = np.argsort(-activations.mean(axis=(0, 1)), kind="stable")
    shown = strongest[:channels] if isinstance(channels, int) else np.asarray(channels)
    tiles = np.moveaxis(activations[:, :, shown], -1, 0)
    tiles = tiles - tiles.min(axis=(1, 2), keepdims=True)
    tiles = tiles / np.maximum(tiles.max(axis=(1, 2), keepdims=True), 1e-12)
    tiles = colormaps["magma"](tiles)[..., :3]
    return draw_grid(tiles, [f"channel {c}" for c in shown], min(columns, len(tiles)), cell=1.1)
