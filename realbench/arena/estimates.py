"""Estimates of an arena from their resamples."""

from __future__ import annotations

import math

import numpy as np

from realbench.arena.tally import FloatArray
from realbench.stats import Interval
from realbench.stats.bootstrap import clustered_wilson, expanded_percentiles
from realbench.stats.record import Estimate, estimate

CONFIDENCE = 0.95


def without_interval(value: float, n: int, prompts: int) -> Estimate:
    """Return an estimate over too few prompts for an interval."""
    return estimate(Interval(value, math.nan, math.nan, n, prompts))


def from_draws(value: float, draws: FloatArray, n: int, prompts: int) -> Estimate:
    """An estimate with the expanded percentile interval of its resamples; none under 2 prompts."""
    if prompts < 2 or not math.isfinite(value):
        return without_interval(value, n, prompts)
    low, high = expanded_percentiles(draws, prompts, CONFIDENCE)
    # Rounding must not part an estimate from its interval.
    return estimate(Interval(value, min(low, value), max(high, value), n, prompts))


def share_from_draws(share: float, draws: FloatArray, n: int, prompts: int) -> Estimate:
    """A mean score in [0, 1] with Wilson's interval, see :func:`stats.bootstrap_share`."""
    if prompts < 2 or not math.isfinite(share):
        return without_interval(share, n, prompts)
    deviation = float(np.nanstd(draws))
    low, high = clustered_wilson(share, deviation, n, prompts, CONFIDENCE)
    return estimate(Interval(share, low, high, n, prompts))
