"""How a benchmark degrades images, and what it measures of its table of scores: plain JSON."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from realbench.detection import perturbations
from realbench.stats import best_threshold, detection_measures, error_correlation
from realbench.stats.record import estimate, rounded

ENSEMBLE = "ensemble"
_ROBUSTNESS = ("auc", "accuracy")


def measure(
    scores: pd.DataFrame, judges: Sequence[str], generators: Sequence[str], **options: Any
) -> list[dict[str, Any]]:
    """Return an entry per judge (a detector, or the ensemble) and generator.

    Where there are several generators, ``generator`` None stands for all of their images.

    Args:
        scores: readable images; see :class:`realbench.bench.BenchRun`.
    """
    found = []
    for judge in judges:
        for generator in _with_all(generators):
            sides = _sides(scores, judge, generator)
            threshold = {"best_threshold": rounded(best_threshold(*sides[:2]))}
            found.append(_entry(judge, generator, sides) | threshold | _figures(sides, options))
    return found


def robustness(
    undegraded: pd.DataFrame,
    degraded: Sequence[tuple[Degradation, pd.DataFrame]],
    judges: Sequence[str],
    generators: Sequence[str],
    **options: Any,
) -> list[dict[str, Any]]:
    """Return AUC and accuracy per judge, generator and degradation, of the same images.

    Each series begins with its undegraded entry, whose ``label`` is ``"none"``.
    """
    found = []
    kinds = list(dict.fromkeys(degradation.kind for degradation, _ in degraded))
    for judge in judges:
        for generator in _with_all(generators):
            # The undegraded figures are the same in every series: measured once.
            sides = _sides(undegraded, judge, generator)
            before = _figures(sides, options, _ROBUSTNESS) if degraded else {}
            for kind in kinds:
                start = {"perturbation": kind, "level": None, "label": "none"}
                found.append(_entry(judge, generator, sides) | start | before)
                for one, table in degraded:
                    if one.kind == kind:
                        mine = _sides(table[table["status"] == "ok"], judge, generator)
                        what = {"perturbation": kind, "level": one.level, "label": one.label}
                        figures = _figures(mine, options, _ROBUSTNESS)
                        found.append(_entry(judge, generator, mine) | what | figures)
    return found


def correlations(
    scores: pd.DataFrame, detectors: Sequence[str], **options: Any
) -> list[dict[str, Any]]:
    """Return the correlation of errors of each pair of detectors, over all images."""
    truth = scores["real"].to_numpy(bool)
    groups = scores["prompt_id"].to_numpy(str)
    return [
        {
            "a": a,
            "b": b,
            "n": len(scores),
            "correlation": estimate(
                error_correlation(scores[a], scores[b], truth, groups, **options)
            ),
        }
        for a, b in combinations(detectors, 2)
    ]


def _with_all(generators: Sequence[str]) -> list[str | None]:
    return [*generators, *([None] if len(generators) > 1 else [])]


Sides = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _sides(scores: pd.DataFrame, judge: str, generator: str | None) -> Sides:
    """Return P(real) of photographs and of generated images, and the prompt ids of both."""
    fakes = ~scores["real"]
    if generator is not None:
        fakes &= scores["folder"] == generator
    real, generated = scores[scores["real"]], scores[fakes]
    return (
        real[judge].to_numpy(np.float64),
        generated[judge].to_numpy(np.float64),
        real["prompt_id"].to_numpy(str),
        generated["prompt_id"].to_numpy(str),
    )


def _figures(
    sides: Sides, options: dict[str, Any], names: Sequence[str] | None = None
) -> dict[str, Any]:
    found = detection_measures(*sides, **options)
    return {name: estimate(found[name]) for name in names or found}


def _entry(judge: str, generator: str | None, sides: Sides) -> dict[str, Any]:
    counts = {"n_real": len(sides[0]), "n_generated": len(sides[1])}
    return {"detector": judge, "generator": generator, **counts}


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way of degrading a picture, at one strength.

    Attributes:
        kind: ``"jpeg"``, ``"resize"``, ``"blur"``, ``"noise"`` or ``"crop"``; see :class:`Chain`.
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
        return perturbations.crop(image, self.level)


@dataclass(frozen=True, slots=True)
class Chain(Degradation):
    """A chain of ``level`` random degradations (:func:`perturbations.chain`).

    Each picture has a chain of its own, of which ``seed`` and its pixels decide; all of a
    picture's chains begin alike.
    """

    seed: int = 0

    @property
    def name(self) -> str:
        return f"chain={self.level:g} seed={self.seed}"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([self.seed, zlib.crc32(image.tobytes())])
        return perturbations.chain(image, int(self.level), rng)


def chains(seed: int) -> tuple[Chain, ...]:
    """Return chains of one to five degradations."""
    return tuple(Chain("chain", n, f"{n} step{'s' if n > 1 else ''}", seed) for n in range(1, 6))


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
