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
from scipy import optimize
from scipy import stats as distributions

FloatArray = npt.NDArray[np.float64]

# Weight matrices are made in blocks of about this many entries: large enough to spread numpy's
# overhead, small enough to stay in the processor's cache and to keep memory flat.
_BLOCK_ENTRIES = 1 << 18


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
    sums: FloatArray = np.bincount(index, weights=values)
    return sums, np.bincount(index).astype(np.float64)


# --- Bootstrap ---------------------------------------------------------------------------------


def _weight_blocks(
    rng: np.random.Generator, n_groups: int, resamples: int
) -> Iterator[npt.NDArray[np.float64]]:
    """Yield blocks (rows, n_groups) of resampling weights: how often each group was drawn.

    The rows are multinomial with equal probabilities, counted from uniform draws (which is many
    times faster than numpy's multinomial for many groups).
    """
    rows_each = max(1, _BLOCK_ENTRIES // n_groups)
    for start in range(0, resamples, rows_each):
        rows = min(rows_each, resamples - start)
        drawn = rng.integers(0, n_groups, size=(rows, n_groups))
        drawn += np.arange(rows)[:, None] * n_groups
        counts = np.bincount(drawn.ravel(), minlength=rows * n_groups)
        yield counts.reshape(rows, n_groups).astype(np.float64)


def _resampled_means(sums: FloatArray, counts: FloatArray, resamples: int, seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    columns = np.stack([sums, counts], axis=1)
    totals = np.concatenate([w @ columns for w in _weight_blocks(rng, len(sums), resamples)])
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

    Args:
        values: Finite numbers (n,).
        groups: One label a value (n,), such as the prompt id; None: each value its own group.
        resamples: How many times the groups are drawn.
        confidence: The interval's level, in (0, 1).
        seed: Equal seeds and numbers of groups give equal draws.

    Returns:
        The mean over all values, with an expanded percentile interval (Hesterberg 2015).

    Raises:
        ValueError: values are not finite, or the labels do not match them.
    """
    array = _finite(values, "values")
    sums, counts = _group_sums(array, groups)
    estimate = float(sums.sum() / counts.sum()) if len(array) else float("nan")
    if len(sums) < 2:
        return Interval(estimate, float("nan"), float("nan"), len(array), len(sums))
    draws = _resampled_means(sums, counts, resamples, seed)
    low, high = _expanded_percentiles(draws, len(sums), confidence)
    return Interval(estimate, low, high, len(array), len(sums))


def _wilson(share: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a binomial share (Wilson 1927, JASA 22)."""
    z = distributions.norm.ppf((1 + confidence) / 2)
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return float(max(0.0, center - half)), float(min(1.0, center + half))


def bootstrap_share(
    values: npt.ArrayLike,
    groups: Sequence[Any] | npt.ArrayLike | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Share of true ``values`` (n,), such as the escape rate, with an interval over ``groups``.

    As :func:`bootstrap_mean`, save that groups which all have the same share (all 0, say) would
    give an interval of no width; Wilson's interval on the number of groups stands in then.
    """
    result = bootstrap_mean(values, groups, resamples=resamples, confidence=confidence, seed=seed)
    if result.n_groups < 2 or result.high > result.low:
        return result
    low, high = _wilson(result.estimate, result.n_groups, confidence)
    return Interval(result.estimate, low, high, result.n, result.n_groups)


# --- Differences between sets ------------------------------------------------------------------


def _group_means(
    values: FloatArray, groups: Sequence[Any] | npt.ArrayLike | None
) -> tuple[npt.NDArray[Any], FloatArray]:
    labels = _labels(groups, len(values), "groups")
    unique, index = np.unique(labels, return_inverse=True)
    return unique, np.bincount(index, weights=values) / np.bincount(index)


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
    :func:`unpaired_difference` is returned instead.
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
    mean, deviation = differences.mean(), differences.std(ddof=1)
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        # No spread: all that is left is that the n signs agree.
        return 1.0 if abs(mean) <= 1e-12 else min(1.0, 2.0 * 0.5**n)
    return float(2 * distributions.t.sf(abs(mean) / (deviation / np.sqrt(n)), n - 1))


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
    The p-value is that of Welch's t-test over groups.
    """
    a, b = _finite(a, "a"), _finite(b, "b")
    _, means_a = _group_means(a, groups_a)
    _, means_b = _group_means(b, groups_b)
    n, groups = len(a) + len(b), min(len(means_a), len(means_b))
    if groups == 0:
        nan = float("nan")
        return PairedDifference(Interval(nan, nan, nan, n, 0), nan, 0)
    estimate = float(means_a.mean() - means_b.mean())
    if groups < 2:
        nan = float("nan")
        return PairedDifference(Interval(estimate, nan, nan, n, groups), nan, 0)
    rng = np.random.default_rng(seed)
    draws = np.concatenate(
        [w @ means_a / len(means_a) for w in _weight_blocks(rng, len(means_a), resamples)]
    ) - np.concatenate(
        [w @ means_b / len(means_b) for w in _weight_blocks(rng, len(means_b), resamples)]
    )
    low, high = _expanded_percentiles(draws, groups, confidence)
    with np.errstate(invalid="ignore", divide="ignore"):
        p_value = float(distributions.ttest_ind(means_a, means_b, equal_var=False).pvalue)
    return PairedDifference(Interval(estimate, low, high, n, groups), p_value, 0)


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

    The groups of the two sides are drawn independently. ``n_groups`` is that of the side with
    fewer. Sides that never overlap would give an interval of no width; Newcombe's score interval
    on the numbers of groups stands in then.
    """
    real, generated = _finite(real, "real"), _finite(generated, "generated")
    real_index = np.unique(_labels(real_groups, len(real), "real_groups"), return_inverse=True)[1]
    generated_index = np.unique(
        _labels(generated_groups, len(generated), "generated_groups"), return_inverse=True
    )[1]
    n = len(real) + len(generated)
    sizes = [int(index.max()) + 1 if len(index) else 0 for index in (real_index, generated_index)]
    estimate = auc(real, generated)
    if min(sizes) < 2:
        return Interval(estimate, float("nan"), float("nan"), n, min(sizes))
    order = np.argsort(generated, kind="stable")
    left = np.searchsorted(generated[order], real, "left")
    right = np.searchsorted(generated[order], real, "right")
    rng = np.random.default_rng(seed)
    draws = np.empty(resamples)
    step = max(1, _BLOCK_ENTRIES // max(n, 1))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        real_weights = np.concatenate(list(_weight_blocks(rng, sizes[0], rows)))[:, real_index]
        weights = np.concatenate(list(_weight_blocks(rng, sizes[1], rows)))[
            :, generated_index[order]
        ]
        below = np.zeros((rows, len(generated) + 1))
        np.cumsum(weights, axis=1, out=below[:, 1:])
        wins = (real_weights * (below[:, left] + below[:, right])).sum(axis=1)
        draws[start : start + rows] = wins / (2 * real_weights.sum(axis=1) * below[:, -1])
    low, high = _expanded_percentiles(draws, min(sizes), confidence)
    if low == high:
        low, high = _newcombe(estimate, sizes[0], sizes[1], confidence)
    return Interval(estimate, low, high, n, min(sizes))


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
