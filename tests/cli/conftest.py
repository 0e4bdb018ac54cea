"""Detectors and an environment for the commands that tests run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes import make_card


@pytest.fixture
def cards(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cards"
    first = make_card(folder, "whole", level="semantic", seed=1)
    second = make_card(folder, "crops", level="feature", seed=2)
    return ["--detector", str(first), "--detector", str(second)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "REALBENCH_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
    }
