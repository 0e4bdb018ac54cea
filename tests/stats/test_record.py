"""The one record of an estimate: what files hold, and what older files held."""

from __future__ import annotations

import json
import math

from pydantic import TypeAdapter

from realbench.stats import Interval
from realbench.stats.record import Estimate, estimate


def test_what_is_not_defined_is_null_in_json_and_nothing_else_is_lost() -> None:
    found = estimate(Interval(1340.5640212345, math.nan, math.nan, 8, 1))
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "estimate": 1340.56402,
        "low": None,
        "high": None,
        "n": 8,
        "n_groups": 1,
    }
    assert estimate(None) == {"estimate": None, "low": None, "high": None, "n": 0, "n_groups": 0}


def test_the_form_of_0_1_0_is_read_as_the_one_of_now() -> None:
    old = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4, "n_groups": 4}
    read = TypeAdapter(Estimate).validate_python(old)
    assert read == estimate(Interval(0.5, 0.25, 0.75, 4, 4))
