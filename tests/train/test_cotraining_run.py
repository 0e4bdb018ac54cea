"""``realgen-train diffusion --paired`` as its users run it: to the end, and killed on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from realbench.detection.registry import load_detector
from realbench.train.paired import PairedImages
from tests.conftest import Once
from tests.train.loop_runs import command, environment, numbers, run
from tests.train.tiny_detectors import save_tiny_detector

pytest.importorskip("diffusers", reason="needs realgen[train]")
pytest.importorskip("peft", reason="needs realgen[train]")

pytestmark = pytest.mark.slow

DETECTOR = "tiny-statistics"
ITERATIONS = 4
THRESHOLD = 0.46  # passed in the first three iterations, until the detector has learned
CONFIG = """
[model]
source = {model}
device = "cpu"
[sampling]
steps = 4
guidance = 1.0
height = 32
width = 32
noise_level = 0.7
window = 1
[training]
iterations = {iterations}
prompts_per_iteration = 2
group_size = 4
batch_size = 4
learning_rate = 2e-2
[lora]
rank = 2
alpha = 4
[loss]
clip = 1e-3
[[reward.components]]
kind = "detectors"
name = "realism"
detectors = [{detector}]
[[reward.components]]
kind = "function"
name = "bright"
function = "tests.train.loop_rewards:brightness"
weight = 0.1
[cotraining]
threshold = {threshold}
accuracy = 1.0
epochs = 3
learning_rate = 1e-3
buffer = 12
[evaluation]
every = 2
prompts = 2
[checkpoints]
every = 1
keep = 9
[tracking]
trackers = []
"""


@pytest.fixture(scope="session")
def place(once: Once) -> Path:
    """A folder with a config, photographs, and a run that nothing disturbed."""

    def make(folder: Path) -> None:
        config = _write_config(folder)
        run(config, folder / "whole", "--paired", str(_write_photographs(folder / "photographs")))

    return once("cotraining", make)


@pytest.fixture(scope="session")
def photographs(place: Path) -> Path:
    return place / "photographs"


@pytest.fixture(scope="session")
def config(place: Path) -> Path:
    return place / "tiny.toml"


@pytest.fixture(scope="session")
def whole(place: Path) -> Path:
    return place / "whole"


def _write_photographs(folder: Path) -> Path:
    folder.mkdir()
    lines = []
    for n, caption in enumerate(("a red bird", "an old man", "a tree", "two cats", "rain")):
        grain = np.random.default_rng(n).normal(90 + 20 * n, 40, (36, 48, 3))
        Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).save(folder / f"{n}.png")
        lines.append(json.dumps({"id": str(n), "prompt": caption}) + "\n")
    (folder / "prompts.jsonl").write_text("".join(lines))
    return folder


def _write_config(folder: Path) -> Path:
    from tests.train.tiny_pipelines import tiny_sd3

    tiny_sd3().save_pretrained(folder / "sd3")
    detector = save_tiny_detector(folder / DETECTOR, "statistics")
    path = folder / "tiny.toml"
    path.write_text(
        CONFIG.format(
            model=json.dumps(str(folder / "sd3")),
            detector=json.dumps(str(detector)),
            threshold=THRESHOLD,
            iterations=ITERATIONS,
        )
    )
    return path


def test_the_detector_learns_while_it_is_passed(
    whole: Path, config: Path, photographs: Path
) -> None:
    lines = {one["iteration"]: one for one in numbers(whole)}
    updated = {n: one["cotraining"] for n, one in lines.items() if one.get("cotraining")}
    passed = [n for n, one in lines.items() if one.get("reward", 0) > THRESHOLD or n == 1]
    assert list(updated) == passed
    assert passed == [1, 2, 3]
    assert [one["updates"] for one in updated.values()] == [1, 2, 3]
    assert all(one[f"{DETECTOR}/epochs"] for one in updated.values())
    first = updated[1]
    assert first[f"{DETECTOR}/accuracy"] > first[f"{DETECTOR}/accuracy_before"]
    manifest = json.loads((whole / "run.json").read_text())
    assert manifest["reward_end"] != manifest["reward"]
    before = load_detector(config.parent / DETECTOR)
    after = load_detector(whole / "detectors" / f"{DETECTOR}-cotrained")
    real = PairedImages(photographs).partners([""] * 4, 32, 32, np.random.default_rng(0))
    made = [np.asarray(Image.open(path)) for path in (whole / "samples").glob("*/*.png")]
    assert _gap(after, real, made) > 2 * _gap(before, real, made) > 0


def test_a_killed_run_goes_on_to_the_same_detector(
    whole: Path, config: Path, photographs: Path, tmp_path: Path
) -> None:
    paired = ("--paired", str(photographs))
    process = subprocess.Popen(
        command(config, tmp_path, *paired), env=environment(LOOP_TEST_DELAY="0.4"), text=True
    )
    deadline = time.monotonic() + 200
    # From the second iteration's checkpoint on it is in the midst of the third iteration, and the
    # detector has been updated.
    while not (tmp_path / "checkpoints" / "000002").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    cut_off = numbers(tmp_path)
    assert cut_off[-1]["iteration"] < ITERATIONS
    assert cut_off[2]["cotraining"]["updates"] == 2
    run(config, tmp_path, *paired)
    assert numbers(tmp_path) == numbers(whole)
    _assert_same_files(tmp_path, whole)


def _assert_same_files(ours: Path, theirs: Path) -> None:
    """Check the state after the run: bytes of the weights, and values of what is pickled."""
    last = Path("checkpoints") / f"{ITERATIONS:06}"
    exported = Path("detectors") / f"{DETECTOR}-cotrained"
    for name in (
        last / "weights.safetensors",
        last / "ema.safetensors",
        exported / "weights.safetensors",
        exported / "card.toml",
        Path("lora") / "pytorch_lora_weights.safetensors",
    ):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    for name in ("optimizer.pt", "extra.pt"):
        assert _state(ours / last / name) == _state(theirs / last / name), name
    cotraining = _state(ours / last / "extra.pt")["cotraining"]
    kept = len(cotraining["pairs"])
    # Pairs are of updates alone: three of the four iterations.
    assert (cotraining["updates"], cotraining["seen"], kept) == (3, 8 * 3, 12)
    ends = [json.loads((run / "run.json").read_text())["reward_end"] for run in (ours, theirs)]
    assert ends[0] == ends[1]


def _state(file: Path) -> Any:
    """Return a file of a checkpoint with its tensors as lists, which can be compared."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        return value.tolist() if isinstance(value, torch.Tensor) else value

    return plain(torch.load(file, weights_only=True))


def _gap(detector: Any, real: list[np.ndarray], made: list[np.ndarray]) -> float:
    """Return how much more real photographs are to a detector than generated images."""

    def mean(images: list[np.ndarray]) -> float:
        logits = detector.logits(torch.stack([detector.prepare(image) for image in images]))
        return float(torch.sigmoid(torch.as_tensor(logits)).mean())

    return mean(real) - mean(made)
