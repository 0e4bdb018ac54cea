"""What the reports of both trainings have: the run that is read, its finding, its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from realbench.config.toml_text import as_toml
from realbench.errors import UsageError
from realbench.report.wording import is_number, number, signed, span
from realbench.text import printable
from realbench.train.report.plots import Line, fitted_scale, line_chart

CONFIG_FILE = "config.toml"  # what the reader is told to save the configuration as
_WIDE, _NARROW, _PANEL = (900, 300), (360, 240), (320, 170)


def read_run(folder: Path, kind: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a run's manifest and its log.

    Args:
        kind: ``"diffusion"`` or ``"prompt"``.

    Raises:
        UsageError: the folder holds no run of that kind, or none with a log.
        RealBenchError: a file of the run is damaged.
    """
    from realbench.runs.folder import MANIFEST_FILE, read_json
    from realbench.train.run_folder import read_log

    manifest = read_json(folder / MANIFEST_FILE)
    log = read_log(folder)
    if manifest is None or manifest.get("kind") != kind or not log:
        raise UsageError(
            f"{printable(folder)} holds no run of realgen-train {kind} with a log to report"
        )
    return manifest, log


def finished_summary(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's summary; empty while it goes on, where an earlier one says nothing of it.

    Raises:
        RealBenchError: it is damaged.
    """
    from realbench.runs.folder import SUMMARY_FILE, read_json

    return (read_json(folder / SUMMARY_FILE) or {}) if manifest.get("finished") else {}


def shared_context(
    manifest: Mapping[str, Any],
    evaluated: Sequence[Mapping[str, Any]],
    command: str | None = None,
) -> dict[str, object]:
    """Return what ``training_report.html`` shows of either training.

    Args:
        command: that makes the run again; None for that of its configuration.
    """
    return {
        "headline": headline(evaluated),
        "manifest": manifest,
        "main_plot": main_plot(evaluated),
        "evaluations": [{"iteration": one["iteration"]} | one["evaluation"] for one in evaluated],
        "warnings": [
            (one["iteration"], one["evaluation"]["warning"])
            for one in evaluated
            if one["evaluation"]["warning"]
        ],
        "config": as_toml(manifest["config"]),
        "command": command or _command(manifest),
        "needs_config": command is None,
    }


def _command(manifest: Mapping[str, Any]) -> str:
    """Return the command that makes a run again from its configuration."""
    program = "realgen-train"
    if manifest["processes"] > 1:
        count = manifest["processes"]
        program = f"accelerate launch --num_processes {count} -m realbench.cli.train"
    return f"{program} {manifest['kind']} --config {CONFIG_FILE} --out another-run"


def took(
    trained: Sequence[Mapping[str, Any]], evaluated: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Say how long the iterations took, and how long the evaluations between them."""
    iterations = sum(sum(one["seconds"].values()) for one in trained)
    evaluations = sum(one["evaluation"]["seconds"] for one in evaluated)
    return [
        ("Iterations took", _duration(iterations)),
        ("Evaluations took", _duration(evaluations)),
    ]


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds > 5400 else f"{seconds:,.0f} s"


def headline(evaluated: Sequence[Mapping[str, Any]]) -> str:
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


def changes(evaluated: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return how the last evaluation differs from the first, where both were measured."""
    from realbench.train.summary import change

    if len(evaluated) < 2:
        return {}
    found = {
        name: change(evaluated[0]["evaluation"], evaluated[-1]["evaluation"], name)
        for name in ("reward", "heldout")
    }
    return {name: one for name, one in found.items() if one is not None}


def main_plot(evaluated: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the reward and the held-out score of the evaluations, for wide and narrow pages."""
    lines = [Line("reward", estimates(evaluated, lambda one: one["reward"]), "series0", True)]
    if any(one["evaluation"]["heldout"] for one in evaluated):
        heldout = estimates(evaluated, lambda one: one["heldout"])
        lines.append(Line("held-out score", heldout, "series1", True))
    scale = fitted_scale(v for one in lines for point in one.points for v in point[1:])
    label = "Reward and held-out score by iteration"
    return {
        "legend": [(one.name, one.class_) for one in lines],
        "wide": line_chart(lines, width=_WIDE[0], height=_WIDE[1], label=label, scale=scale),
        "narrow": line_chart(lines, width=_NARROW[0], height=_NARROW[1], label=label, scale=scale),
    }


def estimates(evaluated: Sequence[Mapping[str, Any]], pick: Any) -> list[tuple[Any, ...]]:
    """Return ``(iteration, mean, low, high)`` of what ``pick`` finds in each evaluation."""
    points = []
    for one in evaluated:
        found = pick(one["evaluation"]) or {}
        points.append((one["iteration"], found.get("mean"), found.get("low"), found.get("high")))
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
