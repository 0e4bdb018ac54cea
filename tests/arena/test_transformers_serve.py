"""The openai: judge against ``transformers serve`` with a tiny model: a real server, all of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from realbench.arena.judges import JudgeOptions, make_judge
from realbench.arena.judges.judge import Picture, Showing
from realbench.arena.template import load_template
from tests.arena.tiny_vlm import save_tiny_vlm

pytestmark = pytest.mark.slow

START_SECONDS = 600  # a busy machine is no failure
OUTPUT_TOKENS = 12


class Server(NamedTuple):
    url: str
    model: Path
    log: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("accelerate", reason="transformers serve needs accelerate")
    command = shutil.which("transformers")
    assert command, "transformers has no command here"
    root = tmp_path_factory.mktemp("serve")
    model = save_tiny_vlm(root / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = root / "log"
    environment = {**os.environ, "HF_HOME": str(root / "home"), "HF_HUB_OFFLINE": "1"}
    environment |= {"OMP_NUM_THREADS": "1"}
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [command, "serve", str(model), *where], stdout=output, stderr=output, env=environment
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield Server(f"http://127.0.0.1:{port}/v1", model, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def tokens_of_question(server: Server, showing: Showing, sizes: list[tuple[int, int]]) -> int:
    """The length of the question with images of these sizes, by the model's own processor."""
    from transformers import AutoProcessor

    wording = load_template().reasoned_wording(showing.prompt)
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    text = (
        f"<|im_start|>system\n{wording.system}<|im_end|>\n<|im_start|>user\n"
        + wording.before_first
        + wording.before_second.join([place] * len(sizes))
        + f"{wording.question}<|im_end|>\n<|im_start|>assistant\n"
    )
    images = [Image.new("RGB", size) for size in sizes]
    return len(AutoProcessor.from_pretrained(server.model)(text=text, images=images).input_ids[0])


@pytest.mark.timeout(1200)
def test_a_random_model_gets_two_images_and_gives_invalid_votes(
    server: Server, tmp_path: Path, make_picture: Any
) -> None:
    sizes = [(320, 200), (1200, 600), (90, 150)]
    pictures = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.png"
        make_picture(*size, seed=number).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        pictures.append(Picture(f"model-{number}", path, digest))
    showings = [
        Showing("0", None, pictures[0], pictures[1]),
        Showing("0", None, pictures[1], pictures[0]),
        Showing("1", "A dog in the rain", pictures[0], pictures[2]),
    ]
    options = JudgeOptions(
        base_url=server.url,
        image_size=600,
        answer_retries=0,
        max_output_tokens=OUTPUT_TOKENS,
        concurrency=2,
        timeout=600,
    )
    judge = make_judge(f"openai:{server.model}", options)
    judged = {(s.first, s.second): judgment for s, judgment in judge.judge(showings)}

    shown = {pictures[0]: (320, 200), pictures[1]: (600, 300), pictures[2]: (90, 150)}
    assert len(judged) == len(showings)
    for showing in showings:
        judgment = judged[showing.first, showing.second]
        assert judgment is not None
        # Nobody trained this model to answer: what it wrote is kept, and is no vote.
        assert judgment.verdict == "invalid"
        assert judgment.raw
        assert judgment.attempts == 1
        assert judgment.usage["output_tokens"] <= OUTPUT_TOKENS
        # The server counted the tokens of two images of these very sizes.
        expected = tokens_of_question(
            server, showing, [shown[showing.first], shown[showing.second]]
        )
        assert judgment.usage["input_tokens"] == expected
    assert server.log.read_text().count('"POST /v1/chat/completions HTTP/1.1" 200') == 3
