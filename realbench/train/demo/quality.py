"""A guard beside the detectors: do pictures have the sharpness, colour and variety of photographs?

A reward can be raised by pictures that no detector knows to be odd: all blurred, all grey, all the
same. These measures are simple enough that nothing is learned in them; what is usual is taken from
photographs of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from realbench.content import content_path
from realbench.errors import RealBenchError

_LUMA = np.array([0.299, 0.587, 0.114])
_INNER = 0.95
_THUMBNAIL = 8

Pixels = npt.NDArray[np.float64]


def sharpness(pictures: Pixels) -> npt.NDArray[np.float64]:
    """Return log10 of the mean absolute Laplacian of the luma.

    Args:
        pictures: in [0, 1], (n, 3, H, W), as for all measures here.
    """
    luma = _luma(pictures)
    inner = luma[:, 1:-1, 1:-1]
    around = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return np.asarray(np.log10(np.abs(around - 4 * inner).mean((1, 2)) + 1e-4))


def contrast(pictures: Pixels) -> npt.NDArray[np.float64]:
    """Return the standard deviation of the luma."""
    return np.asarray(_luma(pictures).std((1, 2)))


def colourfulness(pictures: Pixels) -> npt.NDArray[np.float64]:
    """Return the colourfulness of Hasler and Süsstrunk (2003, doi 10.1117/12.477378), equation 5.

    Of values in [0, 1] rather than [0, 255].
    """
    red, green, blue = pictures[:, 0], pictures[:, 1], pictures[:, 2]
    first, second = red - green, (red + green) / 2 - blue
    spread = np.hypot(first.std((1, 2)), second.std((1, 2)))
    return np.asarray(spread + 0.3 * np.hypot(first.mean((1, 2)), second.mean((1, 2))))


def clipped(pictures: Pixels) -> npt.NDArray[np.float64]:
    """Return the share of values at the ends of the range, 0 or 1."""
    return np.asarray(((pictures <= 0) | (pictures >= 1)).mean((1, 2, 3)))


def diversity(pictures: Pixels) -> float:
    """Return the mean distance between two pictures: root mean square over 8 × 8 thumbnails."""
    n, channels, height, width = pictures.shape
    cells = (height // _THUMBNAIL, width // _THUMBNAIL)
    cut = pictures[:, :, : cells[0] * _THUMBNAIL, : cells[1] * _THUMBNAIL]
    blocks = cut.reshape(n, channels, _THUMBNAIL, cells[0], _THUMBNAIL, cells[1])
    small = blocks.mean((3, 5)).reshape(n, -1)
    norms = np.square(small).mean(1)
    squares = norms[:, None] + norms[None] - 2 * (small @ small.T) / small.shape[1]
    pairs = np.sqrt(np.clip(squares, 0, None))[np.triu_indices(n, 1)]
    return float(pairs.mean()) if n > 1 else 0.0


MEASURES: dict[str, Callable[[Pixels], npt.NDArray[np.float64]]] = {
    "sharpness": sharpness,
    "contrast": contrast,
    "colourfulness": colourfulness,
    "clipped": clipped,
}
"""The measures of single pictures."""

REWARDED = ("contrast",)
"""The guard's measures that are part of the reward: its others stay a watch of their own."""

EXPLANATIONS = {
    "sharpness": "how much neighbouring pixels differ: log10 of the mean absolute Laplacian",
    "contrast": "the standard deviation of the brightness",
    "colourfulness": "how far and how differently the colours are from grey",
    "clipped": "the share of values that are fully dark or fully bright",
    "diversity": "how much two pictures differ in the mean; low where all look the same",
    "usual": "the share of a picture's other measures that are within the range of photographs",
}
"""What the probes measure, for readers of a report."""


