"""Estimates with their intervals, as ``ratings.json`` holds them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from realbench.arena.tally import FloatArray
from realbench.stats.bootstrap import clustered_wilson, expanded_percentiles

CONFIDENCE = 0.95


def estimate(value: float | None, low: float | None, high: float | None, n: int) -> dict[str, Any]:
    """Return the four fields, None for what is not finite."""
    return {"estimate": number(value), "low": number(low), "high": number(high), "n": int(n)}


def number(value: float | None) -> float | None:
    """Return the value rounded for JSON, which has no nan: None where it is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.9g}")


def from_draws(value: float, draws: FloatArray, n: int, prompts: int) -> dict[str, Any]:
    """An estimate with the expanded percentile interval of its resamples; none under 2 prompts."""
    if prompts < 2 or not math.isfinite(value):
        return estimate(value, None, None, n)
    low, high = expanded_percentiles(draws, prompts, CONFIDENCE)
    # Rounding must not part an estimate from its interval.
    return estimate(value, min(low, value), max(high, value), n)


def share_from_draws(share: float, draws: FloatArray, n: int, prompts: int) -> dict[str, Any]:
    """A mean score in [0, 1] with Wilson's interval, see :func:`stats.bootstrap_share`."""
    if prompts < 2 or not math.isfinite(share):
        return estimate(share, None, None, n)
    deviation = float(np.nanstd(draws))
    low, high = clustered_wilson(share, deviation, n, prompts, CONFIDENCE)
    return estimate(share, low, high, n)
