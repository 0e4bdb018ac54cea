"""The report of a training of a diffusion model: ``report.html`` from the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from realbench.errors import UsageError
from realbench.images import printable
from realbench.report.gallery import thumbnails
from realbench.report.page import render_page, write_page
from realbench.report.train_plots import Line, fitted_scale, line_chart
from realbench.report.wording import count, is_number, number, signed, span

SAMPLE_ROWS, SAMPLE_COLUMNS = 7, 8
_SERIES = 4
_COUNTED = "Groups without variance"
_WIDE, _NARROW, _PANEL = (900, 300), (360, 240), (320, 170)


def write_train_report(run: str | Path) -> Path:
    """Write the report of a run, finished or not, into its folder.

    Raises:
        UsageError: it is no run of ``realgen-train diffusion``.
        RealBenchError: a file of the run is damaged.
        OSError: the report cannot be written.
    """
    return write_page(render_train_report(run), Path(run))


def render_train_report(run: str | Path) -> str:
    """Return the report as HTML."""
    from realbench.train.run_folder import MANIFEST_FILE, read_json, read_log

    folder = Path(run)
    manifest = read_json(folder / MANIFEST_FILE)
    log = read_log(folder)
    if manifest is None or manifest.get("kind") != "diffusion" or not log:
        raise UsageError(
            f"{printable(folder)} holds no run of realgen-train diffusion with a log to report"
        )
    trained = [one for one in log if "reward" in one]
    evaluated = [one for one in log if one.get("evaluation")]
    context: dict[str, object] = {
        "headline": headline(evaluated),
        "changes": _changes(evaluated),
        "manifest": manifest,
        "facts": _facts(manifest, trained),
        "main_plot": _figure(evaluated),
        "panels": _panels(trained),
        "probes": _probes(evaluated),
        "evaluations": [{"iteration": one["iteration"]} | one["evaluation"] for one in evaluated],
        "warnings": [
            (one["iteration"], one["evaluation"]["warning"])
            for one in evaluated
            if one["evaluation"]["warning"]
        ],
        "cotrained": sum(bool(one.get("cotraining")) for one in trained),
        "samples": _samples(folder, [one["iteration"] for one in evaluated]),
        "config": json.dumps(manifest["config"], indent=2, ensure_ascii=False),
    }
    return render_page("train_report.html", context)


def headline(evaluated: Sequence[Mapping[str, Any]]) -> str:
    """Say what the evaluations support: whether the reward and the held-out score moved."""
    changes = _changes(evaluated)
    if "reward" not in changes:
        return "The training has not been evaluated twice yet"
    text = f"The reward {_moved(changes['reward'])}"
    if "heldout" in changes:
        text += f"; the held-out score {_moved(changes['heldout'])}"
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


def _changes(evaluated: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    from realbench.train.summary import change

    if len(evaluated) < 2:
        return {}
    found = {
        name: change(evaluated[0]["evaluation"], evaluated[-1]["evaluation"], name)
        for name in ("reward", "heldout")
    }
    return {name: one for name, one in found.items() if one is not None}


def _facts(
    manifest: Mapping[str, Any], trained: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    training = manifest["config"]["training"]
    images = training["prompts_per_iteration"] * training["group_size"]
    done = len(trained)
    seconds = sum(sum(one["seconds"].values()) for one in trained)
    facts = [
        ("Model", str(manifest["config"]["model"]["source"])),
        ("Iterations", f"{done:,} of {training['iterations']:,}"),
        ("Images made", f"{done * images:,}, in groups of {training['group_size']}"),
        ("Prompts", f"{manifest['n_prompts']:,}"),
        ("Trained weights", f"{manifest['trained_parameters']:,}"),
        ("Device", f"{manifest['device']}, {count(manifest['processes'], 'process', 'processes')}"),
        ("Training took", f"{seconds / 3600:,.1f} h" if seconds > 5400 else f"{seconds:,.0f} s"),
    ]
    reasons = {
        "interrupted": "running, or cut off",
        "hacking": "stopped for reward hacking",
        "risen": "stopped, since the reward had risen by evaluation.stop_at_rise",
    }
    state = reasons.get(manifest["stop_reason"])
    return facts + ([("State", state)] if state else [])


def _figure(evaluated: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the reward and the held-out score of the evaluations, for wide and narrow pages."""
    lines = [Line("reward", _estimates(evaluated, lambda one: one["reward"]), "series0", True)]
    if any(one["evaluation"]["heldout"] for one in evaluated):
        heldout = _estimates(evaluated, lambda one: one["heldout"])
        lines.append(Line("held-out score", heldout, "series1", True))
    scale = fitted_scale(v for one in lines for point in one.points for v in point[1:])
    label = "Reward and held-out score by iteration"
    return {
        "legend": [(one.name, one.class_) for one in lines],
        "wide": line_chart(lines, width=_WIDE[0], height=_WIDE[1], label=label, scale=scale),
        "narrow": line_chart(lines, width=_NARROW[0], height=_NARROW[1], label=label, scale=scale),
    }


