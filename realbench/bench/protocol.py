"""What is done to an image before a detector sees it: the matched protocol, and degradations."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from realbench.detection import perturbations

if TYPE_CHECKING:
    import torch

    from realbench.detection.detector import Detector

Change = Callable[[np.ndarray], np.ndarray]

# Raise it when a change below alters what the same name does: kept scores then miss.
_VERSION = 1


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


class Protocol:
    """The changes that every image goes through, in turn, before any detector sees it.

    A thread that prepares one image for several detectors changes it once.

    Args:
        matched: whether to begin with the matched protocol.
        degradation: what comes then.
    """

    def __init__(self, *, matched: bool, degradation: Degradation | None = None) -> None:
        self.changes: list[Change] = [perturbations.matched] if matched else []
        name = "matched" if matched else ""
        if degradation is not None:
            self.changes.append(degradation)
            name += f"/{degradation.kind}={degradation.level:g}"
        self.name = name
        self._last = threading.local()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Change uint8 RGB (H, W, 3) of any size."""
        if getattr(self._last, "image", None) is not image:
            changed = image
            for change in self.changes:
                changed = change(changed)
            self._last.image, self._last.changed = image, changed
        return self._last.changed

    def fingerprint(self, fingerprint: str) -> str:
        """Return what the scores of a detector with ``fingerprint`` are kept under."""
        if not self.changes:
            return fingerprint  # the very scores that realbench score keeps
        return hashlib.sha256(f"{fingerprint} {self.name} {_VERSION}".encode()).hexdigest()


class UnderProtocol:
    """A detector that sees images after a protocol; the pipeline uses these parts of one."""

    def __init__(self, detector: Detector, protocol: Protocol) -> None:
        self._detector = detector
        self._protocol = protocol

    def __getattr__(self, name: str) -> object:
        return getattr(self._detector, name)

    def prepare(self, image: np.ndarray) -> torch.Tensor:
        """See :meth:`realbench.detection.detector.Detector.prepare`."""
        return self._detector.prepare(self._protocol(image))
