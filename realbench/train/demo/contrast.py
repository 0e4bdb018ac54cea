"""A second, small term of the demo's reward: are pictures as rich in contrast as photographs?

A detector alone can be pleased by pictures that are ever flatter, of which every other judge
thinks less. Contrast is one of the quality guard's measures; its others (sharpness, colourfulness,
clipping, diversity) are not rewarded, so that the guard stays a watch of its own in those.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from realbench.content import content_path
from realbench.train.demo.quality import QualityGuard, contrast

REWARDED = ("contrast",)
"""The guard's measures that are part of the reward."""


def usual_contrast(
    images: Sequence[npt.NDArray[np.uint8]], prompts: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Return how far the contrast falls short of photographs'.

    With the bounds (l, h) between which 95 % of the photographs lie it is exp(-z²/2), where
    z = max(0, (l + h)/2 - x) / ((h - l)/4): 1 from the middle of the photographs' on.

    Args:
        images: uint8 (H, W, 3) each, all of one size.
        prompts: Not looked at.

    Returns:
        float32 (n,) in [0, 1].
    """
    pictures = np.stack(list(images)).transpose(0, 3, 1, 2) / 255
    low, high = _bounds()
    lacking = np.maximum((low + high) / 2 - contrast(pictures), 0) / ((high - low) / 4)
    return np.exp(-(lacking**2) / 2).astype(np.float32)


@cache
def _bounds() -> tuple[float, float]:
    guard = QualityGuard.read(content_path("models") / "small-photo" / "photographs.json")
    return guard.ranges["contrast"]
