"""The degradations under which detectors are measured."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realbench.detection import perturbations


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way of degrading a picture, at one strength.

    Attributes:
        kind: ``"jpeg"``, ``"resize"``, ``"blur"``, ``"noise"`` or ``"crop"``.
        level: its strength: JPEG quality, share of a side that a picture is scaled down to (and
            back), sigma in pixels, sigma of 255, and share of a side that is kept.
        label: the level for people.
    """

    kind: str
    level: float
    label: str

    @property
    def name(self) -> str:
        """What scores of degraded images are kept under."""
        return f"{self.kind}={self.level:g}"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Degrade uint8 RGB (H, W, 3); the same image always gives the same result."""
        if self.kind == "jpeg":
            return perturbations.jpeg(image, int(self.level))
        if self.kind == "resize":
            return perturbations.down_up(image, 1 / self.level)
        if self.kind == "blur":
            return perturbations.blur(image, self.level)
        if self.kind == "noise":
            rng = np.random.default_rng(zlib.crc32(image.tobytes()))
            return perturbations.noise(image, self.level, rng)
        return center_crop(image, self.level)


def _series(kind: str, levels: Sequence[float], label: str) -> tuple[Degradation, ...]:
    return tuple(Degradation(kind, level, label.format(level)) for level in levels)


DEGRADATIONS: tuple[Degradation, ...] = (
    *_series("jpeg", (90, 70, 50, 30), "quality {:.0f}"),
    *_series("resize", (0.75, 0.5, 0.25), "to {:.0%}"),
    *_series("blur", (0.5, 1, 2), "σ {:g} px"),
    *_series("noise", (2, 5, 10), "σ {:g} of 255"),
    *_series("crop", (0.75, 0.5, 0.25), "to {:.0%}"),
)
"""Mildest first in each kind."""


def center_crop(image: np.ndarray, share: float) -> np.ndarray:
    """Keep the middle ``share`` of each side, at least one pixel, without scaling."""
    height, width = image.shape[:2]
    rows, columns = max(1, round(height * share)), max(1, round(width * share))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]
