"""Reward servers for tests: a real process with a reward of a few lines, and requests to it."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

MODULE = """
import pathlib, time
HERE = pathlib.Path(__file__).parent

def red(images, prompts):
    for prompt in prompts:
        if prompt.startswith("sleep "):
            (HERE / "began").touch()
            time.sleep(float(prompt.split()[1]))
        if prompt == "break":
            raise RuntimeError("broken on purpose")
    return [float(image[..., 0].mean()) / 255 for image in images]

def length(images, prompts):
    return [min(1.0, len(prompt) / 100) for prompt in prompts]
"""
CONFIG = """
[reward]
components = [
    {kind = "function", name = "red", function = "reward_of_a_test:red", weight = 3},
    {kind = "function", name = "length", function = "reward_of_a_test:length", weight = 1},
]
"""


@dataclass
class Running:
    """A server process.

    Attributes:
        url: Its address.
        process: To send signals to.
        folder: Where its module lies.
    """

    url: str
    process: subprocess.Popen[str]
    folder: Path


@contextmanager
def reward_server(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run ``realbench serve`` on a free port until the context ends."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reward_of_a_test.py").write_text(MODULE)
    (folder / "reward.toml").write_text(CONFIG)
    code = "from realbench.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--config", "reward.toml", "--port", "0"]
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr").open("w"),
        text=True,
    )
    try:
        line = _first_line(process)
        assert line.startswith("Serving "), line + (folder / "stderr").read_text()
        yield Running(line.split(" on ")[1].split()[0], process, folder)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _first_line(process: subprocess.Popen[str], seconds: float = 120) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if selector.select(0.5):
                return process.stdout.readline()
    raise TimeoutError("the server does not start")


def picture(red: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Return a picture whose reward is ``red / 255``."""
    array = np.zeros((height, width, 3), np.uint8)
    array[..., 0] = red
    array[..., 2] = np.arange(width, dtype=np.uint8)
    return array


def file_of(image: np.ndarray, kind: str = "png") -> bytes:
    buffer = BytesIO()
    if kind == "npy":
        np.save(buffer, image, allow_pickle=False)
    else:
        Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def post(
    url: str, files: Sequence[bytes], prompts: Sequence[str] = ("",), **options: object
) -> httpx.Response:
    """Send files and prompts as curl would."""
    return httpx.post(
        f"{url}/v1/reward",
        files=[("images", ("x", data, "application/octet-stream")) for data in files],
        data={"prompts": list(prompts)},
        timeout=60,
        **options,  # type: ignore[arg-type]
    )
