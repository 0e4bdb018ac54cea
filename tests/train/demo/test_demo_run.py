"""``realgen-train demo`` as its users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="needs realgen[train]")
pytest.importorskip("peft", reason="needs realgen[train]")

pytestmark = pytest.mark.slow


def _demo(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "realbench.cli.train", "demo", "--out", str(out), *arguments],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )


def test_an_iteration_from_the_command_to_the_report(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = _demo(out, "--iterations", "1", "--seed", "5", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["seed"], summary["iterations"]) == (5, 1)
    assert summary["n_prompts"] == 36
    for name in ("reward", "heldout"):
        for when in ("start", "end"):
            low, high = summary[f"{name}_{when}_interval"]
            assert 0 < low < summary[f"{name}_{when}"] < high < 1
    assert set(summary["quality"]["measures"]) >= {"sharpness", "colourfulness", "diversity"}
    page = (out / "report.html").read_text()
    assert "<img" in page
    assert "Quality guard" in page
    assert summary["command"] == "realgen-train demo --seed 5 --iterations 1"
    assert summary["command"] in page
    assert (out / "lora" / "pytorch_lora_weights.safetensors").is_file()
    assert "loading" not in done.stderr  # of --json nothing but the result is wanted
    _loads_into_the_pipeline(out / "lora")
    other = _demo(out, "--iterations", "1", "--seed", "6")
    assert other.returncode == 2
    assert other.stderr.startswith("loading\n")  # no terminal: lines, not a bar
    assert "Traceback" not in other.stderr


def _loads_into_the_pipeline(lora: Path) -> None:
    import torch

    from realbench.generation.small_photo import load_small_photo

    pipeline = load_small_photo()
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for _ in range(2):
        noise = torch.Generator().manual_seed(0)
        pictures.append(pipeline("A red bird", 3, generator=noise, output_type="pt").images)
        pipeline.load_lora_weights(lora, weight_name="pytorch_lora_weights.safetensors")
    assert (pictures[0] - pictures[1]).abs().max() > 1e-4
