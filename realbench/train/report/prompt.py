"""The report of a training of a prompt-rewriting model: ``report.html`` from the run's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from realbench.errors import RealBenchError
from realbench.report.gallery import thumbnails
from realbench.report.page import render_page, write_page
from realbench.report.wording import count, is_number
from realbench.text import printable
from realbench.train.record import TrainIteration, TrainRun
from realbench.train.report.plots import Line
from realbench.train.report.sections import panel, read_run, shared_context, took

REWRITES = 12
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
    folder = Path(run)
    read = read_run(folder, "prompt")
    context: dict[str, object] = {
        "facts": _facts(read) + took(read),
        "panels": _panels(read.trained),
        "rewrites": _rewrites(folder, list(read.evaluations)),
        "has_images": read.manifest.config["pipeline"] is not None,
    }
    return render_page("report/templates/prompt_report.html", shared_context(read) | context)


def _facts(run: TrainRun) -> list[tuple[str, str]]:
    manifest, training = run.manifest, run.manifest.config["training"]
    pipeline = manifest.config["pipeline"]
    rewrites = sum(int(one.figure("n") or 0) for one in run.trained)
    return [
        ("Language model", str(manifest.model)),
        ("Image model", str(pipeline["source"]) if pipeline else "none: the texts are rewarded"),
        ("Iterations", f"{len(run.trained):,} of {training['iterations']:,}"),
        ("Rewrites", f"{rewrites:,}, {training['group_size']} a group"),
        ("Prompts", f"{manifest.n_prompts:,}"),
        ("Trained weights", f"{manifest.trained_parameters:,}"),
        ("Device", f"{manifest.device}, {count(manifest.processes, 'process', 'processes')}"),
    ]


def _panels(trained: Sequence[TrainIteration]) -> list[dict[str, Any]]:
    """Return the small plots of an iteration's own figures."""
    if not trained:
        return []
    reward: list[tuple[Any, ...]] = []
    for one in trained:
        mean, spread = one.reward or 0.0, one.reward_std or 0.0
        reward.append((one.iteration, mean, mean - spread, mean + spread))
    panels = [
        panel(
            "Reward of the training's rewrites",
            "mean and standard deviation; drawn at random, not the likeliest",
            [Line("reward", reward)],
            zero=False,
        )
    ]
    names = list(trained[0].components)
    panels += [
        panel(
            f"Term: {name}",
            "mean",
            [_line(name, [(one.iteration, one.components.get(name)) for one in trained])],
            zero=False,
        )
        for name in names
    ]
    panels += [
        panel(
            title,
            note,
            [_line(title, [(one.iteration, one.figure(key)) for one in trained])],
            zero=zero,
        )
        for key, title, note, zero in _PANELS
        if any(is_number(one.figure(key)) for one in trained)
    ]
    return panels


def _line(title: str, points: Sequence[tuple[int, float | None]]) -> Line:
    return Line(title, [(*point, None, None) for point in points])


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
