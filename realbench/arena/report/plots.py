"""The plots that only an arena's report has: the axis of ratings and the win matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from realbench.report.plots import Axis
from realbench.report.wording import count, is_number, percent

NUMBERS_LIMIT = 14  # contestants; more make a heat map without numbers
MOST_STEPS = 5
LEVELS = 11
DEFAULT_AXIS = Axis(800.0, 1200.0, (800.0, 900.0, 1000.0, 1100.0, 1200.0))


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
        return DEFAULT_AXIS
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


def win_matrix(matrix: Mapping[str, Any], *, reference: str | None) -> Markup:
    """Draw the share of comparisons that each row won against each column, as a table.

    Up to ``NUMBERS_LIMIT`` contestants the cells hold per cent; with more they are squares of
    colour. Every cell says its pair, share and number of comparisons when pointed at.

    Args:
        matrix: ``contestants`` (n names), ``win_rate`` and ``n`` (n rows of n; a share in
            [0, 1] or ``None``, and a count).
        reference: the photographs' name, which is marked.
    """
    names = [str(name) for name in matrix["contestants"]]
    dense = len(names) > NUMBERS_LIMIT
    heads = Markup("").join(_head(name, "col", reference) for name in names)
    rows = Markup("").join(
        Markup("<tr>{}{}</tr>\n").format(
            _head(name, "row", reference),
            Markup("").join(
                _cell(name, other, share, n, dense)
                for other, share, n in zip(names, shares, counts, strict=True)
            ),
        )
        for name, shares, counts in zip(names, matrix["win_rate"], matrix["n"], strict=True)
    )
    table = Markup('<table class="matrix heat{}"><thead>{}</thead><tbody>\n{}</tbody></table>')
    top = Markup("<tr><td></td>{}</tr>").format(heads)
    return table.format(" dense" if dense else "", top, rows)


def _head(name: str, scope: str, reference: str | None) -> Markup:
    inner = Markup('<bdi class="name">{}</bdi>').format(name)
    class_ = Markup(' class="is-photo"') if name == reference else ""
    return Markup('<th scope="{}"{} title="{}"><span>{}</span></th>').format(
        scope, class_, name, inner
    )


def _cell(name: str, other: str, share: Any, n: int, dense: bool) -> Markup:
    if name == other:
        return Markup('<td class="is-self"></td>')
    if not is_number(share):
        return Markup('<td class="is-none" title="{} against {}: no comparison"></td>').format(
            name, other
        )
    title = f"{name} against {other}: wins {percent(share)} of {count(n, 'comparison')}"
    text = "" if dense else f"{100 * share:.0f}"
    return Markup('<td class="w{}" title="{}">{}</td>').format(level(share), title, text)


def level(share: float) -> int:
    """Return which of the ``LEVELS`` colours a share in [0, 1] gets: 0 to 10, 5 is even."""
    return round(min(1.0, max(0.0, share)) * (LEVELS - 1))


def counts_range(counts: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """Return the smallest and the largest number of comparisons of the pairs that have any."""
    some = [n for row in counts for n in row if n]
    return (min(some), max(some)) if some else None
