"""Detector-Scoring: from folders, or images in memory, to P(real)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realbench.scoring.run import Progress, ScoreRun, score
    from realbench.scoring.scorer import Scorer, Scores

_HOMES = {"Scorer": "scorer", "Scores": "scorer", "ScoreRun": "run", "Progress": "run"}

__all__ = ["Progress", "ScoreRun", "Scorer", "Scores", "score"]


def __getattr__(name: str) -> Any:
    if name not in (*_HOMES, "score"):
        raise AttributeError(f"module 'realbench.scoring' has no attribute {name!r}")
    return getattr(import_module(f"realbench.scoring.{_HOMES.get(name, 'run')}"), name)
