"""Detectors and an environment for the commands that tests run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.detection.plugin_packages import CODE, make_package
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


@dataclass(frozen=True)
class SlowDetector:
    """A plug-in for processes that are to be stopped: 50 ms an image, one image at a time.

    Attributes:
        options: Those that choose it.
        environment: Where it is installed.
    """

    options: list[str]
    environment: dict[str, str]


@pytest.fixture
def slow_detector(tmp_path: Path, environment: dict[str, str]) -> SlowDetector:
    mean = "return batch.float()"
    code = CODE.replace(mean, f"time.sleep(0.05 * len(batch))\n        {mean}")
    make_package(tmp_path / "site", "slow", code=f"import time\n{code}")
    paths = [str(tmp_path / "site"), *filter(None, [environment.get("PYTHONPATH")])]
    return SlowDetector(
        ["--detector", "slow", "--batch-size", "1"],
        environment | {"PYTHONPATH": os.pathsep.join(paths)},
    )
