"""The report's plots as inline SVG.

Row plots (intervals, histograms) place everything in per cent of their width, so that they grow
and shrink with the page while lines and text keep their size. Colours come from the page's CSS
classes; a plot therefore follows light mode, dark mode and print without being drawn again.
Every function returns markup that is safe to embed: text and attributes are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from realbench.report.wording import is_number, number

SHAPES = ("circle", "diamond", "square", "triangle")
ROW_HEIGHT = 30
HISTOGRAM_HEIGHT = 64
AXIS_HEIGHT = 20
BLEED = 60
RUG_LIMIT = 150
SCATTER_LIMIT = 2000


@dataclass(frozen=True, slots=True)
class Axis:
    """A horizontal axis: its ends and the values that get a tick."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> float:
        """Return where ``value`` lies on the axis, in per cent, clipped to its ends."""
        share = (value - self.low) / (self.high - self.low)
        return 100 * min(1.0, max(0.0, share))

    @property
    def digits(self) -> int:
        """Decimals that the tick labels need."""
        step = self.ticks[1] - self.ticks[0]
        return next((d for d in (0, 1, 2, 3) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 3)


UNIT_AXIS = Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))


def fitted_axis(
    values: Iterable[Any],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    landmark: float | None = None,
) -> Axis:
    """Return an axis that shows ``values`` with some air, and ``landmark``, inside ``bounds``.

    Close models need a magnified axis for their intervals to be told apart; when the values
    already span most of ``bounds`` the axis is ``bounds`` itself.
    """
    finite = [float(value) for value in values if is_number(value)]
    if not finite:
        return UNIT_AXIS
    lower, upper = bounds
    spread = max(finite) - min(finite)
    air = max(0.15 * spread, 0.01)
    low, high = max(lower, min(finite) - air), min(upper, max(finite) + air)
    if landmark is not None:
        low, high = min(low, landmark), max(high, landmark)
    if high - low > 0.6 * (upper - lower):
        low, high = lower, upper
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.25, 0.5) if (high - low) / s <= 4), 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 10) for index in range(first, last + 1))
    if len(ticks) < 2:
        ticks = (ticks[0], round(ticks[0] + step, 10))
    return Axis(ticks[0], ticks[-1], ticks)


MOST_STEPS = 5
POINTS_AXIS = Axis(800.0, 1200.0, (800.0, 900.0, 1000.0, 1100.0, 1200.0))


