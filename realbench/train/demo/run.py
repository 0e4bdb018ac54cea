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
from realbench.train.config import load_config
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
    more = [] if iterations is None else [f"training.iterations={iterations}"]
    config = load_config(CONFIG, [f"seed={seed}", *more])
    folder = content_path("models") / CONFIG
    guard = QualityGuard.read(folder / GUARD_FILE)
    prompts = load_prompts(folder / PROMPTS_FILE).values()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two are slower on a network this small
    try:
        result = train(
            config,
            out=out,
            model=SmallPhoto(load_small_photo(folder)),
            probes=guard.probes(),
            prompts=[one.prompt for one in prompts if one.category == "training"],
            evaluation_prompts=[one.prompt for one in prompts if one.category == "evaluation"],
            progress=progress,
        )
    finally:
        torch.set_num_threads(threads)
    summary: dict[str, Any] = dict(result.summary)
    quality = guard.verdict(summary["probes_start"], summary["probes_end"])
    summary["quality"] = quality | {"rewarded": list(REWARDED)}
    summary["wall_seconds"] = round(time.monotonic() - started, 1)
    more = [] if iterations is None else ["--iterations", str(iterations)]
    summary["command"] = " ".join(["realgen-train demo --seed", str(seed), *more])
    write_json(out / SUMMARY_FILE, summary)
    write_report(out)  # again: the guard's verdict is new
    return summary
