"""What a wheel carries: content and templates, and no import package but ``realbench``."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_wheel_carries_content_templates_and_one_package(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT],
        check=True,
    )
    (wheel,) = tmp_path.glob("realgen-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for detector in ("semantic-lite", "trace-lite"):
        for file in ("card.toml", "weights.safetensors", "README.md", "recipe.toml", "record.json"):
            assert f"realbench/_content/detectors/{detector}/{file}" in names
    assert "realbench/report/templates/score_report.html" in names
    assert "realbench/detection/training/templates/record.md.j2" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"realbench"}
    assert wheel.stat().st_size < 30 * 2**20
