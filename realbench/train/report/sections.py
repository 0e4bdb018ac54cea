"""What the reports of both trainings have: the facts, the finding, the curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from realbench.config.config_files import as_toml
from realbench.report.wording import count, is_number, number, signed, span
from realbench.stats.record import Estimate
from realbench.train.records import (
    TrainEvaluation,
    TrainIteration,
    TrainManifest,
    TrainRun,
    changes,
)

MOST_POINTS = 240  # of a line; more are averaged
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 8, 22
_STEPS = (1, 2, 2.5, 5, 10)
Evaluations = Mapping[int, TrainEvaluation]
CONFIG_FILE = "config.toml"  # what the reader is told to save the configuration as
_WIDE, _NARROW, _PANEL = (900, 300), (360, 240), (320, 170)


def shared_context(run: TrainRun) -> dict[str, object]:
    """Return what ``training_report.html`` shows of either training."""
    evaluated, command = run.evaluations, run.summary.get("command")
    return {
        "headline": _headline(run),
        "manifest": run.manifest,
        "main_plot": _main_plot(evaluated),
        "evaluations": [{"iteration": n} | dict(one) for n, one in evaluated.items()],
        "warnings": [(n, one.warning) for n, one in evaluated.items() if one.warning],
        "config": as_toml(run.manifest.config),
        "command": command or _command(run.manifest),
        "needs_config": command is None,
    }


def _command(manifest: TrainManifest) -> str:
    program = "realgen-train"
    if manifest.processes > 1:
        count = manifest.processes
        program = f"accelerate launch --num_processes {count} -m realbench.cli.train"
    return f"{program} {manifest.kind} --config {CONFIG_FILE} --out another-run"


def facts(
    run: TrainRun, models: list[tuple[str, str]], made: tuple[str, str]
) -> list[tuple[str, str]]:
    """Return the facts at the head of a report.

    Args:
        models: what is trained, and with what.
    """
    manifest, trained = run.manifest, run.trained
    found = [
        *models,
        ("Iterations", f"{len(trained):,} of {manifest.config['training']['iterations']:,}"),
        made,
        ("Prompts", f"{manifest.n_prompts:,}"),
        ("Trained weights", f"{manifest.trained_parameters:,}"),
        ("Device", f"{manifest.device}, {count(manifest.processes, 'process', 'processes')}"),
        ("Iterations took", _duration(sum(sum(one.seconds.values()) for one in trained))),
        ("Evaluations took", _duration(sum(one.seconds for one in run.evaluations.values()))),
    ]
    states = {
        "interrupted": "running, or cut off",
        "hacking": "stopped for reward hacking",
        "risen": "stopped, since the reward had risen by evaluation.stop_at_rise",
    }
    state = states.get(run.stop_reason)
    return found + ([("State", state)] if state else [])


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds > 5400 else f"{seconds:,.0f} s"


def _headline(run: TrainRun) -> str:
    """Say what the evaluations support: whether the reward and the held-out score moved."""
    found = changes(run)
    if "reward" not in found:
        return "The training has not been evaluated twice yet"
    text = f"The reward {_moved(found['reward'])}"
    if "heldout" in found:
        text += f"; the held-out score {_moved(found['heldout'])}"
    return text


def _moved(change: Estimate) -> str:
    by, low, high = change["estimate"] or 0.0, change["low"], change["high"]
    digits = 2 if abs(by) >= 0.1 else 3
    if low is None or high is None:
        return f"differs by {signed(by, digits)}, on too few prompts for an interval"
    if low > 0 or high < 0:
        return f"{'rose' if low > 0 else 'fell'} by {number(abs(by), digits)}"
    return f"did not move measurably ({signed(by, digits)}, {span(low, high, digits)})"


def _main_plot(evaluated: Evaluations) -> dict[str, Any]:
    """Draw the reward and the held-out score of the evaluations, for wide and narrow pages."""
    lines = [Line("reward", estimates(evaluated, lambda one: one.reward), "series0", True)]
    if any(one.heldout for one in evaluated.values()):
        heldout = estimates(evaluated, lambda one: one.heldout)
        lines.append(Line("held-out score", heldout, "series1", True))
    scale = fitted_scale(v for one in lines for point in one.points for v in point[1:])
    label = "Reward and held-out score by iteration"
    return {
        "legend": [(one.name, one.class_) for one in lines],
        "wide": line_chart(lines, width=_WIDE[0], height=_WIDE[1], label=label, scale=scale),
        "narrow": line_chart(lines, width=_NARROW[0], height=_NARROW[1], label=label, scale=scale),
    }


def estimates(
    evaluated: Evaluations, pick: Callable[[TrainEvaluation], Estimate | None]
) -> list[tuple[Any, ...]]:
    """Return ``(iteration, estimate, low, high)`` of what ``pick`` finds in each evaluation."""
    points: list[tuple[Any, ...]] = []
    for iteration, one in evaluated.items():
        found = pick(one)
        values = (found["estimate"], found["low"], found["high"]) if found else (None,) * 3
        points.append((iteration, *values))
    return points


Figure = Callable[[TrainIteration], float | None]


def figure_of(name: str, table: str | None = None) -> Figure:
    """Return a function that takes a figure out of an iteration, or out of one of its tables."""
    if table is None:
        return lambda one: one.figure(name)
    return lambda one: getattr(one, table).get(name)


def curve(
    trained: Sequence[TrainIteration],
    name: str,
    value: Figure,
    spread: Figure | None = None,
    class_: str = "series0",
) -> Line:
    """Return a figure of the iterations as a line, with its spread around it as a band."""
    points: list[tuple[Any, ...]] = []
    for one in trained:
        mean, half = value(one), spread(one) if spread else None
        has_band = is_number(mean) and is_number(half)
        band = (mean - half, mean + half) if has_band else (None, None)  # type: ignore[operator]
        points.append((one.iteration, mean, *band))
    return Line(name, points, class_)


def panel(
    title: str, note: str, lines: list[Line], *, zero: bool = False, whole: bool = False
) -> dict[str, Any]:
    """Return a small plot with its title; a legend only where there is more than one line."""
    values = [v for one in lines for point in one.points for v in point[1:]]
    scale = fitted_scale(values, zero=zero, whole=whole)
    return {
        "title": title,
        "unit": scale.unit,
        "note": note,
        "legend": [(one.name, one.class_) for one in lines] if len(lines) > 1 else [],
        "plot": line_chart(lines, width=_PANEL[0], height=_PANEL[1], label=title, scale=scale),
    }


@dataclass(frozen=True, slots=True)
class Line:
    """A curve.

    Attributes:
        name: what it is called in the legend.
        points: ``(iteration, value, low, high)``; what is no number is left out, and an interval
            that is none is not drawn.
        class_: the CSS class that colours it.
        dots: mark each point, and say its numbers when pointed at.
    """

    name: str
    points: Sequence[tuple[float, Any, Any, Any]]
    class_: str = "series0"
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """The upright axis.

    Attributes:
        low, high: its ends.
        ticks: values with a grid line.
        power: the labels are the values divided by 10 to this.
        digits: decimals of the labels.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    power: int
    digits: int

    @property
    def unit(self) -> str:
        """What the labels must be multiplied by, for the title; empty for 1."""
        if not self.power:
            return ""
        digits = str(self.power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"× 10{digits}"


_LEAST = 1e-290  # fractions of a number below it are lost to rounding


def fitted_scale(values: Iterable[Any], *, zero: bool = False, whole: bool = False) -> Scale:
    """Return an axis with a few round ticks around the values.

    Args:
        whole: the values are counts, and so are the ticks.
    """
    finite = [float(value) for value in values if is_number(value)]
    finite = [value if abs(value) > _LEAST else 0.0 for value in finite]
    if zero or not finite:
        finite.append(0.0)
    low, high = min(finite), max(finite)
    largest = max(abs(low), abs(high))
    if high - low < 1e-9 * max(largest, 1e-30):
        half = 0.5 * largest or 0.5
        low, high = (0.0, 2 * half) if low >= 0 else (low - half, high + half)
    if whole:
        high = max(high, low + 1)
    room = 10 ** math.floor(math.log10(high - low))
    step = next(s for f in (0.1, 1) for m in _STEPS if (high - low) / (s := m * f * room) <= 4)
    step = math.ceil(step) if whole else step
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    ticks = tuple(index * step for index in range(first, last + 1))
    largest = max(abs(ticks[0]), abs(ticks[-1]))
    power = math.floor(math.log10(largest) + 1e-9)
    power = power if power < -3 or power > 4 else 0
    digits = next((d for d in range(6) if abs(step / 10**power * 10**d % 1 - 0.5) > 0.5 - 1e-6), 6)
    return Scale(ticks[0], ticks[-1], ticks, power, digits)


def line_chart(
    lines: Sequence[Line], *, width: int, height: int, label: str, scale: Scale | None = None
) -> Markup:
    """Draw curves over iterations.

    Args:
        width, height: in the drawing's units, which are pixels where it is as wide as that.
        label: what the drawing shows, for screen readers.
        scale: the upright axis; by default one that fits.
    """
    lines = [
        Line(one.name, _averaged(one.points), one.class_, one.dots and len(one.points) <= 60)
        for one in lines
    ]
    scale = scale or fitted_scale(v for one in lines for point in one.points for v in point[1:])
    last = max((point[0] for one in lines for point in one.points), default=1) or 1
    frame = _Frame(width, height, float(last), scale)
    parts = [frame.grid()]
    parts += [frame.band(one) for one in lines]
    parts += [frame.curve(one) for one in lines]
    return Markup(
        '<svg class="plot curves" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(width, height, label, Markup("").join(parts))


@dataclass(frozen=True, slots=True)
class _Frame:
    width: int
    height: int
    last: float
    scale: Scale

    def x(self, iteration: float) -> float:
        return _LEFT + (self.width - _LEFT - _RIGHT) * iteration / self.last

    def y(self, value: float) -> float:
        scale = self.scale
        share = (min(scale.high, max(scale.low, value)) - scale.low) / (scale.high - scale.low)
        return self.height - _BOTTOM - (self.height - _BOTTOM - _TOP) * share

    def grid(self) -> Markup:
        parts = []
        for tick in self.scale.ticks:
            y = self.y(tick)
            text = number(tick / 10**self.scale.power, self.scale.digits)
            parts.append(
                Markup(
                    '<path class="grid" d="M{} {:.1f}H{}"/>'
                    '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
                ).format(_LEFT, y, self.width - _RIGHT, _LEFT - 6, y + 4, text)
            )
        places = [0, round(self.last / 2), round(self.last)] if self.last >= 4 else [0, self.last]
        for n, place in enumerate(places):
            anchor = "start" if n == 0 else "end" if n + 1 == len(places) else "middle"
            parts.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{:,}</text>').format(
                    self.x(place), self.height - 6, anchor, int(place)
                )
            )
        return Markup("").join(parts)

    def band(self, line: Line) -> Markup:
        edges = [one for one in line.points if is_number(one[2]) and is_number(one[3])]
        if len(edges) < 2:
            return Markup("")
        upper = [f"{self.x(one[0]):.1f} {self.y(one[3]):.1f}" for one in edges]
        lower = [f"{self.x(one[0]):.1f} {self.y(one[2]):.1f}" for one in reversed(edges)]
        return Markup('<path class="band {}" d="M{}Z"/>').format(
            line.class_, "L".join(upper + lower)
        )

    def curve(self, line: Line) -> Markup:
        found = [one for one in line.points if is_number(one[1])]
        if not found:
            return Markup("")
        path = "L".join(f"{self.x(one[0]):.1f} {self.y(one[1]):.1f}" for one in found)
        parts = [Markup('<path class="line {}" d="M{}"/>').format(line.class_, path)]
        if line.dots or len(found) == 1:
            for iteration, value, low, high in found:
                told = f"{line.name}, iteration {iteration:,.0f}: {number(value, 3)}"
                if is_number(low):
                    told += f" ({span(low, high, 3)})"
                parts.append(
                    Markup(
                        '<circle class="point {}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}'
                        "</title></circle>"
                    ).format(line.class_, self.x(iteration), self.y(value), escape(told))
                )
        return Markup("").join(parts)


def _averaged(
    points: Sequence[tuple[float, Any, Any, Any]],
) -> Sequence[tuple[float, Any, Any, Any]]:
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(len(points) / MOST_POINTS)
    averaged = []
    for start in range(0, len(points), size):
        columns = zip(*points[start : start + size], strict=True)
        means = []
        for column in columns:
            values = [float(value) for value in column if is_number(value)]
            means.append(sum(values) / len(values) if values else None)
        averaged.append((means[0] or 0.0, *means[1:]))
    return averaged  # type: ignore[return-value]
