"""Rewards of the loop's tests, for processes of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np


def brightness(images: Sequence[np.ndarray], prompts: Sequence[str]) -> list[float]:
    """Return how bright images are; drawn out where a test wants to interrupt."""
    time.sleep(float(os.environ.get("LOOP_TEST_DELAY", "0")))
    return [float(image.mean()) / 255 for image in images]


def redness(images: Sequence[np.ndarray], prompts: Sequence[str]) -> list[float]:
    """Return how much of an image's light is red."""
    return [float(image[..., 0].mean()) / max(1.0, 3 * float(image.mean())) for image in images]
