"""Runs of ``realgen-train diffusion`` on a tiny Stable Diffusion 3, as its users make them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIG = """
[model]
source = {model}
device = "cpu"
[prompts]
suite = {prompts}
[sampling]
steps = 6
guidance = 2.0
height = 16
width = 16
batch_size = 4
noise_level = 0.7
window = 2
[training]
iterations = 4
prompts_per_iteration = 2
group_size = 4
updates_per_iteration = 2
batch_size = 2
learning_rate = 3e-2
[lora]
rank = 4
alpha = 8
[loss]
clip = 1e-3
kl = 1e-2
[[reward.components]]
kind = "function"
name = "bright"
function = "tests.train.loop_rewards:brightness"
[[reward.components]]
kind = "function"
name = "red"
function = "tests.train.loop_rewards:redness"
weight = 0.5
[evaluation]
every = 2
prompts = 2
[checkpoints]
every = 1
[tracking]
trackers = []
"""


def write_config(folder: Path, model: Path) -> Path:
    """Write a config and its prompts."""
    prompts = folder / "prompts.jsonl"
    texts = ["a red bird", "an old man", "a tree", "two cats", "rain"]
    prompts.write_text(
        "".join(json.dumps({"id": f"p{n}", "prompt": text}) + "\n" for n, text in enumerate(texts))
    )
    path = folder / "tiny.toml"
    path.write_text(CONFIG.format(model=json.dumps(str(model)), prompts=json.dumps(str(prompts))))
    return path


def command(config: Path, out: Path, *arguments: str, processes: int = 1) -> list[str]:
    """Return the command of a run."""
    program = ["-m", "realbench.cli.train", "diffusion"]
    if processes > 1:
        # --multi_gpu is what starts several processes; --cpu alone would start one.
        launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
        more = ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
        program = ["-m", *launch, *more, "--main_process_port=0", *program]
    return [sys.executable, *program, "--config", str(config), "--out", str(out), *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return that of a run: one thread, so that sums are always made in one order."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return os.environ | threads | {"HF_HUB_OFFLINE": "1"} | more


def run(
    config: Path, out: Path, *arguments: str, processes: int = 1, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    result = subprocess.run(
        command(config, out, *arguments, processes=processes),
        env=environment(),
        text=True,
        capture_output=True,
        timeout=240,
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def numbers(out: Path) -> list[dict[str, Any]]:
    """Return the log without what a clock or the machine decides."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for one in lines:
        one.pop("seconds", None)
        one.pop("memory_mib", None)
        (one.get("evaluation") or {}).pop("seconds", None)
    return lines