def round_axis(
    values: Iterable[Any],
    *,
    landmark: float | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Axis:
    """Return an axis that shows ``values`` with some air, and ``landmark``, in round steps.

    It is for rating points and per cent; ``bounds`` are what it never leaves.
    """
    finite = [float(value) for value in values if is_number(value)]
    if landmark is not None:
        finite.append(landmark)
    if not finite:
        return POINTS_AXIS
    air = max(0.04 * (max(finite) - min(finite)), 1.0)
    low, high = max(bounds[0], min(finite) - air), min(bounds[1], max(finite) + air)
    steps = (base * 10**power for power in range(13) for base in (1, 2, 5))
    step, first, last = next(
        (step, first, last)
        for step in steps
        if (last := math.ceil(high / step)) - (first := math.floor(low / step)) <= MOST_STEPS
    )
    ticks = tuple(float(index * step) for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def _element(name: str, attributes: Mapping[str, Any], *children: Any) -> Markup:
    pairs = " ".join(
        f'{key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(child for child in children if child)
    # The element and attribute names are literals of this module; values were escaped above.
    return Markup(f"<{name} {pairs}>{inside}</{name}>")


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def _drawing(height: float, label: str, *children: Any, class_: str = "plot") -> Markup:
    attributes = {
        "class_": class_,
        "height": height,
        "width": "100%",
        "role": "img",
        "aria_label": label,
    }
    return _element("svg", attributes, *children)


def _line(class_: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    attributes = {
        "class_": class_,
        "x1": _percent(x1),
        "y1": f"{y1:g}",
        "x2": _percent(x2),
        "y2": f"{y2:g}",
    }
    return _element("line", attributes)


def _grid(axis: Axis, reference: float | None, top: float, bottom: float) -> Markup:
    """Draw the vertical lines of ``axis``; they may leave the drawing, whose row clips them."""
    lines = [_line("grid", x, top, x, bottom) for x in map(axis.percent, axis.ticks)]
    if reference is not None and axis.low <= reference <= axis.high:
        position = axis.percent(reference)
        lines.append(_line("reference", position, top, position, bottom))
    return Markup("").join(lines)


def axis_labels(axis: Axis, *, sign: bool = False) -> Markup:
    """Return the tick labels of ``axis`` as a drawing of its own."""
    labels = []
    for tick in axis.ticks:
        position = axis.percent(tick)
        anchor = "start" if position < 2 else "end" if position > 98 else "middle"
        text = number(tick, axis.digits)
        if sign and tick > 0:
            text = f"+{text}"
        attributes = {"x": _percent(position), "y": AXIS_HEIGHT - 6, "text_anchor": anchor}
        labels.append(_element("text", attributes, escape(text)))
    return _drawing(AXIS_HEIGHT, "axis", *labels, class_="plot axis")


def _marker(shape: str, x: float, y: float, class_: str) -> Markup:
    """Draw a point mark; shapes differ so that colour is never the only carrier."""
    if shape == "circle":
        return _element("circle", {"class_": class_, "cx": _percent(x), "cy": y, "r": 4.5})
    outlines = {
        "diamond": "M0-6 6 0 0 6-6 0z",
        "square": "M-4.5-4.5h9v9h-9z",
        "triangle": "M0-6 5.5 4.5h-11z",
    }
    inner = _element("path", {"class_": class_, "d": outlines[shape]})
    nested = {"x": _percent(x), "y": y, "overflow": "visible"}
    return _element("svg", nested, inner)


def series(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return each name with the shape and the class that tell its marks from the others'."""
    return [(name, SHAPES[n % len(SHAPES)], f"series{n % 4}") for n, name in enumerate(names)]


def ends(values: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return all that an axis must show of estimates: they and the ends of their intervals."""
    return [value.get(key) for value in values for key in ("estimate", "low", "high")]


def interval_row(
    value: Mapping[str, Any],
    axis: Axis,
    *,
    label: str,
    class_: str = "model",
    reference: float | None = None,
) -> Markup:
    """Draw one estimate with its interval on ``axis`` (a row of a forest plot).

    ``reference`` is a value that gets a dashed line, such as 0.5 for an AUC. Missing bounds leave
    the point alone; a missing estimate leaves the row empty.
    """
    return marker_row([(value, "circle", class_)], axis, label=label, reference=reference)


def marker_row(
    marks: Sequence[tuple[Mapping[str, Any], str, str]],
    axis: Axis,
    *,
    label: str,
    reference: float | None = None,
) -> Markup:
    """Draw several estimates on one row; marks are ``(value, shape, class)``."""
    height = ROW_HEIGHT if len(marks) < 2 else 12 * len(marks) + 8
    children = [_grid(axis, reference, -BLEED, height + BLEED)]
    for index, (value, shape, class_) in enumerate(marks):
        estimate, low, high = ends([value])
        y = height / 2 if len(marks) < 2 else 10 + 12 * index
        if is_number(low) and is_number(high):
            left, right = axis.percent(low), axis.percent(high)
            children.append(_line(f"bar {class_}", left, y, right, y))
            children.extend(_line(f"cap {class_}", x, y - 4, x, y + 4) for x in (left, right))
        if is_number(estimate):
            children.append(_marker(shape, axis.percent(estimate), y, f"point {class_}"))
    return _drawing(height, label, *children)


def bin_counts(values: np.ndarray) -> np.ndarray:
    """Count ``values`` (in [0, 1]) in equal bins: 10 for few values, 20 from 50 on."""
    bins = 10 if len(values) < 50 else 20
    return np.histogram(np.clip(values, 0.0, 1.0), bins=bins, range=(0.0, 1.0))[0]


def histogram_row(
    values: np.ndarray, interval: Mapping[str, Any], *, label: str, class_: str = "model"
) -> Markup:
    """Draw the distribution of P(real) in one folder, with its mean and interval underneath.

    Args:
        values: P(real) per image, in [0, 1].
        interval: ``estimate``, ``low`` and ``high`` of these values.
        label: what the drawing shows, for screen readers.
        class_: ``model`` or ``photo``.
    """
    base = HISTOGRAM_HEIGHT - 16
    children = [_grid(UNIT_AXIS, 0.5, -BLEED, HISTOGRAM_HEIGHT + BLEED)]
    counts = bin_counts(values)
    width, tallest = 100 / len(counts), max(1, counts.max())
    for index, n in enumerate(counts):
        if n == 0:
            continue
        bar = max(1.5, (base - 4) * n / tallest)
        low, high = index / len(counts), (index + 1) / len(counts)
        share = f"{n:,} of {len(values):,} ({100 * n / len(values):.0f} %)"
        attributes = {
            "class_": f"fill {class_}",
            "x": _percent(index * width + 0.25),
            "y": f"{base - bar:.1f}",
            "width": _percent(width - 0.5),
            "height": f"{bar:.1f}",
        }
        tooltip = Markup("<title>{}</title>").format(f"{number(low)}–{number(high)}: {share}")
        children.append(_element("rect", attributes, tooltip))
    children.append(_line("baseline", 0, base, 100, base))
    if len(values) <= RUG_LIMIT:
        ticks = (_line(f"rug {class_}", 100 * v, base, 100 * v, base + 5) for v in values)
        children.extend(ticks)
    y = HISTOGRAM_HEIGHT - 5
    start, end = interval.get("low"), interval.get("high")
    if start is not None and end is not None and is_number(start) and is_number(end):
        children.append(_line(f"bar {class_}", 100 * start, y, 100 * end, y))
    mean = interval.get("estimate")
    if mean is not None and is_number(mean):
        children.append(_marker("circle", 100 * mean, y, f"point small {class_}"))
    return _drawing(HISTOGRAM_HEIGHT, label, *children)


def scatter(x: np.ndarray, y: np.ndarray, *, label: str, class_: str = "model") -> Markup:
    """Draw two detectors' P(real) against each other on the unit square, one dot an image.

    More than ``SCATTER_LIMIT`` images are thinned evenly (by rank of ``x``, so that the shape
    stays); the caption says so.
    """
    if len(x) > SCATTER_LIMIT:
        keep = np.argsort(x, kind="stable")[np.linspace(0, len(x) - 1, SCATTER_LIMIT).astype(int)]
        x, y = x[keep], y[keep]
    halves = _element("path", {"class_": "grid", "d": "M50 0V100M0 50H100"})
    diagonal = _element("path", {"class_": "reference", "d": "M0 100 100 0"})
    return _square(label, halves, diagonal, _dots(x, y, class_))


def cloud(sets: Sequence[tuple[np.ndarray, np.ndarray, str]], *, label: str) -> Markup:
    """Draw sets of points on the unit square, each ``(x, y, class)``, the last on top."""
    return _square(label, *(_dots(x[:SCATTER_LIMIT], y[:SCATTER_LIMIT], c) for x, y, c in sets))


def _square(label: str, *children: Any) -> Markup:
    frame = _element("rect", {"class_": "frame", "x": 0, "y": 0, "width": 100, "height": 100})
    attributes = {
        "class_": "plot scatter",
        "viewBox": "-3 -3 106 106",
        "role": "img",
        "aria_label": label,
    }
    return _element("svg", attributes, frame, *children)


def _dots(x: np.ndarray, y: np.ndarray, class_: str) -> Markup | None:
    path = "".join(f"M{100 * a:.1f} {100 - 100 * b:.1f}h0" for a, b in zip(x, y, strict=True))
    size = "fine" if len(x) > 300 else "coarse"
    return _element("path", {"class_": f"dots {size} {class_}", "d": path}) if path else None
