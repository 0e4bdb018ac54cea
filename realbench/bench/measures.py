"""The measures of a benchmark, from its table of scores; plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from realbench.stats import Interval, best_threshold, detection_measures, error_correlation
from realbench.stats.record import estimate, rounded

if TYPE_CHECKING:
    from realbench.bench.protocol import Degradation

ENSEMBLE = "ensemble"
_ROBUSTNESS = ("auc", "accuracy")


def measure(
    scores: pd.DataFrame, judges: Sequence[str], generators: Sequence[str], **options: Any
) -> list[dict[str, Any]]:
    """Return an entry per judge (a detector, or the ensemble) and generator.

    Where there are several generators, ``generator`` None stands for all of their images.

    Args:
        scores: readable images; see :class:`realbench.bench.BenchRun`.
        options: ``resamples`` and ``seed``.
    """
    return [
        _entry(scores, judge, generator)
        | {"best_threshold": rounded(best_threshold(*_sides(scores, judge, generator)[:2]))}
        | {name: estimate(one) for name, one in _measures(scores, judge, generator, options)}
        for judge in judges
        for generator in _with_all(generators)
    ]


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
            before = _two(undegraded, judge, generator, options) if degraded else {}
            for kind in kinds:
                start = {"perturbation": kind, "level": None, "label": "none"}
                found.append(_entry(undegraded, judge, generator) | start | before)
                for degradation, table in degraded:
                    if degradation.kind != kind:
                        continue
                    ok = table[table["status"] == "ok"]
                    what = {"perturbation": kind, "level": degradation.level}
                    found.append(
                        _entry(ok, judge, generator)
                        | what
                        | {"label": degradation.label}
                        | _two(ok, judge, generator, options)
                    )
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


def _chosen(scores: pd.DataFrame, generator: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    fakes = ~scores["real"]
    if generator is not None:
        fakes &= scores["folder"] == generator
    return scores[scores["real"]], scores[fakes]


def _sides(
    scores: pd.DataFrame, judge: str, generator: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """P(real) of photographs and of generated images, and the prompt ids of both."""
    real, generated = _chosen(scores, generator)
    return (
        real[judge].to_numpy(np.float64),
        generated[judge].to_numpy(np.float64),
        real["prompt_id"].to_numpy(str),
        generated["prompt_id"].to_numpy(str),
    )


def _measures(
    scores: pd.DataFrame, judge: str, generator: str | None, options: dict[str, Any]
) -> list[tuple[str, Interval]]:
    return list(detection_measures(*_sides(scores, judge, generator), **options).items())


def _two(
    scores: pd.DataFrame, judge: str, generator: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    found = dict(_measures(scores, judge, generator, options))
    return {name: estimate(found[name]) for name in _ROBUSTNESS}


def _entry(scores: pd.DataFrame, judge: str, generator: str | None) -> dict[str, Any]:
    real, generated = _chosen(scores, generator)
    return {
        "detector": judge,
        "generator": generator,
        "n_real": len(real),
        "n_generated": len(generated),
    }
