"""What the report of a training of a prompt-rewriting model has of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from realbench.errors import RealBenchError
from realbench.report.gallery import thumbnails
from realbench.report.wording import is_number
from realbench.text import printable
from realbench.train.records import TrainRun
from realbench.train.report.sections import curve, facts, figure_of, panel

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


def context(run: TrainRun) -> dict[str, object]:
    """Return what ``prompt_report.html`` shows beside what all trainings do."""
    training, pipeline = run.manifest.config["training"], run.manifest.config["pipeline"]
    rewrites = sum(int(one.figure("n") or 0) for one in run.trained)
    models = [
        ("Language model", str(run.manifest.model)),
        ("Image model", str(pipeline["source"]) if pipeline else "none: the texts are rewarded"),
    ]
    made = ("Rewrites", f"{rewrites:,}, {training['group_size']} a group")
    return {
        "facts": facts(run, models, made),
        "panels": _panels(run),
        "rewrites": _rewrites(run),
        "has_images": pipeline is not None,
    }


def _panels(run: TrainRun) -> list[dict[str, Any]]:
    trained = run.trained
    if not trained:
        return []
    reward = curve(trained, "reward", figure_of("reward"), figure_of("reward_std"))
    note = "mean and standard deviation; drawn at random, not the likeliest"
    panels = [panel("Reward of the training's rewrites", note, [reward])]
    for name in trained[0].components:
        term = curve(trained, name, figure_of(name, "components"))
        panels.append(panel(f"Term: {name}", "mean", [term]))
    for key, title, note, zero in _PANELS:
        if any(is_number(one.figure(key)) for one in trained):
            line = curve(trained, title, figure_of(key))
            panels.append(panel(title, note, [line], zero=zero))
    return panels


def _rewrites(run: TrainRun) -> list[dict[str, Any]]:
    iterations = list(run.evaluations)
    ends = [iterations[0], iterations[-1]] if len(iterations) > 1 else iterations
    tables = {n: _table(run.out / "samples" / f"{n:06}.jsonl") for n in ends}
    if not tables:
        return []
    chosen = list(tables[ends[0]])[:REWRITES]
    paths = [run.out / "samples" / f"{n:06}" / f"{name}.png" for name in chosen for n in ends]
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
