"""How far a training is, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: ``"loading"``, ``"evaluating"`` or ``"training"``.
        done, total: iterations.
        reward: mean of the last iteration, None before the first.
    """

    stage: str
    done: int = 0
    total: int = 0
    reward: float | None = None
