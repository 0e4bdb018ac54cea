"""How many images a second a loaded detector scores, decoding left out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from realbench.detection.detector import Detector

LEAST_SECONDS = 0.5
MOST_PASSES = 20


def images_per_second(detector: Detector, images: Sequence[np.ndarray], device: str) -> float:
    """Return images/s of preparing and scoring decoded images, as ``Scorer`` does.

    One image is scored first, so that lazy set-up is not counted; passes over ``images`` are
    repeated until half a second has gone by.

    Args:
        detector: on its device.
        images: uint8 RGB arrays of shape (H, W, 3), at least one.
        device: where the detector is.
    """
    from realbench.scoring.scorer import Scorer

    scorer = Scorer([detector], device=device)
    scorer(images[:1])
    passes, seconds, start = 0, 0.0, time.perf_counter()
    while seconds < LEAST_SECONDS and passes < MOST_PASSES:
        scorer(images)
        passes, seconds = passes + 1, time.perf_counter() - start
    return passes * len(images) / max(seconds, 1e-9)
