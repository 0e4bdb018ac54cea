"""The summary of a training: where it began and where it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realbench.train.evaluation import estimate


def summarize(log: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``summary.json`` holds: means, and the intervals beside them.

    All figures are of evaluations: the same prompts and seeds, before and after.
    """
    evaluations = [one for one in log if one.get("evaluation")]
    trained = [one for one in log if "reward" in one]
    first, last = evaluations[0]["evaluation"], evaluations[-1]["evaluation"]
    summary: dict[str, Any] = {
        "iterations": log[-1]["iteration"],
        "seed": config["seed"],
        "n_images": first["reward"]["n"],
        "n_prompts": first["reward"]["n_prompts"],
    }
    for name in ("reward", "heldout"):
        for when, one in (("start", first), ("end", last)):
            found = one[name] or {}
            summary[f"{name}_{when}"] = found.get("mean")
            summary[f"{name}_{when}_interval"] = [found.get("low"), found.get("high")]
        summary[f"{name}_change"] = change(
            first.get("by_prompt", {}), last.get("by_prompt", {}), name
        )
    summary["components_start"] = first["components"]
    summary["components_end"] = last["components"]
    summary["probes_start"] = first["probes"]
    summary["probes_end"] = last["probes"]
    summary["warnings"] = [
        {"iteration": one["iteration"], "warning": one["evaluation"]["warning"]}
        for one in evaluations
        if one["evaluation"]["warning"]
    ]
    summary["seconds"] = round(
        sum(sum(one["seconds"].values()) for one in trained)
        + sum(one["evaluation"]["seconds"] for one in evaluations),
        1,
    )
    return summary


def change(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], name: str
) -> dict[str, Any] | None:
    """Return how much two evaluations differ, prompt by prompt: an estimate with its interval.

    Args:
        before, after: values of each prompt, by name.
        name: ``"reward"`` or ``"heldout"``.

    Returns:
        None where it was not measured.
    """
    if name not in before or name not in after:
        return None
    difference = np.subtract(after[name], before[name])
    return estimate(difference, np.arange(len(difference)))
