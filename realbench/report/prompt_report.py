"""The report of a training of a prompt-rewriting model: ``report.html`` from the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from realbench.errors import RealBenchError, UsageError
from realbench.images import printable
from realbench.report.gallery import thumbnails
from realbench.report.page import render_page, write_page
from realbench.report.train_plots import Line, fitted_scale, line_chart
from realbench.report.train_report import headline
from realbench.report.wording import is_number

REWRITES = 12
_PANEL = (320, 170)
_MAIN = {"wide": (900, 300), "narrow": (360, 240)}
_SERIES = 4
# Figures of an iteration: key, title, note, whether 0 is on the axis.
_PANELS = (
    ("zero_groups", "Groups without variance", "nothing is learnt from them", True),
    ("entropy", "Entropy", "nats a token; at 0 all rewrites of a prompt are the same", True),
    ("approx_kl", "KL to the base model", "estimated, nats a token", True),
    ("clip_fraction", "Clip fraction", "share of tokens whose ratio is outside the clip", True),
    ("words", "Words of a rewrite", "mean", False),
    ("ended", "Ended by the model", "share; the others were cut off at the limit", False),
    ("grad_norm", "Gradient norm", "before clipping", True),
)


def write_prompt_report(run: str | Path) -> Path:
    """Write the report of a run, finished or not, into its folder.

    Raises:
        UsageError: it is no run of ``realgen-train prompt``.
        RealBenchError: a file of the run is damaged.
        OSError: the report cannot be written.
    """
    return write_page(render_prompt_report(run), Path(run))


def render_prompt_report(run: str | Path) -> str:
    """Return the report as HTML."""
    from realbench.train.run_folder import MANIFEST_FILE, read_json, read_log

    folder = Path(run)
    manifest = read_json(folder / MANIFEST_FILE)
    log = read_log(folder)
    if manifest is None or manifest.get("kind") != "prompt" or not log:
        raise UsageError(
            f"{printable(folder)} holds no run of realgen-train prompt with a log to report"
        )
    trained = [one for one in log if "reward" in one]
    evaluated = [one for one in log if one.get("evaluation")]
    context: dict[str, object] = {
        "headline": headline(evaluated),
        "manifest": manifest,
        "facts": _facts(manifest, trained),
        "main_plot": _main_plot(evaluated),
        "panels": _panels(trained),
        "evaluations": [{"iteration": one["iteration"]} | one["evaluation"] for one in evaluated],
        "warnings": [
            (one["iteration"], one["evaluation"]["warning"])
            for one in evaluated
            if one["evaluation"]["warning"]
        ],
        "rewrites": _rewrites(folder, [one["iteration"] for one in evaluated]),
        "has_images": manifest["config"]["pipeline"] is not None,
        "config": json.dumps(manifest["config"], indent=2, ensure_ascii=False),
    }
    return render_page("prompt_report.html", context)


def _facts(
    manifest: Mapping[str, Any], trained: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    training = manifest["config"]["training"]
    seconds = sum(sum(one["seconds"].values()) for one in trained)
    pipeline = manifest["config"]["pipeline"]
    return [
        ("Language model", str(manifest["model"])),
        ("Image model", str(pipeline["source"]) if pipeline else "none: the texts are rewarded"),
        ("Iterations", f"{len(trained):,} of {training['iterations']:,}"),
        ("Rewrites", f"{sum(one['n'] for one in trained):,}, {training['group_size']} a group"),
        ("Prompts", f"{manifest['n_prompts']:,}"),
        ("Trained weights", f"{manifest['trained_parameters']:,}"),
        ("Device", f"{manifest['device']}, {manifest['processes']} process(es)"),
        ("Training took", f"{seconds / 3600:,.1f} h" if seconds > 5400 else f"{seconds:,.0f} s"),
    ]


def _main_plot(evaluated: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the reward, its terms' means and the held-out score of the evaluations."""
    lines: list[Line] = []
    for name, key in (("reward", "reward"), ("held-out score", "heldout")):
        found = [(one["iteration"], one["evaluation"][key] or {}) for one in evaluated]
        points = [(n, e.get("mean"), e.get("low"), e.get("high")) for n, e in found]
        if any(is_number(point[1]) for point in points):
            lines.append(Line(name, points, f"series{len(lines)}", True))
    scale = fitted_scale(v for one in lines for point in one.points for v in point[1:])
    label = "Reward and held-out score by iteration"
    return {"legend": [(one.name, one.class_) for one in lines]} | {
        kind: line_chart(lines, width=width, height=height, label=label, scale=scale)
        for kind, (width, height) in _MAIN.items()
    }


def _panels(trained: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the small plots of an iteration's own figures."""
    if not trained:
        return []
    reward = [
        (one["iteration"], one["reward"], *(one["reward"] + k * one["reward_std"] for k in (-1, 1)))
        for one in trained
    ]
    panels = [
        _panel(
            "Reward of the training's rewrites",
            "mean and standard deviation; drawn at random, not the likeliest",
            [Line("reward", reward)],
            zero=False,
        )
    ]
    names = list(trained[0]["components"])
    panels += [
        _panel(f"Term: {name}", "mean", [_line(name, trained, "components", name)], zero=False)
        for name in names
    ]
    panels += [
        _panel(title, note, [_line(title, trained, key)], zero=zero)
        for key, title, note, zero in _PANELS
        if any(is_number(one.get(key)) for one in trained)
    ]
    return panels


def _line(title: str, trained: Sequence[Mapping[str, Any]], *path: str) -> Line:
    points = []
    for one in trained:
        value: Any = one
        for key in path:
            value = (value or {}).get(key)
        points.append((one["iteration"], value, None, None))
    return Line(title, points)


def _panel(title: str, note: str, lines: list[Line], *, zero: bool) -> dict[str, Any]:
    scale = fitted_scale([v for one in lines for point in one.points for v in point[1:]], zero=zero)
    plot = line_chart(lines, width=_PANEL[0], height=_PANEL[1], label=title, scale=scale)
    return {"title": title, "unit": scale.unit, "note": note, "plot": plot}


def _rewrites(folder: Path, iterations: Sequence[int]) -> list[dict[str, Any]]:
    """Return the first prompts with the rewrite and image of the first and last evaluation."""
    ends = [iterations[0], iterations[-1]] if len(iterations) > 1 else list(iterations)
    tables = {n: _table(folder / "samples" / f"{n:06}.jsonl") for n in ends}
    if not tables:
        return []
    chosen = list(tables[ends[0]])[:REWRITES]
    paths = [folder / "samples" / f"{n:06}" / f"{name}.png" for name in chosen for n in ends]
    pictures = iter(
        thumbnails(paths, 192) if any(path.is_file() for path in paths) else [None] * len(paths)
    )
    return [
        {
            "prompt": tables[ends[0]][name]["prompt"],
            "versions": [
                {
                    "iteration": n,
                    "text": tables[n].get(name, {}).get("rewritten"),
                    "reward": tables[n].get(name, {}).get("reward"),
                    "picture": next(pictures),
                }
                for n in ends
            ],
        }
        for name in chosen
    ]


def _table(path: Path) -> dict[str, dict[str, Any]]:
    try:
        lines = path.read_text("utf-8").splitlines()
        return {record["id"]: record for record in map(json.loads, lines)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise RealBenchError(f"{printable(path)} is damaged: delete it") from error
