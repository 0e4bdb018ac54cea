"""How well P(real) tells generated images from photographs, with both classes weighing the same.

A benchmark has as many photographs as somebody collected, which says nothing about the world: every
figure here is the one under even odds, so that folders of different sizes can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from realbench.stats.bootstrap import (
    FloatArray,
    Groups,
    Interval,
    check_options,
    clustered_wilson,
    draw_weights,
    finite,
    interval_of_sums,
    labels_of,
    row_blocks,
)
from realbench.stats.roc import _logit_interval, _strata, bootstrap_auc

FPRS = {"tpr_at_5_fpr": 0.05, "tpr_at_1_fpr": 0.01}
THRESHOLD = 0.5
BINS = 10

MEASURES = (
    "auc",
    "average_precision",
    "accuracy",
    "best_accuracy",
    *FPRS,
    "calibration_error",
)
_SHARES = ("accuracy", "best_accuracy", *FPRS)


def detection_measures(
    real: npt.ArrayLike,
    generated: npt.ArrayLike,
    real_groups: Groups | None = None,
    generated_groups: Groups | None = None,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return every one of :data:`MEASURES` with a cluster-bootstrap interval.

    - ``auc``: see :func:`bootstrap_auc`.
    - ``average_precision``: of finding generated images (the positive class); 0.5 by chance.
    - ``accuracy``: mean of the two classes' shares of right answers, where P(real) above 0.5
      passes for a photograph.
    - ``best_accuracy``: the same at the threshold that is best for these very images, which is
      an upper bound of what a threshold chosen beforehand reaches.
    - ``tpr_at_5_fpr``, ``tpr_at_1_fpr``: share of generated images found when at most 5 % or 1 %
      of the photographs are accused; with fewer than 100 photographs, 1 % means none of them.
    - ``calibration_error``: expected calibration error over ten bins (Guo et al. 2017, ICML,
      eq. 5).

    Groups that both sides have are drawn together, see :func:`bootstrap_auc`. Intervals of shares
    are Wilson's with the bootstrap's variance (see :func:`bootstrap_share`), those of average
    precision and calibration error symmetric in the logit. All are nan where a side has fewer
    than two groups, and so is every estimate where a side is empty.

    Args:
        real, generated: P(real) in [0, 1], (n,) and (m,); higher is more real.

    Other arguments and errors are those of :func:`bootstrap_auc`.
    """
    real, generated = finite(real, "real"), finite(generated, "generated")
    check_options(resamples, confidence)
    area = bootstrap_auc(
        real,
        generated,
        real_groups,
        generated_groups,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    n, n_groups = area.n, area.n_groups
    if not len(real) or not len(generated):
        nothing = Interval(float("nan"), float("nan"), float("nan"), n, 0)
        return dict.fromkeys(MEASURES, nothing)
    strata, real_column, generated_column = _strata(
        labels_of(real_groups, len(real), "real_groups"),
        labels_of(generated_groups, len(generated), "generated_groups"),
        may_share=real_groups is not None and generated_groups is not None,
    )
    weighted = _Weighted(real, generated)
    found = weighted.measures(np.ones((1, len(real))), np.ones((1, len(generated))))
    estimates = {name: float(values[0]) for name, values in found.items()}
    result = {"auc": area}
    if n_groups < 2:
        for name, estimate in estimates.items():
            result[name] = Interval(estimate, float("nan"), float("nan"), n, n_groups)
        return {name: result[name] for name in MEASURES}
    rng = np.random.default_rng(seed)
    draws: dict[str, list[FloatArray]] = {name: [] for name in estimates}
    for rows in row_blocks(resamples, n):
        drawn = np.hstack([draw_weights(rng, size, rows) for size in strata if size])
        block = weighted.measures(drawn[:, real_column], drawn[:, generated_column])
        for name, values in block.items():
            draws[name].append(values)
    for name, estimate in estimates.items():
        # A share of one class has that class's number of values behind it, not that of both.
        size = len(generated) if name in FPRS else n
        deviation = float(np.concatenate(draws[name]).std())
        if not 0 < estimate < 1:  # resamples may vary here, but a share's variance is 0
            low, high = clustered_wilson(estimate, 0.0, size, n_groups, confidence)
        elif name in _SHARES:
            low, high = clustered_wilson(estimate, deviation, size, n_groups, confidence)
        else:
            low, high = _logit_interval(estimate, deviation, n_groups, confidence)
        result[name] = Interval(estimate, low, high, size, n_groups)
    return {name: result[name] for name in MEASURES}


def best_threshold(real: npt.ArrayLike, generated: npt.ArrayLike) -> float:
    """Return the P(real) above which an image should pass, by ``best_accuracy``; nan without data.

    It lies halfway between the two scores that it parts, and is 0 where every image should pass
    and 1 where none should; the lowest such where several are as good.
    """
    real, generated = finite(real, "real"), finite(generated, "generated")
    if not len(real) or not len(generated):
        return float("nan")
    weighted = _Weighted(real, generated)
    flagged_real, flagged = weighted.flagged(np.ones((1, len(real))), np.ones((1, len(generated))))
    best = int(np.argmax(flagged[0] - flagged_real[0]))
    edges = np.concatenate([[0.0], weighted.values, [1.0]])
    return float((edges[best] + edges[best + 1]) / 2) if 0 < best < len(edges) - 2 else edges[best]


class _Weighted:
    """The measures of two samples under weights, many rows of weights at a time."""

    def __init__(self, real: FloatArray, generated: FloatArray) -> None:
        scores = np.concatenate([real, generated])
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        self.ends = np.flatnonzero(np.append(np.diff(ordered) > 0, True))
        self.values = ordered[self.ends]
        self.is_real = self.order < len(real)
        self.passes = (real > THRESHOLD, generated > THRESHOLD)
        outcome = np.concatenate([np.ones(len(real)), np.zeros(len(generated))])
        bins = np.minimum((scores * BINS).astype(int), BINS - 1)
        self.gaps = np.zeros((len(scores), BINS))
        self.gaps[np.arange(len(scores)), bins] = scores - outcome

    def flagged(self, real: FloatArray, generated: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Shares of either class at or below each distinct score, after a first column of 0.

        Args:
            real, generated: weights, (rows, n) and (rows, m).

        Returns:
            twice float64 (rows, distinct scores + 1).
        """
        weights = np.hstack([real, generated])[:, self.order]
        both = []
        for mine in (self.is_real, ~self.is_real):
            summed = np.cumsum(np.where(mine, weights, 0.0), axis=1)
            summed = np.pad(summed[:, self.ends], ((0, 0), (1, 0)))
            both.append(summed / summed[:, -1:])
        return both[0], both[1]

    def measures(self, real: FloatArray, generated: FloatArray) -> Mapping[str, FloatArray]:
        """All measures but the AUC for each row of weights, float64 (rows,) each."""
        flagged_real, flagged = self.flagged(real, generated)
        with np.errstate(invalid="ignore"):
            precision = flagged[:, 1:] / (flagged[:, 1:] + flagged_real[:, 1:])
        # Rows whose first images have no weight flag nothing there, and gain nothing either.
        steps = np.diff(flagged, axis=1) * np.nan_to_num(precision)
        real = real / real.sum(axis=1, keepdims=True)
        generated = generated / generated.sum(axis=1, keepdims=True)
        passed, slipped = real @ self.passes[0], generated @ self.passes[1]
        found = {
            name: np.where(flagged_real <= fpr + 1e-9, flagged, 0.0).max(axis=1)
            for name, fpr in FPRS.items()
        }
        gaps = np.abs(np.hstack([real, generated]) / 2 @ self.gaps)
        return {
            "average_precision": steps.sum(axis=1),
            "accuracy": (passed + 1 - slipped) / 2,
            "best_accuracy": (1 + (flagged - flagged_real).max(axis=1)) / 2,
            **found,
            "calibration_error": gaps.sum(axis=1),
        }


def error_correlation(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    real: npt.ArrayLike,
    groups: Groups | None = None,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Correlation of two detectors' errors (Pearson's), with both classes weighing the same.

    An error is the distance of P(real) from the truth, in [0, 1]. Detectors whose errors are
    uncorrelated help each other most in an ensemble; at 1 the second adds nothing.

    Args:
        a, b: P(real) of the same n images by either detector.
        real: whether each image is a photograph, (n,).
        groups: one label an image, such as its prompt.

    Other arguments and errors are those of :func:`bootstrap_mean`; nan where a detector's errors
    do not vary or a class is missing.
    """
    first, second, truth = finite(a, "a"), finite(b, "b"), np.asarray(real, bool)
    if not first.shape == second.shape == truth.shape:
        raise ValueError("a, b and real must have the same length")
    check_options(resamples, confidence)
    n = len(truth)
    if not 0 < truth.sum() < n:
        return Interval(float("nan"), float("nan"), float("nan"), n, 0)
    x, y = np.abs(truth - first), np.abs(truth - second)
    moments = np.stack([np.ones(n), x, y, x * x, y * y, x * y], axis=1)
    rows = np.hstack([moments * truth[:, None], moments * ~truth[:, None]])
    labels = labels_of(groups, n, "groups")
    return interval_of_sums(rows, labels, _correlation, n, resamples, confidence, seed)


def _correlation(sums: FloatArray) -> FloatArray:
    """Pearson's correlation of summed moments (rows, 12), each class divided by its weight."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (sums[:, :6] / sums[:, :1] + sums[:, 6:] / sums[:, 6:7]) / 2
        _, x, y, xx, yy, xy = mean.T
        spread = (xx - x * x) * (yy - y * y)
        correlation = (xy - x * y) / np.sqrt(np.where(spread > 1e-18, spread, np.nan))
    return np.clip(correlation, -1.0, 1.0)


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


def _probabilities(p: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    p, y = finite(p, "p"), finite(y, "y")
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
