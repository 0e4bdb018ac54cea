"""Runs ``realbench`` on real files: in this process, or in one of its own as its users do."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realbench.cli.main import app
from realbench.cli.program import exit_code


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
    *arguments: object,
    environment: Mapping[str, str],
    code: int = 0,
    cwd: Path | None = None,
    process: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command, check its exit code, and return what it printed.

    Args:
        arguments: Those of the command line.
        environment: All its environment variables.
        code: The exit code that it has to end with.
        cwd: Its working directory.
        process: In a process of its own, seconds slower for its imports. Each command's tests have
            one such run; it is also for what libraries read as they are imported.
    """
    if process:
        result = subprocess.run(
            command(*arguments),
            env=environment,
            cwd=cwd,
            text=True,
            capture_output=True,
            timeout=240,
        )
    else:
        result = _run_here([*map(str, arguments)], environment, cwd)
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == code, result.stdout + result.stderr
    return result


def _run_here(
    arguments: list[str], environment: Mapping[str, str], cwd: Path | None
) -> subprocess.CompletedProcess[str]:
    shown, complained = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        _as_if_started(arguments, environment, cwd),
        contextlib.redirect_stdout(shown),
        contextlib.redirect_stderr(complained),
    ):
        code = exit_code(app, "realbench", arguments)
    texts = []
    for stream in (shown, complained):
        stream.seek(0)
        texts.append(stream.read())
    return subprocess.CompletedProcess(arguments, code, *texts)


@contextlib.contextmanager
def _as_if_started(
    arguments: list[str], environment: Mapping[str, str], cwd: Path | None
) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - environment.keys():
            patch.delenv(name)
        for name, value in environment.items():
            if os.environ.get(name) != value:
                patch.setenv(name, value)
        patch.setattr(sys, "argv", ["realbench", *arguments])
        patch.chdir(cwd or Path.cwd())
        yield


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]
