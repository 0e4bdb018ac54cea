"""The demo from end to end, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from realbench import rendering


def test_renders_are_the_same_for_a_seed_and_differ_between_seeds() -> None:
    for draw in (rendering.spheres, rendering.mountains):
        first, again, other = draw(64, 1), draw(64, 1), draw(64, 2)
        assert first.shape == (64, 64, 3)
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()
        assert first.std() > 10


@pytest.mark.slow
def test_the_demo_ranks_photographs_above_renders(tmp_path: Path) -> None:
    environment = os.environ | {"REALBENCH_CACHE": str(tmp_path / "cache")}
    result = subprocess.run(
        [sys.executable, "-c", "from realbench.cli import main; main()", "demo"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    out = tmp_path / "realbench-demo"
    assert str(Path("realbench-demo/run/report.html")) in result.stdout
    summary = json.loads((out / "run" / "summary.json").read_text())
    (renders,) = summary["folders"]
    assert renders["n"] == 6
    assert summary["reference"]["n"] == 3
    assert summary["reference"]["realism"]["mean"] > renders["realism"]["mean"]
