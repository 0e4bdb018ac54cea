"""The report of a Detector-Scoring run: ``report.html`` from a table, a summary and a manifest.

The data come exactly as they are written to ``scores.csv``, ``summary.json`` and ``run.json``;
nothing is scored again here. The page is one file: styles, plots and thumbnails are inside it,
there is no script, and everything that came from a file or folder name is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from realbench.distances.report import distances_section
from realbench.report import plots, wording
from realbench.report.gallery import ImagePaths, disputed_pictures, folder_pictures
from realbench.report.page import command_line, render_page, write_page
from realbench.scoring.records import ScoreManifest, Summary
from realbench.stats import VERDICTS, Interval
from realbench.stats.classification import interval_of_sums

if TYPE_CHECKING:
    from realbench.scoring.run import ScoreRun

RESAMPLES = 2000
FEWEST_GROUPS = 5  # a bootstrap of fewer says nothing

MATRIX_LIMIT = 24
PAIR_PLOT_LIMIT = 6
PANEL_LIMIT = 9


def write_score_report(run: ScoreRun, out: Path) -> Path:
    """Write the report of ``run`` to ``out`` (a file, or a folder that gets ``report.html``).

    The file appears whole or not at all.

    Returns:
        The path of the report.

    Raises:
        OSError: the folder cannot be written.
    """
    return write_page(render_score_report(run.table, run.summary, run.manifest, run.paths), out)


def render_score_report(
    table: pd.DataFrame, summary: Summary, manifest: ScoreManifest, paths: ImagePaths
) -> str:
    """Return the report as HTML; the arguments are what a :class:`ScoreRun` has."""
    detectors = detector_columns(table)
    scored = table[table["status"] == "ok"]
    folders = _in_rank_order(summary["folders"])
    reference = summary["reference"]
    entries = [*([reference] if reference else []), *folders]
    names = [entry["folder"] for entry in entries]
    context = {
        "thin": [str(e["folder"]) for e in entries if 0 < e["n_prompts"] < wording.THIN],
        "answer": wording.answer(summary),
        "any_scored": not scored.empty,
        "summary": summary,
        "verdicts": VERDICTS,
        "manifest": manifest,
        "detectors": detectors,
        "folders": folders,
        "reference": reference,
        "facts": _facts(table, manifest, detectors),
        "ranking": _ranking(folders, reference),
        "edge": wording.edge_note(entry["escape_rate"] for entry in entries),
        "pairs": _pairs(summary["pairs"], folders),
        "aucs": _aucs(folders, reference),
        "distributions": _distributions(scored, entries, reference),
        "categories": _categories(folders),
        "galleries": folder_pictures(scored, names, detectors, paths),
        "combination": wording.combination(manifest.get("detectors") or []),
        "quality": manifest.get("quality") or [],
        "agreement": _agreement(scored, entries, reference, detectors, paths),
        "distances": distances_section(summary.get("distances"), reference, table, paths),
        "failures": table[table["status"] == "unreadable"][["folder", "image", "reason"]].to_dict(
            "records"
        ),
        "notes": summary["notes"],
        "reproduction": {
            "command": _command(manifest),
            "suite": wording.suite_text(manifest),
            "versions": manifest["versions"],
            "detectors": manifest["detectors"],
        },
    }
    return render_page("scoring/report.html", context)


def detector_columns(table: pd.DataFrame) -> list[str]:
    """Return the detectors' columns: those between ``realism`` and ``disagreement``."""
    columns = [str(column) for column in table.columns]
    first, last = columns.index("realism") + 1, columns.index("disagreement")
    return columns[first:last]