@dataclass(frozen=True)
class QualityGuard:
    """What is usual for photographs.

    Attributes:
        ranges: Of each measure the bounds between which 95 % of the photographs lie.
        diversity: Of the photographs.
        n: Number of photographs.
        size: Pixels of their side.
    """

    ranges: dict[str, tuple[float, float]]
    diversity: float
    n: int
    size: int

    @classmethod
    def of_photographs(cls, pictures: npt.NDArray[np.uint8]) -> QualityGuard:
        """Take the bounds from photographs, uint8 (n, 3, S, S)."""
        values = pictures / 255
        tail = (1 - _INNER) / 2
        ends = {name: np.quantile(of(values), [tail, 1 - tail]) for name, of in MEASURES.items()}
        ranges = {name: (round(low, 4), round(high, 4)) for name, (low, high) in ends.items()}
        return cls(ranges, round(diversity(values), 4), len(pictures), pictures.shape[-1])

    @classmethod
    def read(cls, path: Path) -> QualityGuard:
        """Read what :meth:`write` wrote.

        Raises:
            RealBenchError: it cannot be read.
        """
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise RealBenchError(f"{path}: no quality guard ({reason})") from error

    def write(self, path: Path) -> None:
        """Write the bounds as JSON."""
        path.write_bytes(TypeAdapter(type(self)).dump_json(self, indent=1) + b"\n")

    def usual(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the share of a picture's measures that are within the bounds, (n,)."""
        values = pictures / 255
        within = [
            (low <= (found := MEASURES[name](values))) & (found <= high)
            for name, (low, high) in self.ranges.items()
        ]
        return np.mean(within, axis=0, dtype=np.float32)

    def probes(self) -> dict[str, Callable[[Any, Sequence[str]], Any]]:
        """Return the measures as functions of images (uint8 (n, 3, H, W)) and their prompts."""
        found: dict[str, Callable[[Any, Sequence[str]], Any]] = {
            name: partial(_measured, measure) for name, measure in MEASURES.items()
        }
        found["usual"] = lambda images, _: self.usual(np.asarray(images))
        found["diversity"] = lambda images, _: diversity(np.asarray(images) / 255)
        return found

    def verdict(
        self, start: Mapping[str, Mapping[str, Any]], end: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Compare two evaluations.

        A measure fails where its mean has left the photographs' bounds, or was outside and has
        moved further; the diversity, where it fell by more than a tenth and lies below the
        photographs'.

        Returns:
            ``"passed"``; ``"measures"``: each with start, end, low, high and passed;
            ``"explanations"`` of the probes; and ``"photographs"``, how many gave the bounds.
        """
        measures: dict[str, dict[str, Any]] = {}
        bounds: dict[str, tuple[float, float | None]] = {**self.ranges} | {
            "diversity": (0.9 * self.diversity, None)
        }
        for name, (low, high) in bounds.items():
            before, after = start[name]["estimate"], end[name]["estimate"]
            if name == "diversity":
                passed = after >= 0.9 * min(before, self.diversity)
            else:
                passed = _outside(after, low, high) <= _outside(before, low, high) + 1e-9
            measures[name] = {
                "start": before,
                "end": after,
                "low": low,
                "high": high,
                "passed": bool(passed),
            }
        return {
            "passed": all(one["passed"] for one in measures.values()),
            "measures": measures,
            "usual_start": start["usual"]["estimate"],
            "usual_end": end["usual"]["estimate"],
            "explanations": EXPLANATIONS,
            "photographs": self.n,
        }


def usual_contrast(
    images: Sequence[npt.NDArray[np.uint8]], prompts: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Return how far the contrast falls short of photographs': a small term of the demo's reward.

    A detector alone can be pleased by pictures that are ever flatter, of which every other judge
    thinks less.

    With the bounds (l, h) between which 95 % of the photographs lie it is exp(-z²/2), where
    z = max(0, (l + h)/2 - x) / ((h - l)/4): 1 from the middle of the photographs' on.

    Args:
        images: uint8 (H, W, 3) each, all of one size.

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


def _measured(measure: Callable[[Pixels], Any], images: Any, _: Sequence[str]) -> Any:
    return measure(np.asarray(images) / 255)


def _outside(value: float, low: float, high: float | None) -> float:
    return max(low - value, 0.0 if high is None else value - high, 0.0)


def _luma(pictures: Pixels) -> Pixels:
    return np.asarray(np.einsum("nchw,c->nhw", pictures, _LUMA))
