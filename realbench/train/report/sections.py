"""What the reports of both trainings have: the run that is read, its finding, its curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from realbench.config.config_files import as_toml
from realbench.errors import UsageError
from realbench.report.wording import is_number, number, signed, span
from realbench.text import printable
from realbench.train.record import TrainEstimate, TrainEvaluation, TrainManifest, TrainRun
from realbench.train.report.plots import Line, fitted_scale, line_chart

Evaluations = Mapping[int, TrainEvaluation]
CONFIG_FILE = "config.toml"  # what the reader is told to save the configuration as
_WIDE, _NARROW, _PANEL = (900, 300), (360, 240), (320, 170)


def read_run(folder: Path, kind: str) -> TrainRun:
    """Return a run of a kind, with a log.

    Raises:
        UsageError: the folder holds no run of that kind, or none with a log.
        RealBenchError: a file of the run is damaged.
    """
    run = TrainRun.read(folder)
    if run.manifest.kind != kind or not run.log:
        raise UsageError(
            f"{printable(folder)} holds no run of realgen-train {kind} with a log to report"
        )
    return run


def shared_context(run: TrainRun) -> dict[str, object]:
    """Return what ``training_report.html`` shows of either training."""
    evaluated, command = run.evaluations, run.summary.get("command")
    return {
        "headline": headline(evaluated),
        "manifest": run.manifest,
        "main_plot": main_plot(evaluated),
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


def took(run: TrainRun) -> list[tuple[str, str]]:
    """Say how long the iterations took, and how long the evaluations between them."""
    iterations = sum(sum(one.seconds.values()) for one in run.trained)
    evaluations = sum(one.seconds for one in run.evaluations.values())
    return [
        ("Iterations took", _duration(iterations)),
        ("Evaluations took", _duration(evaluations)),
    ]


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds > 5400 else f"{seconds:,.0f} s"


def headline(evaluated: Evaluations) -> str:
    """Say what the evaluations support: whether the reward and the held-out score moved."""
    found = changes(evaluated)
    if "reward" not in found:
        return "The training has not been evaluated twice yet"
    text = f"The reward {_moved(found['reward'])}"
    if "heldout" in found:
        text += f"; the held-out score {_moved(found['heldout'])}"
    return text


def _moved(change: Mapping[str, Any]) -> str:
    low, high = change["low"], change["high"]
    digits = 2 if abs(change["mean"]) >= 0.1 else 3
    by = number(abs(change["mean"]), digits)
    if not (is_number(low) and is_number(high)):
        return f"differs by {signed(change['mean'], digits)}, on too few prompts for an interval"
    if low > 0:
        return f"rose by {by}"
    if high < 0:
        return f"fell by {by}"
    moved = f"{signed(change['mean'], digits)}, {span(low, high, digits)}"
    return f"did not move measurably ({moved})"


def changes(evaluated: Evaluations) -> dict[str, Mapping[str, Any]]:
    """Return how the last evaluation differs from the first, where both were measured."""
    from realbench.train.summary import change

    if len(evaluated) < 2:
        return {}
    first, *_, last = evaluated.values()
    names = ("reward", "heldout")
    found = {name: change(first.by_prompt, last.by_prompt, name) for name in names}
    return {name: one for name, one in found.items() if one is not None}


def main_plot(evaluated: Evaluations) -> dict[str, Any]:
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
    evaluated: Evaluations, pick: Callable[[TrainEvaluation], TrainEstimate | None]
) -> list[tuple[Any, ...]]:
    """Return ``(iteration, mean, low, high)`` of what ``pick`` finds in each evaluation."""
    points: list[tuple[Any, ...]] = []
    for iteration, one in evaluated.items():
        found = pick(one)
        values = (found.mean, found.low, found.high) if found is not None else (None, None, None)
        points.append((iteration, *values))
    return points


def panel(
    title: str, note: str, lines: list[Line], *, zero: bool, whole: bool = False
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
