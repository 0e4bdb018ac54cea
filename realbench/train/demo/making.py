"""Makes all that the demo ships: the model, what is usual for photographs, and the two judges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from realbench.train.demo.photographs import captioned_photographs, centre_crop, read_small
from realbench.train.demo.pipeline import load_small_photo
from realbench.train.demo.pretrain import PretrainSettings, pretrain
from realbench.train.demo.quality import QualityGuard
from realbench.train.demo.run import GUARD_FILE


def make_demo(
    data: Path,
    out: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    work: Path | None = None,
    detectors: Path | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train the model, and the judges where a folder is given for them; what is done stays.

    Args:
        data: Folder with captioned photographs.
        out: Folder of the model.
        steps: Of the model's training, other than the default.
        work: Folder of what is done so far, ``<out>-training`` by default.
        detectors: Folder that receives the judges' folders.
        on_step: Called with the step, the number of steps and the loss.
        report: Receives a line per finished part.

    Returns:
        The record of the model's training.

    Raises:
        UsageError: there are no photographs, or ``work`` is of another run.
    """
    settings = PretrainSettings(seed=seed)
    if steps is not None:
        settings = PretrainSettings(seed=seed, steps=steps)
    work = work or out.with_name(f"{out.name}-training")
    torch.set_num_threads(1)
    record = pretrain(data, out, settings, work=work, on_step=on_step)
    photographs = captioned_photographs(data)
    crops = np.stack([centre_crop(read_small(one.path), settings.size) for one in photographs])
    QualityGuard.of_photographs(crops.transpose(0, 3, 1, 2)).write(out / GUARD_FILE)
    if detectors is not None:
        from realbench.train.demo.judges import train_heldout, train_reward

        pipeline = load_small_photo(out)
        pipeline.set_progress_bar_config(disable=True)
        train_reward(pipeline, photographs, detectors, work / "judges", report=report)
        train_heldout(pipeline, photographs, detectors)
    return record
