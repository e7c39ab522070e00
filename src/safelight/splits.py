"""Deal out units of pictures to parts so that each part gets its share of every class."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from safelight.duplicates import find_components


def merge_units(
    num_items: int,
    clusters: tuple[tuple[int, ...], ...],
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Name the smallest sets of items that must stay together.

    Use it before `deal_units`. Items are joined if they share a cluster or a group, and so are
    items that are joined to the same third item.

    Args:
        num_items: How many items there are.
        clusters: Sets of item indices.
        groups: The group of each item, (num_items,), or None.

    Returns:
        The unit of each item, (num_items,), numbered from 0.
    """
    joined = [(member, cluster[0]) for cluster in clusters for member in cluster]
    pairs = np.array(joined, dtype=np.int64).reshape(-1, 2)
    if groups is not None:
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        pairs = np.concatenate([pairs, np.stack([np.arange(num_items), first[inverse]], axis=1)])
    return find_components(num_items, pairs)


def count_torn(groups: Iterable[NDArray[np.int64] | None]) -> int:
    """Say how many groups have items in several parts.

    Args:
        groups: For each part the group of each of its items; None where groups do not matter.
    """
    seen = [np.unique(each) for each in groups if each is not None]
    _, times = np.unique(np.concatenate([*seen, np.zeros(0, np.int64)]), return_counts=True)
    return int((times > 1).sum())


def class_quotas(counts: NDArray[np.int64], fractions: tuple[float, ...]) -> NDArray[np.int64]:
    """Say how many items of each class every part should get.

    Use it to turn fractions into whole numbers. A part's total is its fraction of all items,
    rounded; within it the classes get their proportional share by the method of largest
    remainders, but at least one item. The first part gets what the others leave.

    Args:
        counts: The number of items of each class, (num_classes,).
        fractions: The fraction of all items for each part but the first.

    Returns:
        Whole numbers, (1 + len(fractions), num_classes), whose columns sum to `counts`; the
        first row may be zero or negative where a class is too small for all parts.
    """
    rows = []
    for fraction in fractions:
        exact = counts * fraction
        quota = np.floor(exact).astype(np.int64)
        missing = int(np.floor(counts.sum() * fraction + 0.5)) - int(quota.sum())
        quota[np.argsort(quota - exact, kind="stable")[: max(missing, 0)]] += 1
        rows.append(np.where((counts > 0) & (fraction > 0), np.maximum(quota, 1), 0))
    return np.stack([counts - sum(rows, np.zeros_like(counts)), *rows])


def fold_quotas(counts: NDArray[np.int64], num_folds: int) -> NDArray[np.int64]:
    """Say how many items of each class every fold of a cross-validation should get.

    Use it where parts are to be equal. Items are counted off, class after class, so that any two
    folds differ by at most one item in each class, and by at most one in all.

    Args:
        counts: The number of items of each class, (num_classes,).
        num_folds: How many folds there are.

    Returns:
        Whole numbers, (num_folds, num_classes), whose columns sum to `counts`.
    """
    labels = np.repeat(np.arange(len(counts)), counts)
    quotas = np.zeros((num_folds, len(counts)), dtype=np.int64)
    np.add.at(quotas, (np.arange(len(labels)) % num_folds, labels), 1)
    return quotas


def deal_units(
    units: NDArray[np.int64], labels: NDArray[np.int64], quotas: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Deal out whole units to parts, as close to the quotas as units allow.

    Use it where some items must not be separated. Units come in random order, larger ones first,
    and each goes where it lessens the squared distance to the quotas most, in relation to the
    quota. When every unit is a single item the quotas are met exactly.

    Args:
        units: The unit of each item, (num_items,), numbered from 0.
        labels: The class of each item, (num_items,).
        quotas: The wanted number of items, (num_parts, num_classes).
        seed: Decides the order of the units.

    Returns:
        The part of each item, (num_items,).
    """
    counts = np.zeros((int(units.max()) + 1, quotas.shape[1]))
    np.add.at(counts, (units, labels), 1)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    need = quotas.astype(np.float64)
    weights = 1.0 / np.maximum(need, 1.0)
    parts = np.empty(len(counts), dtype=np.int64)
    for unit in order:
        # (need - count)^2 - need^2, so a unit of one item goes only where one is still needed.
        change = (weights * counts[unit] * (counts[unit] - 2 * need)).sum(axis=1)
        parts[unit] = int(change.argmin())
        need[parts[unit]] -= counts[unit]
    return parts[units]