def _estimates(evaluated: Sequence[Mapping[str, Any]], pick: Any) -> list[tuple[Any, ...]]:
    points = []
    for one in evaluated:
        found = pick(one["evaluation"]) or {}
        points.append((one["iteration"], found.get("mean"), found.get("low"), found.get("high")))
    return points


def _panels(trained: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the small plots of an iteration's own figures."""
    if not trained:
        return []

    def line(name: str, value: Any, class_: str = "series0", spread: Any = None) -> Line:
        points = []
        for one in trained:
            mean, half = value(one), spread(one) if spread else None
            has_band = is_number(mean) and is_number(half)
            points.append(
                (
                    one["iteration"],
                    mean,
                    mean - half if has_band else None,
                    mean + half if has_band else None,
                )
            )
        return Line(name, points, class_)

    names = list(trained[0]["components"])
    parts = list(dict.fromkeys(part for one in trained for part in one["seconds"]))
    wanted: list[tuple[str, str, list[Line], bool]] = [
        (
            "Reward of the training's images",
            "mean and standard deviation; with the sampler's noise",
            [line("reward", lambda one: one["reward"], spread=lambda one: one["reward_std"])],
            False,
        ),
        (
            "Its components",
            "means",
            [
                line(name, lambda one, name=name: one["components"].get(name), _class(n))
                for n, name in enumerate(names[:_SERIES])
            ],
            False,
        ),
        ("KL to the base model", "mean of the trained steps", [_plain(line, "kl")], True),
        (
            "Ratio − 1",
            "mean and standard deviation; 0 is the policy that sampled",
            [
                line(
                    "ratio − 1",
                    lambda one: one["ratio_mean"] - 1,
                    spread=lambda one: one["ratio_std"],
                )
            ],
            True,
        ),
        (
            "Clip fraction",
            "share of steps whose ratio is outside the clip, above and below",
            [
                _plain(line, "clip_fraction_high", "above", 0),
                _plain(line, "clip_fraction_low", "below", 1),
            ],
            True,
        ),
        (
            _COUNTED,
            f"of {trained[-1]['groups']}; nothing is learnt from them",
            [_plain(line, "zero_groups")],
            True,
        ),
        ("Gradient norm", "before clipping", [_plain(line, "grad_norm")], True),
        (
            "Seconds an iteration",
            "",
            [
                line(part, lambda one, part=part: one["seconds"].get(part), _class(n))
                for n, part in enumerate(parts[:_SERIES])
            ],
            True,
        ),
    ]
    extra = list(dict.fromkeys(key for one in trained for key in one.get("cotraining", {})))
    wanted += [
        (f"Co-training: {key}", "", [line(key, lambda one, key=key: _cotraining(one, key))], False)
        for key in extra
    ]
    return [_panel(*one) for one in wanted]


def _plain(line: Any, key: str, name: str | None = None, series: int = 0) -> Line:
    found: Line = line(name or key, lambda one: one[key], _class(series))
    return found


def _cotraining(one: Mapping[str, Any], key: str) -> Any:
    return one.get("cotraining", {}).get(key)


def _probes(evaluated: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a small plot for each further judge of the evaluations, and for each component."""
    panels = []
    for table, title in (("components", "Reward component: {}"), ("probes", "{}")):
        names = list(dict.fromkeys(name for one in evaluated for name in one["evaluation"][table]))
        if table == "components" and len(names) < 2:
            continue
        for name in names:
            points = _estimates(evaluated, lambda one, table=table, name=name: one[table].get(name))
            panels.append(_panel(title.format(name), "", [Line(name, points, dots=True)], False))
    return panels


def _panel(title: str, note: str, lines: list[Line], zero: bool) -> dict[str, Any]:
    values = [v for one in lines for point in one.points for v in point[1:]]
    scale = fitted_scale(values, zero=zero, whole=title == _COUNTED)
    return {
        "title": title,
        "unit": scale.unit,
        "note": note,
        "legend": [(one.name, one.class_) for one in lines] if len(lines) > 1 else [],
        "plot": line_chart(lines, width=_PANEL[0], height=_PANEL[1], label=title, scale=scale),
    }


def _class(series: int) -> str:
    return f"series{series % _SERIES}"


def _samples(folder: Path, iterations: Sequence[int]) -> dict[str, Any]:
    """Return rows of the same prompts' images over time, evenly spread over the run."""
    found = [n for n in iterations if (folder / "samples" / f"{n:06}").is_dir()]
    chosen = [found[place] for place in _spread(len(found), SAMPLE_ROWS)]
    if not chosen:
        return {"names": [], "rows": []}
    names = sorted(path.stem for path in (folder / "samples" / f"{chosen[-1]:06}").glob("*.png"))
    names = [names[place] for place in _spread(len(names), SAMPLE_COLUMNS)]
    paths = [folder / "samples" / f"{n:06}" / f"{name}.png" for n in chosen for name in names]
    pictures = thumbnails(paths, 192)
    width = len(names)
    rows = [
        {"iteration": n, "pictures": list(zip(names, pictures[k * width :], strict=False))}
        for k, n in enumerate(chosen)
    ]
    return {"names": names, "rows": rows}


def _spread(count: int, most: int) -> list[int]:
    """Return up to ``most`` of ``count`` positions, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
