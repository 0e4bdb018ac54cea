"""Differences between sets of scores, corrected for many comparisons, and the ranks they allow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from realbench.stats.bootstrap import (
    ROUNDING,
    FloatArray,
    Groups,
    Interval,
    bootstrap_mean,
    check_options,
    expanded_percentiles,
    finite,
    labels_of,
    resampled_means,
    sums_of,
)


@dataclass(frozen=True)
class PairedDifference:
    """The difference between two sets of scores, ``a - b``.

    Attributes:
        interval: The difference of means over groups, with its bootstrap interval. Its n counts
            the shared groups, or for an unpaired comparison the values of both sets.
        p_value: Two-sided, for "no difference"; nan when fewer than two groups leave it undefined.
        n_shared: How many groups both sets have (0 for an unpaired comparison).
    """

    interval: Interval
    p_value: float
    n_shared: int


def _group_means(values: FloatArray, groups: Groups | None) -> tuple[npt.NDArray[Any], FloatArray]:
    """The sorted labels (n_groups,) and the mean of each group, float64 (n_groups,)."""
    labels = labels_of(groups, len(values), "groups")
    unique, index = np.unique(labels, return_inverse=True)
    return unique, sums_of(index, values) / np.bincount(index)


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups_a: Groups,
    groups_b: Groups,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Difference of the means of ``a`` (n,) and ``b`` (m,) over the groups that both have.

    Each shared group counts once, with the difference of its two means. Without any shared group,
    :func:`unpaired_difference` is returned instead. The p-value is that of Student's t-test over
    groups, to which the expanded percentile interval corresponds.

    Other arguments and errors are those of :func:`bootstrap_mean`.
    """
    a, b = finite(a, "a"), finite(b, "b")
    labels_a, means_a = _group_means(a, groups_a)
    labels_b, means_b = _group_means(b, groups_b)
    shared, in_a, in_b = np.intersect1d(labels_a, labels_b, assume_unique=True, return_indices=True)
    if not len(shared):
        return unpaired_difference(
            a, b, groups_a, groups_b, resamples=resamples, confidence=confidence, seed=seed
        )
    differences = means_a[in_a] - means_b[in_b]
    interval = bootstrap_mean(differences, resamples=resamples, confidence=confidence, seed=seed)
    return PairedDifference(interval, _paired_p_value(differences), len(shared))


def _paired_p_value(differences: FloatArray) -> float:
    """Two-sided p-value of Student's t-test.

    A bootstrap p-value cannot fall below 1 / resamples, which Holm's correction over many pairs
    of sets would then lift above any level; the t-test has no such floor.
    """
    n = len(differences)
    if n < 2:
        return float("nan")
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(n))
    if error <= ROUNDING:  # no spread: all that is left is that n signs agree
        return 1.0 if abs(mean) <= ROUNDING else 2.0 ** (1 - n)
    return float(2 * special.stdtr(n - 1, -abs(mean) / error))


def _unpaired_p_value(a: FloatArray, b: FloatArray) -> float:
    """Two-sided p-value of Welch's t-test (Welch 1947, Biometrika 34)."""
    mean, sizes = float(a.mean() - b.mean()), np.array([len(a), len(b)])
    squares = np.array([a.var(ddof=1), b.var(ddof=1)]) / sizes
    error = float(np.sqrt(squares.sum()))
    if error <= ROUNDING:  # no spread: all that is left is that the sets part the values
        return 1.0 if abs(mean) <= ROUNDING else min(1.0, 2 / special.comb(len(a) + len(b), len(a)))
    freedom = squares.sum() ** 2 / (squares**2 / (sizes - 1)).sum()
    return float(2 * special.stdtr(freedom, -abs(mean) / error))


def unpaired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups_a: Groups | None = None,
    groups_b: Groups | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Difference of the means of ``a`` (n,) and ``b`` (m,) whose groups have nothing in common.

    Each group counts once, with its mean; the groups of the two sets are drawn independently.
    ``n_groups`` is that of the set with fewer. The p-value is that of Welch's t-test over groups.

    Other arguments and errors are those of :func:`bootstrap_mean`.
    """
    a, b = finite(a, "a"), finite(b, "b")
    check_options(resamples, confidence)
    _, means_a = _group_means(a, groups_a)
    _, means_b = _group_means(b, groups_b)
    n, fewer, nan = len(a) + len(b), min(len(means_a), len(means_b)), float("nan")
    estimate = float(means_a.mean() - means_b.mean()) if fewer else nan
    if fewer < 2:
        return PairedDifference(Interval(estimate, nan, nan, n, fewer), nan, 0)
    rng = np.random.default_rng(seed)
    draws_a, draws_b = (
        resampled_means(rng, means, np.ones_like(means), resamples) for means in (means_a, means_b)
    )
    low, high = expanded_percentiles(draws_a - draws_b, fewer, confidence)
    interval = Interval(estimate, low, high, n, fewer)
    return PairedDifference(interval, _unpaired_p_value(means_a, means_b), 0)


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Holm's step-down adjustment (Holm 1979, Scand. J. Statist. 6) of ``p_values`` (m,).

    Comparisons that could not be made (nan) stay nan and do not count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def rank_sets(
    means: Sequence[float] | npt.ArrayLike, significant_pairs: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Best and worst rank (1 is the highest mean) that the data allow each set.

    Args:
        means: The sets' means (k,).
        significant_pairs: Pairs of indices into ``means`` whose difference is significant; which
            of the two is better follows from their means.
    """
    m = np.asarray(means, dtype=np.float64)
    better, worse = np.zeros(len(m), dtype=int), np.zeros(len(m), dtype=int)
    for i, j in {(min(pair), max(pair)) for pair in significant_pairs}:
        if m[i] == m[j] or np.isnan(m[i] - m[j]):
            continue
        winner, loser = (i, j) if m[i] > m[j] else (j, i)
        better[loser] += 1
        worse[winner] += 1
    return [(1 + int(b), len(m) - int(w)) for b, w in zip(better, worse, strict=True)]
