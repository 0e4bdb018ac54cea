"""The terms of a reward that detectors give, and those that a user's own function gives."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from realbench.detection.ensemble import weights
from realbench.detection.registry import DEFAULT_DETECTORS
from realbench.errors import RealBenchError, UsageError
from realbench.reward.config import DetectorsConfig, FunctionConfig
from realbench.scoring.scorer import Scorer


class DetectorsComponent:
    """The realism of an ensemble of detectors.

    Attributes:
        scorer: The loaded detectors.
    """

    def __init__(self, config: DetectorsConfig, device: str = "auto") -> None:
        self.name = config.name or config.kind
        self.weight = config.weight
        self.scorer = Scorer(
            config.detectors or DEFAULT_DETECTORS, device=device, batch_size=config.batch_size
        )

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        return self.scorer.reward(images)

    def describe(self) -> dict[str, Any]:
        share = weights(self.scorer.levels)
        return {
            "kind": "detectors",
            "device": self.scorer.device,
            "detectors": [
                {
                    "name": name,
                    "level": one.level,
                    "weight": share[name],
                    "fingerprint": one.fingerprint,
                }
                for name, one in self.scorer.detectors.items()
            ],
        }


class FunctionComponent:
    """A function of the user's own; what it raises names it."""

    def __init__(self, config: FunctionConfig) -> None:
        self.name = config.name or config.kind
        self.weight = config.weight
        self._where = config.function
        self._function = _found(config.function)

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        try:
            return self._function(images, prompts)
        except RealBenchError:
            raise
        except Exception as error:
            raise RealBenchError(
                f"the reward function {self._where} failed: {type(error).__name__}: {error}"
            ) from error

    def describe(self) -> dict[str, Any]:
        return {"kind": "function", "function": self._where}


def _found(where: str) -> Callable[..., Any]:
    """Import ``module:function``; modules in the working directory come after installed ones."""
    module_name, _, path = where.partition(":")
    here = "" in sys.path
    if not here:
        sys.path.append("")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"reward function {where}: {module_name} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        if not here:
            sys.path.remove("")
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UsageError(f"reward function {where}: {module_name} has no function {path}")
    function: Callable[..., Any] = found
    return function
