"""Arena-Scoring: which of two images is the more realistic photograph, and what follows of it.

``realbench.arena("flux-dev", "sdxl", reference="photos", judge="detectors", out="run")`` is
``realbench arena`` from Python: the package can be called, and is then :func:`arena`. The names
below are the public API; each is imported when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realbench.arena.judges import JudgeOptions, make_judge
    from realbench.arena.merging import merge
    from realbench.arena.results import ArenaRun, rate_run
    from realbench.arena.run import ArenaInterrupted, arena

_HOMES = {
    "judges": ("JudgeOptions", "make_judge"),
    "merging": ("merge",),
    "results": ("ArenaRun", "rate_run"),
    "run": ("ArenaInterrupted", "arena"),
}

__all__ = [
    "ArenaInterrupted",
    "ArenaRun",
    "JudgeOptions",
    "arena",
    "make_judge",
    "merge",
    "rate_run",
]


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'realbench.arena' has no attribute {name!r}")
    value = getattr(import_module(f"realbench.arena.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


class _Callable(ModuleType):
    """This package: ``realbench.arena(...)`` runs an arena, however it was imported."""

    def __call__(self, *folders: Any, **settings: Any) -> ArenaRun:
        run: ArenaRun = self.arena(*folders, **settings)
        return run


sys.modules[__name__].__class__ = _Callable
