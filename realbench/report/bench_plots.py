"""The plot that only a benchmark's report has: curves over the strength of a degradation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from realbench.report.wording import is_number, number, span

MAX_SERIES = 4
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 8, 108
_WIDTH, _HEIGHT = 260, 134
_LETTER = 5.0  # of a label, in the drawing's units, at most


def curve_panel(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], labels: Sequence[str], *, label: str
) -> Markup:
    """Draw AUC against strength, a line with intervals for each judge.

    Args:
        curves: by judge, an estimate (``estimate``, ``low``, ``high``) for each of ``labels``.
        labels: the strengths, mildest first.
        label: what the drawing shows, for screen readers.
    """
    lowest = min(
        (one["low"] for points in curves.values() for one in points if is_number(one["low"])),
        default=0.0,
    )
    floor = 0.4 if lowest >= 0.4 else 0.0
    parts = [_grid(floor)]
    parts += _labels(labels)
    shift = 5 / max(1, len(curves) - 1)
    for n, (name, points) in enumerate(curves.items()):
        offset = n * shift - 2.5 if len(curves) > 1 else 0.0
        parts.append(_curve(name, points, labels, f"series{n % MAX_SERIES}", offset, floor))
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, _HEIGHT, label, Markup("").join(parts))


def _labels(labels: Sequence[str]) -> list[Markup]:
    """Write the strengths below the axis: the strongest, and of the others those that have room."""
    written, free = [], float("inf")
    for n in reversed(range(len(labels))):
        last = n + 1 == len(labels)
        x, width = _x(n, len(labels)), _LETTER * len(labels[n])
        if (x if last else x + width / 2) > free:
            continue
        free = x - (width if last else width / 2) - _LETTER
        written.append(
            Markup(
                '<text x="{:.1f}" y="{}" text-anchor="{}" style="font-size:9px">{}</text>'
            ).format(x, _HEIGHT - 10, "end" if last else "middle", labels[n])
        )
    return written


def _x(position: int, count: int) -> float:
    room = _WIDTH - _LEFT - _RIGHT - 12
    return _LEFT + 8 + room * position / max(1, count - 1)


def _y(value: float, floor: float) -> float:
    share = (min(1.0, max(floor, value)) - floor) / (1 - floor)
    return _BOTTOM - (_BOTTOM - _TOP) * share


def _grid(floor: float) -> Markup:
    lines = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0) if floor == 0 else (0.4, 0.6, 0.8, 1.0):
        y = _y(tick, floor)
        lines.append(
            Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(_LEFT, y, _WIDTH - _RIGHT)
        )
        lines.append(
            Markup(
                '<text x="{}" y="{:.1f}" text-anchor="end" style="font-size:9px">{}</text>'
            ).format(_LEFT - 5, y + 3, number(tick))
        )
    chance = _y(0.5, floor)
    lines.append(
        Markup('<path class="reference" d="M{} {:.1f}H{}"/>').format(_LEFT, chance, _WIDTH - _RIGHT)
    )
    return Markup("").join(lines)


def _curve(
    name: str,
    points: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    class_: str,
    offset: float,
    floor: float,
) -> Markup:
    parts, path = [], ""
    for n, (one, text) in enumerate(zip(points, labels, strict=True)):
        if not is_number(one["estimate"]):
            continue
        x, y = _x(n, len(labels)) + offset, _y(one["estimate"], floor)
        path += f"{'L' if path else 'M'}{x:.1f} {y:.1f}"
        if is_number(one["low"]) and is_number(one["high"]):
            parts.append(
                Markup(
                    '<path class="bar {}" style="stroke-width:1" d="M{:.1f} {:.1f}V{:.1f}"/>'
                ).format(class_, x, _y(one["low"], floor), _y(one["high"], floor))
            )
        told = f"{name}, {text}: {number(one['estimate'])} ({span(one['low'], one['high'])})"
        parts.append(
            Markup(
                '<circle class="point {}" style="stroke-width:1" cx="{:.1f}" cy="{:.1f}" r="3">'
                "<title>{}</title></circle>"
            ).format(class_, x, y, escape(told))
        )
    line = Markup('<path class="bar {}" style="fill:none" d="{}"/>').format(class_, path)
    return line + Markup("").join(parts) if path else Markup("")
