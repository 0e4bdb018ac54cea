"""Statistics of scores: bootstrap intervals, differences, AUC and calibration.

Pure functions on arrays. Images of one prompt are not independent, so every interval is a
*cluster* bootstrap: prompts (groups) are drawn with replacement, each with all its images.
Draws depend on the seed and the number of groups only, so equal inputs give equal intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special
from scipy import stats as distributions

FloatArray = npt.NDArray[np.float64]

# Weight matrices are made in blocks of about this many entries: large enough to spread numpy's
# overhead, small enough to stay in the processor's cache and to keep memory flat.
_BLOCK_ENTRIES = 1 << 18

# Standard errors below this are rounding, not spread (scores have an order of magnitude of 1).
_ROUNDING = 1e-14


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: The estimate on all the data (nan when there is none).
        low, high: The interval's ends; nan when fewer than two groups leave it undefined.
        n: How many values went in.
        n_groups: How many independent groups (prompts) they came from.
    """

    estimate: float
    low: float
    high: float
    n: int
    n_groups: int


@dataclass(frozen=True)
class PairedDifference:
    """The difference between two sets of scores, ``a - b``.

    Attributes:
        interval: The difference of means over groups, with its bootstrap interval.
        p_value: Two-sided, for "no difference"; nan when fewer than two groups leave it undefined.
        n_shared: How many groups both sets have (0 for an unpaired comparison).
    """

    interval: Interval
    p_value: float
    n_shared: int


class ReliabilityCurve(NamedTuple):
    """What a calibration plot draws; one entry for each bin that is not empty.

    Attributes:
        confidence: float64 (b,), the mean predicted probability of the bin.
        frequency: float64 (b,), the share of positives in the bin.
        counts: int64 (b,), how many predictions fell into the bin.
    """

    confidence: FloatArray
    frequency: FloatArray
    counts: npt.NDArray[np.int64]


# --- Inputs ------------------------------------------------------------------------------------


def _finite(values: npt.ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite: drop the images without a score first")
    return array


def _labels(groups: Sequence[Any] | npt.ArrayLike | None, n: int, name: str) -> npt.NDArray[Any]:
    if groups is None:
        return np.arange(n)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"{name} must have one label for each of the {n} values")
    return labels


def _group_sums(
    values: FloatArray, groups: Sequence[Any] | npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray]:
    """Sum and count of each group, float64 (n_groups,) each, ordered by label."""
    if groups is None:
        return values, np.ones_like(values)
    _, index = np.unique(_labels(groups, len(values), "groups"), return_inverse=True)
    return _sums(index, values), _sums(index, np.ones_like(values))


def _sums(index: npt.NDArray[np.intp], values: FloatArray) -> FloatArray:
    return np.bincount(index, weights=values).astype(np.float64, copy=False)


def _check_options(resamples: int, confidence: float) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")


# --- Bootstrap ---------------------------------------------------------------------------------


def _weights(rng: np.random.Generator, n_groups: int, rows: int) -> FloatArray:
    """How often each group is drawn in each of some resamples, float64 (rows, n_groups).

    The rows are multinomial with equal probabilities, counted from uniform draws (which is many
    times faster than numpy's multinomial for many groups).
    """
    drawn = rng.integers(0, n_groups, size=(rows, n_groups))
    drawn += np.arange(rows)[:, None] * n_groups
    counts = np.bincount(drawn.ravel(), minlength=rows * n_groups)
    return counts.reshape(rows, n_groups).astype(np.float64)


def _blocks(resamples: int, row_entries: int) -> Iterator[int]:
    """Divide the resamples into blocks of rows that fit the cache."""
    rows = max(1, _BLOCK_ENTRIES // row_entries)
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)


def _resampled_means(
    rng: np.random.Generator, sums: FloatArray, counts: FloatArray, resamples: int
) -> FloatArray:
    """The mean over all values in each resample of the groups, float64 (resamples,)."""
    columns = np.stack([sums, counts], axis=1)
    blocks = _blocks(resamples, len(sums))
    totals = np.concatenate([_weights(rng, len(sums), rows) @ columns for rows in blocks])
    return totals[:, 0] / totals[:, 1]


