"""The report of a benchmark of detectors: ``report.html`` from what ``bench.json`` holds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from realbench.report import plots, wording
from realbench.report.page import render_page, write_page
from realbench.report.wording import is_number, number, span
from realbench.stats.classification import MEASURES

TITLES = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "accuracy": "Accuracy at 0.5",
    "best_accuracy": "Best accuracy",
    "tpr_at_5_fpr": "TPR at 5 % FPR",
    "tpr_at_1_fpr": "TPR at 1 % FPR",
    "calibration_error": "Calibration error",
}
KINDS = {
    "jpeg": "JPEG compression",
    "resize": "Scaled down and back",
    "blur": "Gaussian blur",
    "noise": "Gaussian noise",
    "crop": "Centre crop",
    "chain": "Chains of random degradations",
}


def write_bench_report(results: Mapping[str, Any], out: Path) -> Path:
    """Write the report to ``out`` (a file, or a folder that gets ``report.html``).

    Raises:
        OSError: the file cannot be written.
    """
    return write_page(render_bench_report(results), out)


def render_bench_report(results: Mapping[str, Any]) -> str:
    """Return the report as HTML; ``results`` as in ``bench.json``."""
    judges = list(dict.fromkeys(one["detector"] for one in results["results"]))
    context: dict[str, object] = {
        "headline": headline(results),
        "results": results,
        "facts": _facts(results),
        "few_prompts": _few_prompts(results),
        "legend": plots.series(judges),
        "ranking": _ranking(results, judges),
        "titles": TITLES,
        "measures": MEASURES,
        "robustness": _robustness(results, judges),
        "command": _command(results),
    }
    return render_page("bench/report.html", context)


def headline(results: Mapping[str, Any]) -> str:
    """Say which judge finds generated images best, where the intervals part it from the others."""
    ranked = sorted(
        (one for one in _pooled(results, "results") if wording.is_number(one["auc"]["estimate"])),
        key=lambda one: -one["auc"]["estimate"],
    )
    if not ranked:
        return "No detector could be measured"
    best = ranked[0]
    area = wording.number(best["auc"]["estimate"])
    equal = [one for one in ranked if wording.number(one["auc"]["estimate"]) == area]
    text = wording.listing([str(one["detector"]) for one in equal], 3)
    text += f" {'tells' if len(equal) == 1 else 'tell'} photographs from generated images with an "
    text += f"AUC of {area}"
    level = [
        str(one["detector"])
        for one in ranked[len(equal) :]
        if not wording.is_number(best["auc"]["low"])
        or not wording.is_number(one["auc"]["high"])
        or one["auc"]["high"] >= best["auc"]["low"]
    ]
    if not level:
        return text
    overlap = "interval of {} overlaps" if len(level) == 1 else "intervals of {} overlap"
    return f"{text}; the {overlap.format(wording.listing(level, 3))}"


def _pooled(results: Mapping[str, Any], table: str) -> list[Mapping[str, Any]]:
    """Return the entries of a table that are of all generators together."""
    several = len(results["generated"]) > 1
    return [one for one in results[table] if not (several and one["generator"])]


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    images = sum(one["n"] for one in results["generated"])
    folders = wording.count(len(results["generated"]), "generator")
    return [
        ("Photographs", f"{results['real']['n']:,}"),
        ("Generated", f"{images:,} of {folders}"),
        ("Protocol", "matched" if results["matched"] else "images as they are"),
        ("Device", str(results["device"])),
        ("Finished after", f"{results['seconds']:,.0f} s"),
        ("Date", str(results["started"])[:10]),
    ]


def _few_prompts(results: Mapping[str, Any]) -> int | None:
    """Return the number of prompts of the class that has fewer, where that is few."""
    pooled = _pooled(results, "results")
    fewest = min((one["auc"]["n_groups"] for one in pooled), default=wording.THIN)
    return fewest if fewest < wording.THIN else None


def _ranking(results: Mapping[str, Any], judges: list[str]) -> dict[str, Any]:
    entries = results["results"]
    axis = plots.fitted_axis(plots.ends(one["auc"] for one in entries), landmark=0.5)
    rows = []
    for generator in dict.fromkeys(one["generator"] for one in entries):
        mine = {one["detector"]: one for one in entries if one["generator"] == generator}
        marks = [(mine[judge]["auc"], *shape) for judge, *shape in plots.series(judges)]
        name = generator or "all generators"
        label = f"AUC on {name}"
        plot = plots.marker_row(marks, axis, label=label, reference=0.5)
        rows.append({"generator": name, "entries": list(mine.values()), "plot": plot})
    return {"rows": rows, "labels": plots.axis_labels(axis)}


def _robustness(results: Mapping[str, Any], judges: list[str]) -> list[dict[str, Any]]:
    entries = _pooled(results, "robustness")
    panels = []
    for kind in dict.fromkeys(one["perturbation"] for one in entries):
        series = {
            judge: [
                one for one in entries if (one["perturbation"], one["detector"]) == (kind, judge)
            ]
            for judge in judges
        }
        labels = [str(one["label"]) for one in series[judges[0]]]
        curves = {name: [one["auc"] for one in points] for name, points in series.items()}
        title = KINDS.get(kind, kind)
        plot: Markup = curve_panel(curves, labels, label=f"AUC under {title}")
        panels.append({"title": title, "labels": labels, "plot": plot, "series": series})
    return panels


def _command(results: Mapping[str, Any]) -> str:
    arguments = results["arguments"]
    command = ["realbench", "detectors", "bench", "--reference", arguments["real"]]
    for folder in arguments["generated"]:
        command += ["--generated", folder]
    for one in results["detectors"]:
        command += ["--detector", one["name"]]
    command += ["--matched"] if arguments["matched"] else []
    if arguments["perturb"]:
        command += ["--perturb", "--sample", str(arguments["sample"])]
    return shlex.join([*command, "--seed", str(arguments["seed"]), "--out", "bench"])


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
