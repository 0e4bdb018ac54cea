"""The one record of a figure with its interval, as every file of a run holds it."""

from __future__ import annotations

import math
from typing import (
    Annotated,
    Any,
    NotRequired,  # pydantic takes typing's from Python 3.12
)

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from realbench.stats.bootstrap import Interval


class _Estimate(TypedDict):
    """A figure with its 95 % interval.

    Attributes:
        estimate: None where there are no data.
        low, high: the interval's ends; None where fewer than two groups leave it undefined.
        n: how many values went in.
        n_groups: how many independent groups (prompts) they came from.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    n_groups: NotRequired[int]


_NOW = {"mean": "estimate", "n_prompts": "n_groups"}


def _as_now(value: Any) -> Any:
    """Read the form of version 0.1.0, which called most estimates means."""
    if isinstance(value, dict) and "mean" in value:
        value = {_NOW.get(key, key): one for key, one in value.items()}
    return value


Estimate = Annotated[_Estimate, BeforeValidator(_as_now)]


def estimate(found: Interval | None) -> Estimate:
    """Return an interval as its record; of None, that there are no data."""
    if found is None:
        return {"estimate": None, "low": None, "high": None, "n": 0, "n_groups": 0}
    return {
        "estimate": rounded(found.estimate),
        "low": rounded(found.low),
        "high": rounded(found.high),
        "n": found.n,
        "n_groups": found.n_groups,
    }


def rounded(value: float | None) -> float | None:
    """Return a figure for JSON, which has no NaN, to nine digits: None where it is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.9g}")
