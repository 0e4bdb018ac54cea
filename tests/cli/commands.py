"""Runs ``realbench`` as its users do: a real process on real files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def make_images(folder: Path, count: int, *, seed: int = 0, size: int = 80) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for n in range(count):
        pixels = rng.integers(0, 256, (size, size + n % 7, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:04}.png")
    return folder


def command(*arguments: object) -> list[str]:
    code = "from realbench.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def realbench(
    *arguments: object, environment: dict[str, str], code: int = 0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        command(*arguments), env=environment, cwd=cwd, text=True, capture_output=True, timeout=240
    )
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == code, result.stdout + result.stderr
    return result


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]