def _expanded_percentiles(
    draws: FloatArray, n_groups: float, confidence: float
) -> tuple[float, float]:
    """Ends of the expanded percentile interval (Hesterberg 2015, The American Statistician 69(4)).

    The plain percentile interval is too narrow for few groups: its bootstrap variance lacks the
    factor n / (n - 1) and it uses normal for t quantiles. Taking the percentiles at
    Phi(-sqrt(n / (n - 1)) * t_{alpha/2, n - 1}) instead mends both.
    """
    t = distributions.t.ppf((1 + confidence) / 2, n_groups - 1)
    tail = distributions.norm.cdf(-np.sqrt(n_groups / (n_groups - 1)) * t)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_mean(
    values: npt.ArrayLike,
    groups: Sequence[Any] | npt.ArrayLike | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of ``values`` (n,) with a cluster-bootstrap interval over ``groups``.

    The interval is an expanded percentile interval (Hesterberg 2015). It assumes nothing of the
    values, at this price: over few groups of very skewed scores it covers less than it says (at
    95 %, about 0.92 over 5 groups and 0.95 from 10 on for symmetric scores; 0.88 over 10 and 0.92
    over 30 groups where most scores lie near 0), and over g < 5 groups at most 1 - 2^(1 - g).

    Args:
        values: Finite numbers (n,).
        groups: One label a value (n,), such as the prompt id; None: each value its own group.
        resamples: How many times the groups are drawn.
        confidence: The interval's level, in (0, 1).
        seed: Equal seeds and numbers of groups give equal draws.

    Raises:
        ValueError: values are not finite, labels do not match them, or an option is out of range.
    """
    array = _finite(values, "values")
    _check_options(resamples, confidence)
    sums, counts = _group_sums(array, groups)
    estimate = float(sums.sum() / counts.sum()) if len(array) else float("nan")
    if len(sums) < 2:
        return Interval(estimate, float("nan"), float("nan"), len(array), len(sums))
    draws = _resampled_means(np.random.default_rng(seed), sums, counts, resamples)
    low, high = _expanded_percentiles(draws, len(sums), confidence)
    return Interval(estimate, low, high, len(array), len(sums))


def bootstrap_share(
    values: npt.ArrayLike,
    groups: Sequence[Any] | npt.ArrayLike | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Share of true ``values`` (n,), such as the escape rate, with an interval over ``groups``.

    Percentiles of a resampled share do badly near 0 and 1 and collapse where all groups agree.
    So the bootstrap over groups gives the share's variance only, from that the effective number
    of values p (1 - p) / variance (Korn and Graubard 1998, Survey Methodology 24(2)), and this
    goes into Wilson's interval with t instead of normal quantiles; such intervals cover best
    among those for shares in clustered samples (Dean and Pagano 2015, Journal of Survey
    Statistics and Methodology 3(4)). Where all groups agree it is the number of groups.

    Arguments and errors are those of :func:`bootstrap_mean`; values other than 0 and 1 (or bool)
    are a ValueError, too.
    """
    array = _finite(values, "values")
    if not np.isin(array, (0, 1)).all():
        raise ValueError("values of a share must be 0 or 1")
    _check_options(resamples, confidence)
    sums, counts = _group_sums(array, groups)
    n, n_groups = len(array), len(sums)
    share = float(sums.sum() / n) if n else float("nan")
    if n_groups < 2:
        return Interval(share, float("nan"), float("nan"), n, n_groups)
    draws = _resampled_means(np.random.default_rng(seed), sums, counts, resamples)
    deviation = float(draws.std())
    if deviation <= _ROUNDING:
        effective = float(n_groups)
    else:
        effective = min(float(n), share * (1 - share) / deviation**2)
    low, high = _wilson(share, effective, distributions.t.ppf((1 + confidence) / 2, n_groups - 1))
    return Interval(share, low, high, n, n_groups)


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval of a binomial share (Wilson 1927, JASA 22)."""
    shift = quantile**2 / n
    center = (share + shift / 2) / (1 + shift)
    half = np.sqrt(share * (1 - share) * shift + shift**2 / 4) / (1 + shift)
    return float(max(0.0, center - half)), float(min(1.0, center + half))


# --- Differences between sets ------------------------------------------------------------------


def _group_means(
    values: FloatArray, groups: Sequence[Any] | npt.ArrayLike | None
) -> tuple[npt.NDArray[Any], FloatArray]:
    labels = _labels(groups, len(values), "groups")
    unique, index = np.unique(labels, return_inverse=True)
    return unique, _sums(index, values) / np.bincount(index)


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups_a: Sequence[Any] | npt.ArrayLike,
    groups_b: Sequence[Any] | npt.ArrayLike,
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
    a, b = _finite(a, "a"), _finite(b, "b")
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
    if error <= _ROUNDING:  # no spread: all that is left is that n signs agree
        return 1.0 if abs(mean) <= _ROUNDING else 2.0 ** (1 - n)
    return float(2 * distributions.t.sf(abs(mean) / error, n - 1))


def _unpaired_p_value(a: FloatArray, b: FloatArray) -> float:
    """Two-sided p-value of Welch's t-test (Welch 1947, Biometrika 34)."""
    mean, parts = float(a.mean() - b.mean()), np.array([a.var(ddof=1), b.var(ddof=1)])
    sizes = np.array([len(a), len(b)])
    squares = parts / sizes
    error = float(np.sqrt(squares.sum()))
    if error <= _ROUNDING:  # no spread: all that is left is how the values fall into two sets
        return (
            1.0 if abs(mean) <= _ROUNDING else min(1.0, 2 / special.comb(len(a) + len(b), len(a)))
        )
    freedom = squares.sum() ** 2 / (squares**2 / (sizes - 1)).sum()
    return float(2 * distributions.t.sf(abs(mean) / error, freedom))


def unpaired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups_a: Sequence[Any] | npt.ArrayLike | None = None,
    groups_b: Sequence[Any] | npt.ArrayLike | None = None,
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
    a, b = _finite(a, "a"), _finite(b, "b")
    _check_options(resamples, confidence)
    _, means_a = _group_means(a, groups_a)
    _, means_b = _group_means(b, groups_b)
    n, fewer, nan = len(a) + len(b), min(len(means_a), len(means_b)), float("nan")
    estimate = float(means_a.mean() - means_b.mean()) if fewer else nan
    if fewer < 2:
        return PairedDifference(Interval(estimate, nan, nan, n, fewer), nan, 0)
    rng = np.random.default_rng(seed)
    draws_a, draws_b = (
        _resampled_means(rng, means, np.ones_like(means), resamples) for means in (means_a, means_b)
    )
    low, high = _expanded_percentiles(draws_a - draws_b, fewer, confidence)
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


# --- Ranking real above generated --------------------------------------------------------------


def auc(real: npt.ArrayLike, generated: npt.ArrayLike) -> float:
    """Chance that a real image scores above a generated one; ties count half.

    Args:
        real: Scores (n,) of real images, higher is more real.
        generated: Scores (m,) of generated images.

    Returns:
        The area under the ROC curve in [0, 1], nan when a side is empty. O((n + m) log m).
    """
    real, generated = _finite(real, "real"), _finite(generated, "generated")
    if not len(real) or not len(generated):
        return float("nan")
    ordered = np.sort(generated)
    below = np.searchsorted(ordered, real, "left") + np.searchsorted(ordered, real, "right")
    return float(below.sum() / (2 * len(real) * len(generated)))


def bootstrap_auc(
    real: npt.ArrayLike,
    generated: npt.ArrayLike,
    real_groups: Sequence[Any] | npt.ArrayLike | None = None,
    generated_groups: Sequence[Any] | npt.ArrayLike | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """:func:`auc` with a cluster-bootstrap interval.

    Groups that both sides have (prompts with a photograph and a generated image) are drawn
    together, the others of each side on their own. ``n_groups`` is that of the side with fewer.
    Sides that hardly overlap would give an interval of no width; Newcombe's score interval on the
    numbers of groups stands in then.

    Other arguments and errors are those of :func:`bootstrap_mean`.
    """
    real, generated = _finite(real, "real"), _finite(generated, "generated")
    _check_options(resamples, confidence)
    strata, real_column, generated_column = _strata(
        _labels(real_groups, len(real), "real_groups"),
        _labels(generated_groups, len(generated), "generated_groups"),
        may_share=real_groups is not None and generated_groups is not None,
    )
    n, estimate = len(real) + len(generated), auc(real, generated)
    sizes = strata[0] + strata[1], strata[0] + strata[2]
    if min(sizes) < 2:
        return Interval(estimate, float("nan"), float("nan"), n, min(sizes))
    order = np.argsort(generated, kind="stable")
    ordered, generated_column = generated[order], generated_column[order]
    left, right = np.searchsorted(ordered, real, "left"), np.searchsorted(ordered, real, "right")
    rng = np.random.default_rng(seed)
    areas = []
    for rows in _blocks(resamples, n):
        drawn = np.hstack([_weights(rng, size, rows) for size in strata if size])
        weights = drawn[:, real_column]
        below = np.zeros((rows, len(generated) + 1))
        np.cumsum(drawn[:, generated_column], axis=1, out=below[:, 1:])
        # Of the generated images, those below count whole and those level count half.
        wins = (weights * (below[:, left] + below[:, right])).sum(axis=1) / 2
        areas.append(wins / (weights.sum(axis=1) * below[:, -1]))
    draws = np.concatenate(areas)
    low, high = _expanded_percentiles(draws, min(sizes), confidence)
    if low == high:
        low, high = _newcombe(estimate, sizes[0], sizes[1], confidence)
    return Interval(estimate, low, high, n, min(sizes))


def _strata(
    real: npt.NDArray[Any], generated: npt.NDArray[Any], *, may_share: bool
) -> tuple[tuple[int, int, int], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Number the groups of two sides: the shared first, then the one side's, then the other's.

    Returns:
        How many groups are shared, real only and generated only, and for each value of either
        side the number of its group.
    """
    real_labels, real_index = np.unique(real, return_inverse=True)
    generated_labels, generated_index = np.unique(generated, return_inverse=True)
    in_real = in_generated = np.empty(0, dtype=np.intp)
    if may_share:
        _, in_real, in_generated = np.intersect1d(
            real_labels, generated_labels, assume_unique=True, return_indices=True
        )
    shared = len(in_real)
    sizes = shared, len(real_labels) - shared, len(generated_labels) - shared
    columns = []
    for labels, in_both, first in (
        (real_labels, in_real, shared),
        (generated_labels, in_generated, len(real_labels)),
    ):
        column = np.empty(len(labels), dtype=np.intp)
        alone = np.setdiff1d(np.arange(len(labels)), in_both, assume_unique=True)
        column[in_both] = np.arange(shared)
        column[alone] = first + np.arange(len(alone))
        columns.append(column)
    return sizes, columns[0][real_index], columns[1][generated_index]


def _newcombe(area: float, m: int, n: int, confidence: float) -> tuple[float, float]:
    """Score interval of an AUC (Newcombe 2006, Statist. Med. 25:559-573, method 5)."""
    z = float(distributions.norm.ppf((1 + confidence) / 2))
    mean_size = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + mean_size * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (area - theta) ** 2 - z * z * theta * (1 - theta) * spread / (m * n)

    edge = 1e-12
    low = 0.0 if area <= edge else float(optimize.brentq(excess, edge, area - edge))
    high = 1.0 if area >= 1 - edge else float(optimize.brentq(excess, area + edge, 1 - edge))
    return low, high


def tpr_at_fpr(real: npt.ArrayLike, generated: npt.ArrayLike, fpr: float = 0.05) -> float:
    """Share of generated images caught when at most ``fpr`` of the real ones are accused.

    An image is flagged as generated when its score (higher is more real) lies below a threshold;
    the threshold is the highest one that keeps to ``fpr``. nan when a side is empty.
    """
    real, generated = np.sort(_finite(real, "real")), _finite(generated, "generated")
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr must be in [0, 1], not {fpr}")
    if not len(real) or not len(generated):
        return float("nan")
    accused = int(np.floor(fpr * len(real) + 1e-9))
    if accused >= len(real):
        return 1.0
    return float(np.mean(generated < real[accused]))


# --- Calibration -------------------------------------------------------------------------------


def _probabilities(p: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    p, y = _finite(p, "p"), _finite(y, "y")
    if p.shape != y.shape:
        raise ValueError(f"p and y must have the same length, not {len(p)} and {len(y)}")
    if len(p) and (p.min() < 0 or p.max() > 1):
        raise ValueError("p must be probabilities in [0, 1]")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("y must be 0 or 1")
    return p, y


def reliability_curve(p: npt.ArrayLike, y: npt.ArrayLike, bins: int = 10) -> ReliabilityCurve:
    """Predicted against observed frequency in ``bins`` equal-width bins of [0, 1].

    Args:
        p: Predicted probabilities (n,) in [0, 1].
        y: Outcomes (n,), 0 or 1 (or bool).
        bins: How many bins; the empty ones are left out of the result.
    """
    p, y = _probabilities(p, y)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    index = np.minimum((p * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = count > 0
    confidence = np.bincount(index, weights=p, minlength=bins)[filled] / count[filled]
    frequency = np.bincount(index, weights=y, minlength=bins)[filled] / count[filled]
    return ReliabilityCurve(confidence, frequency, count[filled])


def expected_calibration_error(p: npt.ArrayLike, y: npt.ArrayLike, bins: int = 10) -> float:
    """Mean distance between predicted and observed frequency (Guo et al. 2017, ICML, eq. 5).

    Over equal-width bins weighted by their counts; in [0, 1], nan without data.
    """
    curve = reliability_curve(p, y, bins)
    if not len(curve.counts):
        return float("nan")
    gaps = np.abs(curve.confidence - curve.frequency)
    return float(np.average(gaps, weights=curve.counts))


def brier(p: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean squared error of probabilities (Brier 1950); in [0, 1], nan without data."""
    p, y = _probabilities(p, y)
    return float(np.mean((p - y) ** 2)) if len(p) else float("nan")
