"""The plots: well-formed, in their frame, true to the numbers."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench.report import plots

units = st.floats(0, 1)


@given(st.lists(units, min_size=1, max_size=9))
def test_a_fitted_axis_holds_all_values(values: list[float]) -> None:
    axis = plots.fitted_axis(values)
    assert 0 <= axis.low <= min(values) + 1e-9
    assert max(values) - 1e-9 <= axis.high <= 1
    assert axis.ticks[0] == axis.low
    assert axis.ticks[-1] == axis.high
    assert 2 <= len(axis.ticks) <= 8


def test_close_values_get_a_magnified_axis_and_a_landmark_stays_on_it() -> None:
    axis = plots.fitted_axis([0.71, 0.73])
    assert axis.high - axis.low < 0.15
    assert plots.fitted_axis([0.9, 0.95], landmark=0.5).low <= 0.5


@given(units, units, units)
def test_an_interval_is_drawn_where_its_numbers_are(a: float, b: float, c: float) -> None:
    low, estimate, high = sorted([a, b, c])
    svg = plots.interval_row(
        {"estimate": estimate, "low": low, "high": high}, plots.UNIT_AXIS, label="x"
    )
    tree = ElementTree.fromstring(svg)
    bar = next(e for e in tree if e.get("class", "").startswith("bar"))
    point = next(e for e in tree if e.tag == "circle")
    for element, key, value in ((bar, "x1", low), (bar, "x2", high), (point, "cx", estimate)):
        assert float(element.get(key, "").rstrip("%")) == pytest.approx(100 * value, abs=0.01)


def test_a_missing_interval_leaves_the_point_alone() -> None:
    tree = ElementTree.fromstring(plots.interval_row({"estimate": 0.5}, plots.UNIT_AXIS, label="x"))
    assert [e.tag for e in tree if e.get("class") != "grid"] == ["circle"]


@given(st.lists(units, max_size=200))
def test_a_histogram_counts_every_value(values: list[float]) -> None:
    array = np.array(values)
    assert plots.bin_counts(array).sum() == len(values)
    svg = plots.histogram_row(array, {"estimate": None}, label="x")
    bars = [e for e in ElementTree.fromstring(svg) if e.tag == "rect"]
    assert len(bars) == np.count_nonzero(plots.bin_counts(array))


def test_a_scatter_thins_what_is_too_much_and_keeps_the_extremes() -> None:
    x = np.linspace(0, 1, 3 * plots.SCATTER_LIMIT)
    svg = plots.scatter(x, 1 - x, label="x")
    assert svg.count("h0") == plots.SCATTER_LIMIT
    assert "M0.0 0.0h0" in svg
    assert "M100.0 100.0h0" in svg


def test_labels_are_escaped() -> None:
    hostile = '"><script>alert(1)</script>'
    drawings = [
        plots.interval_row(
            {"estimate": 0.5, "low": 0.4, "high": 0.6}, plots.UNIT_AXIS, label=hostile
        ),
        plots.histogram_row(np.array([0.5]), {"estimate": 0.5}, label=hostile),
        plots.scatter(np.array([0.5]), np.array([0.5]), label=hostile),
    ]
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).get("aria-label") == hostile