def _in_rank_order(folders: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    def key(entry: Mapping[str, Any]) -> float:
        return float(entry["rank"]) if wording.is_number(entry.get("rank")) else math.inf

    return sorted(folders, key=key)


def _facts(
    table: pd.DataFrame, manifest: ScoreManifest, detectors: Sequence[str]
) -> list[tuple[str, str]]:
    scored, failed, copied = (
        int((table["status"] == one).sum()) for one in ("ok", "unreadable", "copy")
    )
    prompts = table.loc[table["status"] == "ok", "prompt_id"].nunique()
    facts = [
        ("Images", f"{scored:,}"),
        ("Prompts", f"{prompts:,}"),
        ("Unreadable", f"{failed:,}"),
        *([("Copies, which do not count", f"{copied:,}")] if copied else []),
        ("Detectors", ", ".join(detectors)),
    ]
    if suite := wording.suite_text(manifest):
        facts.insert(2, ("Prompt suite", suite))
    return [*facts, ("Date", manifest["started"][:10])]


def _ranking(
    folders: Sequence[Mapping[str, Any]], reference: Mapping[str, Any] | None
) -> dict[str, Any]:
    entries = [*([reference] if reference else []), *folders]
    axis = plots.fitted_axis(plots.ends(entry["realism"] for entry in entries))
    rows = []
    for entry in entries:
        realism = entry["realism"]
        label = (
            f"{entry['folder']}: mean realism {wording.number(realism.get('mean'))}, "
            f"interval {wording.span(realism.get('low'), realism.get('high'))}"
        )
        plot = plots.interval_row(
            realism, axis, label=label, class_="photo" if entry is reference else "model"
        )
        rows.append({"entry": entry, "plot": plot, "is_reference": entry is reference})
    return {"rows": rows, "axis": axis, "labels": plots.axis_labels(axis)}


def _pairs(
    pairs: Sequence[Mapping[str, Any]], folders: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Prepare the comparisons: a plot of few, a matrix of more, sentences for the tied ones."""
    if not pairs:
        return None
    order = [entry["folder"] for entry in folders]
    position = {name: index for index, name in enumerate(order)}
    oriented = [_oriented(pair, position) for pair in pairs]
    oriented.sort(key=lambda pair: (position[pair["a"]], position[pair["b"]]))
    result: dict[str, Any] = {
        "all": oriented,
        "tied": [pair for pair in oriented if pair["tied"]],
        "apart": [pair for pair in oriented if not pair["tied"]],
        "plots": None,
        "matrix": None,
    }
    if len(oriented) <= PAIR_PLOT_LIMIT:
        bounds = (-1.0, 1.0)
        values = [pair | {"estimate": pair["difference"]} for pair in oriented]
        axis = plots.fitted_axis(plots.ends(values), bounds=bounds, landmark=0.0)
        rows = [
            plots.interval_row(
                pair,
                axis,
                label=wording.pair_sentence(pair),
                class_="tied" if pair["tied"] else "model",
                reference=0.0,
            )
            for pair in values
        ]
        result["plots"] = {"rows": rows, "labels": plots.axis_labels(axis, sign=True)}
    elif len(order) <= MATRIX_LIMIT:
        cells = {(pair["a"], pair["b"]): pair for pair in oriented}
        result["matrix"] = {"order": order, "cells": cells}
    return result


def _oriented(pair: Mapping[str, Any], position: Mapping[str, int]) -> dict[str, Any]:
    turned = dict(pair)
    if position[pair["a"]] > position[pair["b"]]:
        turned["a"], turned["b"] = pair["b"], pair["a"]
        for key, source in (("difference", "difference"), ("low", "high"), ("high", "low")):
            value = pair[source]
            turned[key] = -value if wording.is_number(value) else value
    return turned


def _aucs(
    folders: Sequence[Mapping[str, Any]], reference: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    with_auc = [entry for entry in folders if entry.get("auc")]
    if reference is None or not with_auc:
        return None
    axis = plots.fitted_axis(plots.ends(entry["auc"] for entry in with_auc), landmark=0.5)
    rows = []
    for entry in with_auc:
        auc = entry["auc"]
        label = f"{entry['folder']}: AUC {wording.number(auc['estimate'])}"
        plot = plots.interval_row(auc, axis, label=label, reference=0.5)
        rows.append({"entry": entry, "auc": auc, "plot": plot})
    return {"rows": rows, "labels": plots.axis_labels(axis)}


def _distributions(
    scored: pd.DataFrame, entries: Sequence[Mapping[str, Any]], reference: Mapping[str, Any] | None
) -> dict[str, Any]:
    values = {
        entry["folder"]: scored.loc[scored["folder"] == entry["folder"], "realism"].to_numpy(float)
        for entry in entries
    }
    rows = []
    for entry in entries:
        realism = values[entry["folder"]]
        label = f"Distribution of realism over the {len(realism)} images of {entry['folder']}"
        plot = plots.histogram_row(
            realism,
            entry["realism"],
            label=label,
            class_="photo" if entry is reference else "model",
        )
        rows.append({"entry": entry, "plot": plot, "is_reference": entry is reference})
    return {
        "rows": rows,
        "labels": plots.axis_labels(plots.UNIT_AXIS),
        "rug": any(0 < len(v) <= plots.RUG_LIMIT for v in values.values()),
    }


def _categories(folders: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    names: dict[str, None] = {}
    for entry in folders:
        names.update(dict.fromkeys(entry.get("categories") or {}))
    if not names:
        return None
    rows = [
        (entry["folder"], [(entry.get("categories") or {}).get(n) for n in names])
        for entry in folders
    ]
    return {"names": list(names), "rows": rows}


def _agreement(
    scored: pd.DataFrame,
    entries: Sequence[Mapping[str, Any]],
    reference: Mapping[str, Any] | None,
    detectors: Sequence[str],
    paths: ImagePaths,
) -> dict[str, Any]:
    axis, shapes = plots.UNIT_AXIS, plots.series(detectors)
    rows = []
    for entry in entries:
        own = entry["detectors"]
        marks = [(own[name], shape, class_) for name, shape, class_ in shapes]
        label = f"{entry['folder']}: " + ", ".join(
            f"{name} {wording.number(own[name]['estimate'])}" for name in detectors
        )
        plot = plots.marker_row(marks, axis, label=label)
        rows.append({"entry": entry, "plot": plot, "is_reference": entry is reference})
    result: dict[str, Any] = {
        "rows": rows,
        "labels": plots.axis_labels(axis),
        "shapes": shapes,
        "correlations": None,
        "panels": None,
        "disputed": [],
    }
    if len(detectors) < 2 or scored.empty:
        return result
    correlations = {pair: _correlation(scored, *pair) for pair in combinations(detectors, 2)}
    result["correlations"] = correlations
    least = {pair: one.estimate for pair, one in correlations.items()}
    shown = min(least, key=lambda pair: least[pair] if math.isfinite(least[pair]) else math.inf)
    result["panels"] = _panels(scored, entries, reference, shown)
    result["disputed"] = disputed_pictures(scored, detectors, paths)
    return result


def _correlation(rows: pd.DataFrame, first: str, second: str) -> Interval:
    x, y = rows[first].to_numpy(float), rows[second].to_numpy(float)
    return rank_correlation(x, y, rows["prompt_id"].tolist())


def _panels(
    scored: pd.DataFrame,
    entries: Sequence[Mapping[str, Any]],
    reference: Mapping[str, Any] | None,
    pair: tuple[str, str],
) -> dict[str, Any]:
    groups: list[tuple[str, pd.DataFrame, str]]
    if len(entries) <= PANEL_LIMIT:
        groups = [
            (
                entry["folder"],
                scored[scored["folder"] == entry["folder"]],
                "photo" if entry is reference else "model",
            )
            for entry in entries
        ]
    else:
        groups = [("all images", scored, "model")]
    items = []
    for name, rows, class_ in groups:
        x, y = (rows[detector].to_numpy(float) for detector in pair)
        label = f"{name}: P(real) of {pair[0]} (across) against {pair[1]} (up), {len(rows)} images"
        items.append(
            {
                "name": name,
                "n": len(rows),
                "plot": plots.scatter(np.asarray(x), np.asarray(y), label=label, class_=class_),
                "correlation": _correlation(rows, *pair),
            }
        )
    return {"pair": pair, "entries": items}


def _command(manifest: ScoreManifest) -> str:
    arguments = manifest["arguments"]
    options = [(key, arguments.get(key)) for key in ("prompts", "reference")]
    for key, default in (("precision", "float32"), ("max_false_alarm", 0.05)):
        given = arguments.get(key, default)
        options.append((key, None if given == default else given))
    options += [("detector", one["name"]) for one in manifest["detectors"]]
    options += [("quality", one["name"]) for one in manifest.get("quality") or []]
    command = command_line(manifest, "score", [*options, ("seed", manifest["seed"])])
    python = Path(str(manifest["argv"][:1] or "")).name != "realbench"
    return command + (" --distances" if python and arguments.get("distances") else "")


def rank_correlation(
    x: np.ndarray,
    y: np.ndarray,
    groups: Sequence[object],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return Spearman's correlation of ``x`` and ``y`` with an interval over ``groups``.

    Groups (prompts) are resampled, not images. The ranks are those of the full sample, which
    makes each resample a weighted Pearson correlation of sums per group.

    Args:
        x, y: values of shape (n,).
        groups: n labels; equal labels are resampled together.
        resamples, seed: of the bootstrap.
    """
    n, labels = len(x), np.asarray([str(group) for group in groups])
    n_groups = len(set(labels.tolist()))
    if n < 3:
        return Interval(math.nan, math.nan, math.nan, n, n_groups)
    # Ties share their mean rank; scipy's rankdata is the same, but slow to import.
    a, b = (pd.Series(values).rank().to_numpy() / n for values in (x, y))
    moments = np.stack([np.ones(n), a, b, a * a, b * b, a * b], axis=1)
    found = interval_of_sums(moments, labels, _pearson, n, resamples, 0.95, seed)
    return found if n_groups >= FEWEST_GROUPS else replace(found, low=math.nan, high=math.nan)


def _pearson(sums: np.ndarray) -> np.ndarray:
    """Pearson's correlation of summed moments (rows, 6): 1, a, b, aa, bb, ab."""
    total, a, b, aa, bb, ab = sums.T
    variance = (aa * total - a * a) * (bb * total - b * b)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (ab * total - a * b) / np.sqrt(np.maximum(variance, 0))
    return np.where(variance > 1e-12 * total**4, correlation, np.nan)
