"""How the small model's pictures are made wherever they are judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from realbench.train.demo.pipeline import SmallPhotoPipeline

STEPS = 10
"""Steps of the sampler."""

GUIDANCE = 2.0
"""Classifier-free guidance."""

_AT_ONCE = 32


def sample_pictures(
    pipeline: SmallPhotoPipeline, captions: Sequence[str], *, seed: int
) -> npt.NDArray[np.uint8]:
    """Make a picture of each caption, uint8 (n, size, size, 3); each has its own seed."""
    made = []
    for start in range(0, len(captions), _AT_ONCE):
        part = list(captions[start : start + _AT_ONCE])
        numbers = range(start, start + len(part))
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + n) for n in numbers]
        pictures: Any = pipeline(
            part,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=generators,
            output_type="np",
        ).images
        made.append((pictures * 255).round().astype(np.uint8))
    return np.concatenate(made)
