"""Whether probabilities mean what they say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from realbench.stats._arrays import FloatArray, finite


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
