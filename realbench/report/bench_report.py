"""The report of a benchmark of detectors: ``report.html`` from what ``bench.json`` holds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from realbench.report import plots, wording
from realbench.report.bench_plots import MAX_SERIES, curve_panel
from realbench.report.page import render_page, write_page
from realbench.stats.classification import MEASURES

SHAPES = ("circle", "diamond", "square", "triangle")
TITLES = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "accuracy": "Accuracy at 0.5",
    "best_accuracy": "Best accuracy",
    "tpr_at_5_fpr": "TPR at 5 % FPR",
    "calibration_error": "Calibration error",
}
KINDS = {
    "jpeg": "JPEG compression",
    "resize": "Scaled down and back",
    "blur": "Gaussian blur",
    "noise": "Gaussian noise",
    "crop": "Centre crop",
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
        "legend": list(zip(judges, SHAPES, _classes(judges), strict=False)),
        "ranking": _ranking(results, judges),
        "titles": TITLES,
        "measures": MEASURES,
        "robustness": _robustness(results, judges),
        "command": _command(results),
    }
    return render_page("bench_report.html", context)


def headline(results: Mapping[str, Any]) -> str:
    """Say which judge finds generated images best, where the intervals part it from the others."""
    several = len(results["generated"]) > 1
    pooled = [one for one in results["results"] if not (several and one["generator"])]
    ranked = sorted(
        (one for one in pooled if wording.is_number(one["auc"]["estimate"])),
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


def _classes(judges: list[str]) -> list[str]:
    return [f"series{n % MAX_SERIES}" for n in range(len(judges))]


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
    several = len(results["generated"]) > 1
    pooled = [one for one in results["results"] if not (several and one["generator"])]
    fewest = min((one["auc"]["n_groups"] for one in pooled), default=wording.THIN)
    return fewest if fewest < wording.THIN else None


def _ranking(results: Mapping[str, Any], judges: list[str]) -> dict[str, Any]:
    """One row per generator with every judge's AUC, on one axis."""
    entries = results["results"]
    ends = [one["auc"][end] for one in entries for end in ("estimate", "low", "high")]
    axis = plots.fitted_axis(ends, landmark=0.5)
    rows = []
    for generator in dict.fromkeys(one["generator"] for one in entries):
        mine = {one["detector"]: one for one in entries if one["generator"] == generator}
        marks = [
            (
                mine[judge]["auc"]["estimate"],
                mine[judge]["auc"]["low"],
                mine[judge]["auc"]["high"],
                SHAPES[n % len(SHAPES)],
                f"series{n % MAX_SERIES}",
            )
            for n, judge in enumerate(judges)
        ]
        name = generator or "all generators"
        label = f"AUC on {name}"
        plot = plots.marker_row(marks, axis, label=label, reference=0.5)
        rows.append({"generator": name, "entries": list(mine.values()), "plot": plot})
    return {"rows": rows, "labels": plots.axis_labels(axis)}


def _robustness(results: Mapping[str, Any], judges: list[str]) -> list[dict[str, Any]]:
    """A panel for each kind of degradation, over all generators."""
    several = len(results["generated"]) > 1
    entries = [one for one in results["robustness"] if not (several and one["generator"])]
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
    command = ["realbench", "detectors", "bench", "--real", arguments["real"]]
    for folder in arguments["generated"]:
        command += ["--generated", folder]
    for one in results["detectors"]:
        command += ["--detector", one["name"]]
    command += ["--matched"] if arguments["matched"] else []
    if arguments["perturb"]:
        command += ["--perturb", "--sample", str(arguments["sample"])]
    return shlex.join([*command, "--seed", str(arguments["seed"]), "--out", "bench"])
