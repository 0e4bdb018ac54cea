"""``realgen-train demo``: the small model is improved by Flow-GRPO, and judged before and after."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from realbench.content import content_path
from realbench.generation.small_photo import load_small_photo
from realbench.prompts import load_prompts
from realbench.runs.folder import SUMMARY_FILE
from realbench.train.config import DiffusionConfig, load_config
from realbench.train.demo.quality import REWARDED, QualityGuard
from realbench.train.diffusion import train
from realbench.train.flow_models.small_photo import SmallPhoto
from realbench.train.report import write_report
from realbench.train.run import Progress, write_json

CONFIG = "small-photo"
GUARD_FILE = "photographs.json"
PROMPTS_FILE = "prompts.jsonl"


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    iterations: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Train the shipped model in ``out``; a run that was cut off goes on there.

    Args:
        seed: Of the training's pictures and of those that are judged.
        iterations: Other than the config's.

    Returns:
        What ``summary.json`` holds: that of every training, ``"quality"`` (the guard's verdict,
        and which of its measures are ``"rewarded"``), the ``"command"`` that comes to the same,
        and ``"wall_seconds"`` of this call, with loading.

    Raises:
        UsageError: ``out`` holds another run.
        RealBenchError: a part of the installation is missing.
    """
    started = time.monotonic()
    config = demo_config(seed, iterations)
    folder = content_path("models") / CONFIG
    guard = QualityGuard.read(folder / GUARD_FILE)
    training, evaluation = demo_prompts()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two are slower on a network this small
    try:
        result = train(
            config,
            out=out,
            model=SmallPhoto(load_small_photo(folder)),
            probes=guard.probes(),
            prompts=training,
            evaluation_prompts=evaluation,
            progress=progress,
        )
    finally:
        torch.set_num_threads(threads)
    summary: dict[str, Any] = dict(result.summary)
    quality = guard.verdict(summary["probes_start"], summary["probes_end"])
    summary["quality"] = quality | {"rewarded": list(REWARDED)}
    summary["wall_seconds"] = round(time.monotonic() - started, 1)
    summary["command"] = demo_command(config)
    write_json(out / SUMMARY_FILE, summary)
    write_report(out)  # again: the guard's verdict is new
    return summary


def demo_command(config: DiffusionConfig) -> str:
    """Return the command that comes to the same figures on the same machine."""
    usual = demo_config().training.iterations
    given = config.training.iterations
    more = "" if given == usual else f" --iterations {given}"
    return f"realgen-train demo --seed {config.seed}{more}"


def demo_config(seed: int = 0, iterations: int | None = None) -> DiffusionConfig:
    """Return the shipped config with a seed, and with fewer or more iterations."""
    overrides = [f"seed={seed}"]
    if iterations is not None:
        overrides.append(f"training.iterations={iterations}")
    return load_config(CONFIG, overrides)


def demo_prompts() -> tuple[list[str], list[str]]:
    """Return the captions to train on and, others, to judge."""
    prompts = load_prompts(content_path("models") / CONFIG / PROMPTS_FILE).values()
    training = [one.prompt for one in prompts if one.category == "training"]
    return training, [one.prompt for one in prompts if one.category == "evaluation"]
