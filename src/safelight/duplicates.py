"""Find pictures that are the same picture: byte for byte, or copied with small changes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from safelight.images import perceptual_hash, thumbnail

# Re-encoded, resized and brightened copies of 150 solar cells differed in 0 to 6 of 64 bits.
MAX_DISTANCE = 6

# Measured on 2,624 solar cells, which all look alike: the 32 x 32 luminances of two different
# cells correlate by 0.9984 at most; those of a cell or a photograph and its copy (JPEG quality 75,
# half size) by 0.9995 at least. Harder changes (JPEG quality 30, clipped highlights) may be missed.
MIN_CORRELATION = 0.999

# The same shape in other colours is another picture. The bar is lower because JPEG blurs colours:
# 64-pixel photographs and their copies (JPEG quality 75) correlate by 0.992 at least.
MIN_COLOUR_CORRELATION = 0.98

# Below this standard deviation in grey levels a thumbnail is flat, and its shape is only noise.
MIN_CONTRAST = 2.0

_THUMBNAIL_SIZE = 32
_BLOCK = 512
_MOST_HELD = 1_000_000  # confirmed pairs, 16 bytes each; of n alike pictures there are n^2 / 2


def find_duplicates(
    digests: Sequence[str],
    hashes: Sequence[int | None],
    read: Callable[[int], NDArray[np.uint8]],
    *,
    num_threads: int = 1,
) -> tuple[tuple[int, ...], ...]:
    """Group pictures that are exact or near duplicates of one another.

    Use it once the files of a data set are hashed. Two pictures are near duplicates if their
    perceptual hashes differ in at most `MAX_DISTANCE` bits and their 32 x 32 thumbnails correlate
    by at least `MIN_CORRELATION` in luminance and `MIN_COLOUR_CORRELATION` in colour. Only
    pictures with a candidate are read again. Being duplicates is made transitive. Mirrored,
    rotated, shifted and cropped copies are not found.

    Args:
        digests: A digest of each picture's content; equal digests are exact duplicates.
        hashes: The perceptual hash of each picture, or None to compare it by digest only.
        read: Gives picture i, (height, width, 3), uint8; must be thread-safe.
        num_threads: How many pictures to read at once.

    Returns:
        Clusters of two and more indices, ascending within and between clusters.
    """
    _, first, inverse = np.unique(np.array(digests), return_index=True, return_inverse=True)
    exact = np.stack([np.arange(len(digests)), first[inverse]], axis=1)
    near = _near_pairs(np.unique(first), hashes, read, num_threads)
    return _clusters(len(digests), np.concatenate([exact, near]))


def hash_picture(image: NDArray[np.uint8]) -> int | None:
    """Hash a picture for `find_duplicates`.

    Use it while the picture is decoded anyway.

    Args:
        image: Pixels, (height, width, 3 | 1), uint8.

    Returns:
        Its perceptual hash, or None if it is so flat that its hash would be noise.
    """
    # Reduced once, for both: what is 32 x 32 already is not resized again by perceptual_hash.
    small = thumbnail(image, _THUMBNAIL_SIZE)
    return perceptual_hash(small) if small.std() >= MIN_CONTRAST else None


def _near_pairs(
    distinct: NDArray[np.int64],
    hashes: Sequence[int | None],
    read: Callable[[int], NDArray[np.uint8]],
    num_threads: int,
) -> NDArray[np.int64]:
    hashed = np.array([i for i in distinct if hashes[i] is not None], dtype=np.int64)
    codes = np.array([hashes[i] for i in hashed], dtype=np.uint64)
    involved = np.zeros(len(codes), dtype=bool)
    # The pairs are gone through twice, so that they need not all be held: alike pictures make
    # as many pairs as the square of their number.
    for first, second in _candidates(codes):
        involved[first] = involved[second] = True
    if not involved.any():
        return np.empty((0, 2), dtype=np.int64)
    rows = np.cumsum(involved) - 1
    greys, colours = _shapes(hashed[involved], read, num_threads)
    confirmed: list[NDArray[np.int64]] = []
    held = 0
    for first, second in _candidates(codes):
        if held > _MOST_HELD:
            confirmed = [_span(len(hashes), np.concatenate(confirmed))]
            held = 0
        one, other = rows[first], rows[second]
        same = np.vecdot(greys[one], greys[other]) >= MIN_CORRELATION
        same &= np.vecdot(colours[one], colours[other]) >= MIN_COLOUR_CORRELATION
        confirmed.append(np.stack([hashed[first[same]], hashed[second[same]]], axis=1))
        held += int(same.sum())
    return np.concatenate(confirmed)


def _candidates(codes: NDArray[np.uint64]) -> Iterator[tuple[NDArray, NDArray]]:
    """Yield index pairs (i < j) of codes that differ in few bits, by brute force, in blocks."""
    for start in range(0, len(codes), _BLOCK):
        distances = np.bitwise_count(codes[start : start + _BLOCK, np.newaxis] ^ codes[start:])
        first, second = np.nonzero(distances <= MAX_DISTANCE)
        first, second = first[second > first] + start, second[second > first] + start
        for part in range(0, len(first), _BLOCK):
            yield first[part : part + _BLOCK], second[part : part + _BLOCK]


def _shapes(
    indices: NDArray[np.int64], read: Callable[[int], NDArray[np.uint8]], num_threads: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the thumbnails, grey and in colour, as vectors whose products are correlations."""
    with ThreadPoolExecutor(num_threads) as threads:
        small = list(threads.map(lambda i: thumbnail(read(i), _THUMBNAIL_SIZE), indices.tolist()))
    colours = np.array(small, dtype=np.float32).reshape(len(small), _THUMBNAIL_SIZE**2, 3)
    greys = colours @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return _standardised(greys), _standardised(colours.reshape(len(small), -1))


def _standardised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift and scale each row to mean 0 and length 1."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)


def find_components(num_items: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the sets of items that pairs join, directly or by others between them.

    Args:
        num_items: How many items there are.
        pairs: Indices of two items each, (num_pairs, 2).

    Returns:
        The set of each item, (num_items,), numbered from 0.
    """
    # Imported here to keep `import safelight.datasets` quick.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), dtype=np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(num_items, num_items))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _span(num_items: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs that join the same items, fewer than there are items."""
    names = find_components(num_items, pairs)
    firsts = np.unique(names, return_index=True)[1][names]
    rest = np.flatnonzero(firsts != np.arange(num_items))
    return np.stack([rest, firsts[rest]], axis=1)


def _clusters(num_items: int, pairs: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    names = find_components(num_items, pairs)
    order = np.argsort(names, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(names[order])) + 1)
    return tuple(sorted(tuple(group.tolist()) for group in groups if len(group) > 1))
