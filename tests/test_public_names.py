"""``import realbench``: its names are there, and loaded when they are first used."""

from __future__ import annotations

import subprocess
import sys

import realbench


def test_every_public_name_is_there() -> None:
    assert {"ArenaRun", "Reward", "ScoreRun", "Scorer", "arena", "generate", "score"} <= set(
        realbench.__all__
    )
    for name in set(realbench.__all__) - {"__version__"}:
        assert callable(getattr(realbench, name)), name
    assert set(realbench.__all__) <= set(dir(realbench))


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, realbench; "
        "assert not {'numpy', 'pydantic', 'torch', 'PIL', 'typer'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
