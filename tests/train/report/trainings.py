"""A training's folder as the loop leaves it, made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def make_training(
    folder: Path, *, iterations: int = 40, every: int = 10, name: str = "tiny", rise: float = 0.2
) -> Path:
    """Write run.json, log.jsonl and samples of a run whose reward rises and held-out score falls.

    Args:
        name: of a component, a probe and a prompt: may be hostile.
        rise: of the reward, over the run.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "seed": 3,
        "model": {"source": name},
        "sampling": {"steps": 28, "window": 3, "kind": "sde", "noise_level": 0.9},
        "training": {"iterations": iterations, "prompts_per_iteration": 2, "group_size": 8},
        "lora": {"rank": 64},
        "loss": {"clip": 4e-6, "kl": 4e-4, "guard": True},
        "ema": {"enabled": True, "decay": 0.9},
    }
    manifest = {
        "train_format": 1,
        "kind": "diffusion",
        "config": config,
        "n_prompts": 300,
        "finished": None,
        "trained_parameters": 18_800_000,
        "device": "cuda",
        "processes": 8,
        "versions": {"torch": "2.14.1"},
        "reward": {"components": [{"name": name, "weight": 0.5}, {"name": "b", "weight": 0.5}]},
        "stop_reason": "interrupted",
    }
    (folder / "run.json").write_text(json.dumps(manifest))
    with (folder / "log.jsonl").open("w") as log:
        for n in range(iterations + 1):
            record: dict[str, Any] = {"iteration": n}
            if n:
                record |= _iteration(n, iterations, name, rng)
            if n % every == 0:
                share = n / iterations
                record["evaluation"] = _evaluation(0.4 + rise * share, 0.6 - 0.1 * share, name, rng)
                _samples(folder / "samples" / f"{n:06}", rng)
            log.write(json.dumps(record) + "\n")
    return folder


def add_verdict(folder: Path, *, failed: bool = False) -> None:
    """End a run as ``realgen-train demo`` ends it, with a guard's verdict on two measures."""
    manifest = json.loads((folder / "run.json").read_text())
    manifest |= {"finished": "2026-01-01T00:00:00+00:00", "stop_reason": "complete"}
    (folder / "run.json").write_text(json.dumps(manifest))
    name = f"sharpness {manifest['config']['model']['source']}"
    quality = {
        "passed": not failed,
        "measures": {
            name: {"start": 3.0, "end": 3.0, "low": 2.5, "high": 9.0, "passed": True},
            "diversity": {"start": 0.4, "end": 0.1, "low": 0.2, "high": None, "passed": not failed},
        },
        "usual_start": 0.875,
        "usual_end": 0.75,
        "explanations": {name: "how much neighbouring pixels differ"},
        "photographs": 1385,
        "rewarded": [name],
    }
    summary = {"quality": quality, "command": "realgen-train demo --seed 3"}
    (folder / "summary.json").write_text(json.dumps(summary))


def _iteration(n: int, last: int, name: str, rng: np.random.Generator) -> dict[str, Any]:
    reward = 0.35 + 0.2 * n / last + float(rng.normal(0, 0.01))
    return {
        "reward": reward,
        "reward_std": 0.05,
        "components": {name: reward, "b": reward},
        "zero_groups": int(rng.integers(0, 2)),
        "groups": 2,
        "loss": 1e-6,
        "kl": 3e-7 * n,
        "ratio_mean": 1 + float(rng.normal(0, 1e-6)),
        "ratio_std": 3e-6,
        "clip_fraction": 0.2,
        "clip_fraction_high": 0.12,
        "clip_fraction_low": 0.08,
        "approx_kl": 1e-12,
        "grad_norm": 0.01 if n != 7 else float("nan"),
        "seconds": {"sampling": 50.0, "reward": 3.0, "update": 31.0},
        "memory_mib": 60_000.0,
        "cotraining": {"accuracy": 0.9} if n % 5 == 0 else {},
    }


def _evaluation(
    reward: float, heldout: float, name: str, rng: np.random.Generator
) -> dict[str, Any]:
    def estimate(mean: float) -> dict[str, Any]:
        return {"mean": mean, "low": mean - 0.03, "high": mean + 0.03, "n": 12, "n_prompts": 12}

    spread = rng.normal(0, 0.01, 12)
    spread -= spread.mean()
    return {
        "reward": estimate(reward),
        "components": {name: estimate(reward), "b": estimate(reward)},
        "heldout": estimate(heldout),
        "probes": {f"sharpness {name}": {"mean": 3.0, "low": None, "high": None, "n": 12}},
        "warning": f"the reward rises while the held-out score falls: {name}"
        if reward > 0.55
        else None,
        "by_prompt": {
            "reward": (reward + spread).tolist(),
            "heldout": (heldout + spread[::-1]).tolist(),
        },
        "seconds": 20.0,
    }


def _samples(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for n in range(12):
        pixels = rng.integers(0, 256, (48, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"p{n:02}.png")
