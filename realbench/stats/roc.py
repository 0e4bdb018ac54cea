"""How well scores rank real images above generated ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from realbench.stats.bootstrap import (
    ROUNDING,
    Groups,
    Interval,
    check_options,
    draw_weights,
    finite,
    labels_of,
    row_blocks,
)

_FEW_GROUPS = 10


def auc(real: npt.ArrayLike, generated: npt.ArrayLike) -> float:
    """Chance that a real image scores above a generated one; ties count half.

    Args:
        real: Scores (n,) of real images, higher is more real.
        generated: Scores (m,) of generated images.

    Returns:
        The area under the ROC curve in [0, 1], nan when a side is empty. O((n + m) log m).
    """
    real, generated = finite(real, "real"), finite(generated, "generated")
    if not len(real) or not len(generated):
        return float("nan")
    ordered = np.sort(generated)
    below = np.searchsorted(ordered, real, "left") + np.searchsorted(ordered, real, "right")
    return float(below.sum() / (2 * len(real) * len(generated)))


def bootstrap_auc(
    real: npt.ArrayLike,
    generated: npt.ArrayLike,
    real_groups: Groups | None = None,
    generated_groups: Groups | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """:func:`auc` with a cluster-bootstrap interval.

    Groups that both sides have (prompts with a photograph and a generated image) are drawn
    together, the others of each side on their own. ``n_groups`` is that of the side with fewer.

    Percentiles of a resampled AUC cover too little near 1, where detectors are. So the bootstrap
    gives the standard error only, and the interval is symmetric in the AUC's logit; this covers
    best among the usual ones (Qin and Hotilovac 2008, Statistical Methods in Medical Research
    17(2)). Sides that do not overlap have no standard error; Newcombe's score interval on the
    numbers of groups stands in then. It also bounds the interval where a side has ten
    groups or fewer, whose standard error is too uncertain: a group tells at least as much as one
    image does.

    Other arguments and errors are those of :func:`bootstrap_mean`.
    """
    real, generated = finite(real, "real"), finite(generated, "generated")
    check_options(resamples, confidence)
    strata, real_column, generated_column = _strata(
        labels_of(real_groups, len(real), "real_groups"),
        labels_of(generated_groups, len(generated), "generated_groups"),
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
    for rows in row_blocks(resamples, n):
        drawn = np.hstack([draw_weights(rng, size, rows) for size in strata if size])
        weights = drawn[:, real_column]
        below = np.zeros((rows, len(generated) + 1))
        np.cumsum(drawn[:, generated_column], axis=1, out=below[:, 1:])
        # Of the generated images, those below count whole and those level count half.
        wins = (weights * (below[:, left] + below[:, right])).sum(axis=1) / 2
        areas.append(wins / (weights.sum(axis=1) * below[:, -1]))
    deviation = float(np.concatenate(areas).std())
    overlap = 0 < estimate < 1 and deviation > ROUNDING
    low, high = 0.0, 1.0
    if overlap:
        low, high = _logit_interval(estimate, deviation, min(sizes), confidence)
    if not overlap or min(sizes) <= _FEW_GROUPS:
        bounds = _newcombe(estimate, sizes[0], sizes[1], confidence)
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(estimate, low, high, n, min(sizes))


def stratified_auc(
    real: npt.ArrayLike,
    generated: npt.ArrayLike,
    real_strata: Groups,
    generated_strata: Groups,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of the strata's AUCs, each weighted by its number of generated images.

    For scores whose level differs between strata, as those of the models of several folds do:
    only images of one stratum are compared with one another. Strata without either class are
    left out. The interval is symmetric in the logit, with the variance that the strata's own
    intervals have; there is none where one of these is missing.

    Args:
        real_strata, generated_strata: the stratum of each score.

    Other arguments and errors are those of :func:`bootstrap_auc`.
    """
    real, generated = finite(real, "real"), finite(generated, "generated")
    of_real = labels_of(real_strata, len(real), "real_strata")
    of_generated = labels_of(generated_strata, len(generated), "generated_strata")
    shared = np.intersect1d(of_real, of_generated)
    parts = [
        bootstrap_auc(
            real[of_real == one],
            generated[of_generated == one],
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )
        for one in shared
    ]
    n = int(np.isin(of_real, shared).sum() + np.isin(of_generated, shared).sum())
    if not parts:
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    groups = sum(part.n_groups for part in parts)
    if len(parts) == 1:
        return parts[0]
    weights = np.array([(of_generated == one).sum() for one in shared], np.float64)
    weights /= weights.sum()
    estimates, lows, highs = np.array([(p.estimate, p.low, p.high) for p in parts]).T
    estimate = float(weights @ estimates)
    half = float(np.sqrt(weights**2 @ ((highs - lows) / 2) ** 2))
    if not np.isfinite(half) or not 0 < estimate < 1:
        return Interval(estimate, float("nan"), float("nan"), n, groups)
    reach = half / (estimate * (1 - estimate))  # the delta method for the logit
    low, high = special.expit(special.logit(estimate) + np.array([-reach, reach]))
    return Interval(estimate, float(low), float(high), n, groups)


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


def _logit_interval(
    area: float, deviation: float, n_groups: int, confidence: float
) -> tuple[float, float]:
    """The interval logit(area) -+ t * error / (area * (1 - area)), turned back."""
    error = deviation * np.sqrt(n_groups / (n_groups - 1))  # unbiased for few groups
    t = special.stdtrit(n_groups - 1, (1 + confidence) / 2)
    half = t * error / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half]))
    return float(low), float(high)


def _newcombe(area: float, m: int, n: int, confidence: float) -> tuple[float, float]:
    """Score interval of an AUC (Newcombe 2006, Statist. Med. 25:559-573, method 5)."""
    from scipy import optimize  # late: it takes longer to import than all the rest of this module

    z = float(special.ndtri((1 + confidence) / 2))
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
    real, generated = np.sort(finite(real, "real")), finite(generated, "generated")
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr must be in [0, 1], not {fpr}")
    if not len(real) or not len(generated):
        return float("nan")
    accused = int(np.floor(fpr * len(real) + 1e-9))
    if accused >= len(real):
        return 1.0
    return float(np.mean(generated < real[accused]))
