"""How far a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: files finished of all, and how many of them came from the cache.

    ``stage`` is ``"scoring"`` for the detectors, then the name of each quality measure.
    """

    done: int
    total: int
    cached: int
    failed: int
    stage: str = "scoring"
