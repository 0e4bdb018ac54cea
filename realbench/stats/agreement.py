"""How far judges agree beyond chance: Krippendorff's alpha and Cohen's kappa.

Judges score units in [0, 1]: what one of two contestants got (1 a win, 0.5 a tie, 0 a loss). Which
of the two is asked for is arbitrary, so each unit counts in both directions, as its score and as
one less its score: the figures then do not depend on the contestants' names, and chance is
what judges with the same share of ties would agree on blindly. Intervals come from a bootstrap over
prompts.

They collapse to a point where judges agree on every unit, as every resample agrees as well; the
share of agreement with :func:`bootstrap_share` has an interval then, too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from realbench.stats.bootstrap import (
    ROUNDING,
    FloatArray,
    Groups,
    Interval,
    check_options,
    interval_of_sums,
    labels_of,
)


def krippendorff_alpha(
    scores: npt.ArrayLike,
    groups: Groups | None = None,
    *,
    both_directions: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Krippendorff's alpha for interval data (Krippendorff 2011, Computing Krippendorff's
    Alpha-Reliability), 1 for perfect agreement, 0 for chance.

    ``1 - observed / expected`` disagreement, both the mean squared difference of two scores: of
    one unit, and of any units. A tie so lies halfway between a win and a loss. The interval is an
    expanded percentile interval; nan where fewer than two groups have a unit with two scores.

    Args:
        scores: (judges, units) in [0, 1], nan where a judge did not score a unit.
        groups: One label a unit, such as its prompt.
        both_directions: Count each unit as its scores and as one less them, see the module.
        resamples, confidence, seed: As in :func:`bootstrap_mean`.

    Raises:
        ValueError: the shapes do not match or an option is out of range.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"scores must be of shape (judges, units), not {table.shape}")
    check_options(resamples, confidence)
    labels = labels_of(groups, table.shape[1], "groups")
    used = (~np.isnan(table)).sum(axis=0) > 1
    table, labels = table[:, used], labels[used]
    if both_directions:
        table, labels = np.hstack([table, 1 - table]), np.concatenate([labels, labels])
    units = int(used.sum())
    moments = _moments(table)
    return interval_of_sums(moments, labels, _alpha, units, resamples, confidence, seed)


def _moments(table: FloatArray) -> FloatArray:
    """For each unit, float64 (units, 4): number, sum and sum of squares of its scores, and its
    squared differences over all ordered pairs of judges, divided by the number less one."""
    number = (~np.isnan(table)).sum(axis=0).astype(np.float64)
    total, squares = np.nansum(table, axis=0), np.nansum(table**2, axis=0)
    within = 2 * (number * squares - total**2) / np.maximum(number - 1, 1)
    return np.stack([number, total, squares, within], axis=1)


def _alpha(sums: FloatArray) -> FloatArray:
    """Alpha of summed moments (rows, 4); 1 where all scores are the same."""
    number, total, squares, within = sums.T
    expected = 2 * (number * squares - total**2) / np.maximum(number - 1, 1)
    varied = expected > ROUNDING * np.maximum(number, 1)
    return np.where(varied, 1 - within / np.where(varied, expected, 1.0), 1.0)


def cohen_kappa(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups: Groups | None = None,
    *,
    both_directions: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Cohen's kappa of two judges (Cohen 1960, Educ. Psychol. Meas. 20:37-46).

    The estimate is scikit-learn's ``cohen_kappa_score``; nan where chance agreement is complete
    (both judges always give one and the same result).

    Args:
        a, b: The judges' scores (units,), compared as categories.
        groups, both_directions, resamples, confidence, seed: As in :func:`krippendorff_alpha`.

    Raises:
        ValueError: the shapes do not match or an option is out of range.
    """
    from sklearn.metrics import cohen_kappa_score

    one, other = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError("a and b must be one-dimensional and of the same length")
    check_options(resamples, confidence)
    labels = labels_of(groups, len(one), "groups")
    units = len(one)
    if both_directions:
        one, other = np.concatenate([one, 1 - one]), np.concatenate([other, 1 - other])
        labels = np.concatenate([labels, labels])
    if not units:
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    values, codes = np.unique(np.concatenate([one, other]), return_inverse=True)
    k = len(values)
    cells = np.zeros((len(one), k * k))
    cells[np.arange(len(one)), codes[: len(one)] * k + codes[len(one) :]] = 1.0
    found = interval_of_sums(cells, labels, _kappa, units, resamples, confidence, seed)
    if np.isnan(found.estimate):
        return found
    estimate = float(cohen_kappa_score(codes[: len(one)], codes[len(one) :]))
    return Interval(estimate, found.low, found.high, units, found.n_groups)


def _kappa(sums: FloatArray) -> FloatArray:
    """Kappa of confusion matrices (rows, k * k)."""
    k = int(np.sqrt(sums.shape[1]))
    matrices = sums.reshape(-1, k, k)
    total = matrices.sum(axis=(1, 2))
    observed = np.trace(matrices, axis1=1, axis2=2) / total
    expected = (matrices.sum(axis=1) * matrices.sum(axis=2)).sum(axis=1) / total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected < 1 - ROUNDING, (observed - expected) / (1 - expected), np.nan)
