"""How far the detectors of a run agree: rank correlations and the images they dispute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

RESAMPLES = 2000
FEWEST_GROUPS = 5  # a bootstrap of fewer says nothing


@dataclass(frozen=True, slots=True)
class Correlation:
    """A Spearman correlation with its interval; NaN where the data do not define it."""

    estimate: float
    low: float
    high: float
    n: int
    n_groups: int


def rank_correlation(
    x: np.ndarray,
    y: np.ndarray,
    groups: Sequence[object],
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """Return Spearman's correlation of ``x`` and ``y`` with an interval over ``groups``.

    Groups (prompts) are resampled, not images. The ranks are those of the full sample, which
    makes each resample a weighted Pearson correlation of sums per group.

    Args:
        x: values of shape (n,).
        y: values of shape (n,).
        groups: n labels; equal labels are resampled together.
        resamples: number of bootstrap resamples.
        confidence: of the interval.
        seed: of the resampling.
    """
    n = len(x)
    _, codes = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
    n_groups = int(codes.max()) + 1 if n else 0
    if n < 3:
        return Correlation(float("nan"), float("nan"), float("nan"), n, n_groups)
    # Ties share their mean rank; scipy's rankdata is the same, but slow to import.
    a, b = (pd.Series(values).rank().to_numpy() / n for values in (x, y))
    moments = np.stack([np.ones(n), a, b, a * a, b * b, a * b])
    sums = np.stack([np.bincount(codes, weights=row, minlength=n_groups) for row in moments])
    estimate = float(_pearson(sums.sum(axis=1)))
    if n_groups < FEWEST_GROUPS or not np.isfinite(estimate):
        return Correlation(estimate, float("nan"), float("nan"), n, n_groups)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples)
    draws = _pearson(sums @ weights.T)
    draws = draws[np.isfinite(draws)]
    if len(draws) < resamples / 2:
        return Correlation(estimate, float("nan"), float("nan"), n, n_groups)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Correlation(estimate, float(low), float(high), n, n_groups)


def _pearson(moments: np.ndarray) -> np.ndarray:
    """Pearson correlation from moment sums of shape (6, ...): 1, a, b, aa, bb, ab."""
    total, a, b, aa, bb, ab = moments
    covariance = ab * total - a * b
    variance = (aa * total - a * a) * (bb * total - b * b)
    tiny = 1e-12 * np.asarray(total, dtype=float) ** 4
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variance > tiny, covariance / np.sqrt(np.maximum(variance, 0)), np.nan)
