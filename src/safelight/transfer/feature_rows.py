"""Rows of activations as training reads them: lazily from the cache, or held in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from safelight.transfer.feature_cache import CacheEntry


def _spare_memory() -> int:
    """Bytes of memory that are free now; 2 GB where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2 * 10**9


class Features:
    """One layer's rows for the images of a data set, read lazily from the cache.

    Attributes:
        shape: Shape of one row.
        num_images: Images, in the data set's order.
        num_views: Views of each, counted from 0, the image itself.
    """

    def __init__(self, entries: Sequence[CacheEntry], digests: Sequence[str]) -> None:
        self._entries, self._digests = tuple(entries), tuple(digests)
        self.shape = entries[0].row_shape
        self.dtype = entries[0].dtype
        self.num_images, self.num_views = len(digests), len(entries)
        self._held: dict[int, np.ndarray] = {}

    def hold(self, max_bytes: int | None = None) -> bool:
        """Reads all rows into memory, if they fit; training reads each of them many times.

        The operating system keeps read files in memory too, but gives them up first.

        Args:
            max_bytes: Default: half of the memory that is free now.

        Returns:
            Whether they are held; if not, they are read from the cache as before.
        """
        needed = self.num_images * sum(entry.row_bytes for entry in self._entries)
        if needed > (_spare_memory() // 2 if max_bytes is None else max_bytes):
            return False
        held = {view: self.gather(view=view) for view in range(self.num_views)}
        self._held = held
        return True

    def _rows(self, view: int, chosen: np.ndarray) -> np.ndarray:
        if view in self._held:
            return self._held[view][chosen]
        return self._entries[view].gather([self._digests[i] for i in chosen])

    def gather(
        self, indices: Sequence[int] | np.ndarray | None = None, *, view: int | np.ndarray = 0
    ) -> np.ndarray:
        """The rows of some images (of all by default).

        Args:
            indices: `(m,)` positions in the data set.
            view: One view for all, or `(m,)` a view for each.

        Returns:
            `(m, *shape)` in the stored dtype.
        """
        chosen = np.arange(self.num_images) if indices is None else np.asarray(indices)
        views = np.broadcast_to(view, chosen.shape)
        if np.ndim(view) == 0:
            return self._rows(int(view), chosen)
        parts = [(v, np.flatnonzero(views == v)) for v in np.unique(views)]
        rows = [self._rows(int(v), chosen[at]) for v, at in parts]
        out = np.empty((len(chosen), *self.shape), rows[0].dtype)
        for (_, at), part in zip(parts, rows, strict=True):
            out[at] = part
        return out
