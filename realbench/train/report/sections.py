"""What the reports of both trainings have: the facts, the finding, the curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
from realbench.train.report.plots import Line, fitted_scale, line_chart

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
    """Return the command that makes a run again from its configuration."""
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
        made: how many images or rewrites.
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
