"""RealBench: how photoreal are these generated images?

The names below are the public API; each is imported when it is first used, so that
``import realbench`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from realbench.version import __version__

if TYPE_CHECKING:
    from realbench.arena import ArenaRun, JudgeOptions
    from realbench.arena.run import arena
    from realbench.detection.registry import list_detectors, load_detector
    from realbench.generation import GenerateOptions, generate
    from realbench.prompts import list_suites, load_suite
    from realbench.reward.reward import Reward
    from realbench.scoring import Scorer, ScoreRun, Scores, score
    from realbench.train.records import TrainRun

_HOMES = {
    "ArenaRun": "realbench.arena.results",
    "GenerateOptions": "realbench.generation",
    "JudgeOptions": "realbench.arena.judges",
    "generate": "realbench.generation",
    "list_detectors": "realbench.detection.registry",
    "load_detector": "realbench.detection.registry",
    "list_suites": "realbench.prompts",
    "load_suite": "realbench.prompts",
    "Reward": "realbench.reward.reward",
    "Scorer": "realbench.scoring",
    "Scores": "realbench.scoring",
    "ScoreRun": "realbench.scoring",
    "TrainRun": "realbench.train.records",
    "score": "realbench.scoring",
}

__all__ = [
    "ArenaRun",
    "GenerateOptions",
    "JudgeOptions",
    "Reward",
    "ScoreRun",
    "Scorer",
    "Scores",
    "TrainRun",
    "__version__",
    "arena",
    "generate",
    "list_detectors",
    "list_suites",
    "load_detector",
    "load_suite",
    "score",
]


def __getattr__(name: str) -> Any:
    if name == "arena":  # a package that can be called
        return import_module("realbench.arena")
    if name not in _HOMES:
        raise AttributeError(f"module 'realbench' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
