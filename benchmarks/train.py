"""Time and memory of a Flow-GRPO iteration, and what our own code adds to the transformer's passes.

    python -m benchmarks.train          # a small random Stable Diffusion 3, on the CPU
    python -m benchmarks.train --layers 8 --heads 8 --size 512

An iteration is sampling, reward and update. Beside it, in the same process and in turn with it, the
*bare passes* of the same transformer: as many forward passes as the sampling makes and as many
forward and backward passes as the update makes, of the same batches, with nothing around them; and
the VAE's decoding and the text encoding, which any trainer needs. The *overhead* is the share of
sampling and update that these do not explain: schedule, SDE steps, log-probabilities, the loss,
gradient accumulation, clipping, the optimiser, the running mean and the keeping of steps.

All is measured in seconds of processor time on one thread (``--wall``: on the clock), so that what
else the machine does counts for little. The reward is a detector of this project, so that its share
of an iteration is a real one.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

AIM = 0.10
CLOCK = time.process_time
PROMPTS = ["a red bird", "an old man"]


def small_sd3(layers: int, heads: int, channels: int = 64) -> Any:
    """Return a Stable Diffusion 3 pipeline with random weights and text encoders of one layer."""
    from diffusers import SD3Transformer2DModel

    from tests.train.tiny_pipelines import tiny_sd3

    pipeline = tiny_sd3()
    torch.manual_seed(0)
    pipeline.register_modules(
        transformer=SD3Transformer2DModel(
            sample_size=64,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=layers,
            attention_head_dim=channels,
            num_attention_heads=heads,
            joint_attention_dim=32,
            caption_projection_dim=heads * channels,
            pooled_projection_dim=32,
            pos_embed_max_size=64,
            qk_norm="rms_norm",
        ).eval()
    )
    return pipeline


def settings(arguments: argparse.Namespace) -> Any:
    """Return the config of the measured training."""
    from realbench.train.config import DiffusionConfig

    return DiffusionConfig.model_validate(
        {
            "model": {"source": "small", "device": "cpu"},
            "sampling": {
                "steps": arguments.steps,
                "guidance": 4.5,
                "height": arguments.size,
                "width": arguments.size,
                "batch_size": arguments.batch,
                "window": 2,
            },
            "training": {
                "iterations": arguments.rounds + 1,
                "prompts_per_iteration": 2,
                "group_size": 4,
                "batch_size": arguments.batch,
            },
            "lora": {"rank": 16, "alpha": 32},
            "loss": {"clip": 1e-4, "kl": 1e-4},
            "evaluation": {"every": 10**6, "prompts": 1},
            "checkpoints": {"every": 10**6},
            "tracking": {"trackers": []},
        }
    )


class BarePasses:
    """The transformer's, VAE's and text encoders' work of an iteration, and nothing else."""

    def __init__(self, model: Any, config: Any) -> None:
        from realbench.train.groups import image_generator
        from realbench.train.rollout import encode

        self.model, self.config = model, config
        self.prompts = PROMPTS
        self.batch = config.sampling.batch_size
        self.images = config.training.images
        sampling = config.sampling
        self.latents = model.initial_latents(
            self.batch,
            sampling.height,
            sampling.width,
            [image_generator(0, n) for n in range(self.batch)],
        )
        texts = [self.prompts[n % 2] for n in range(self.batch)]
        self.conditioning = encode(model, texts, config.memory, self.batch)

    def velocity(self) -> torch.Tensor:
        sampling = self.config.sampling
        return self.model.velocity(
            self.latents,
            torch.full((self.batch,), 0.7),
            self.conditioning,
            guidance=sampling.guidance,
            height=sampling.height,
            width=sampling.width,
        )

    def sampling(self) -> float:
        """Return the seconds of encoding, all steps, the base model's steps and decoding."""
        start = CLOCK()
        sampling = self.config.sampling
        with torch.no_grad():
            self.model.encode_prompts(self.prompts)
            for _ in range(self.images // self.batch):
                for _ in range(sampling.steps + sampling.window):
                    self.velocity()
                self.model.decode(self.latents, sampling.height, sampling.width)
        return CLOCK() - start

    def update(self) -> float:
        """Return the seconds of the forward and backward passes."""
        start = CLOCK()
        for _ in range(self.images // self.batch * self.config.sampling.window):
            self.velocity().square().mean().backward()
        for parameter in self.model.transformer.parameters():
            parameter.grad = None
        return CLOCK() - start


def measure(arguments: argparse.Namespace) -> None:
    """Train, with the bare passes after each iteration, and print."""
    from realbench.scoring.scorer import Scorer
    from realbench.train import diffusion, machine
    from realbench.train.flow_models.sd3 import StableDiffusion3

    # the loop's clock is this one, too
    machine.time = SimpleNamespace(perf_counter=CLOCK)  # type: ignore[assignment]
    config = settings(arguments)
    model = StableDiffusion3(small_sd3(arguments.layers, arguments.heads))
    weights = sum(one.numel() for one in model.transformer.parameters())
    bare: list[tuple[float, float]] = []
    scorer = Scorer(["trace-lite"], device="cpu")

    def interleaved(progress: Any) -> None:
        if progress.stage == "training" and progress.done >= 1:
            passes = BarePasses(model, config)
            bare.append((passes.sampling(), passes.update()))

    result = diffusion.train(
        config,
        model=model,
        reward=scorer.reward,
        prompts=PROMPTS,
        evaluation_prompts=["a tree"],
        progress=interleaved,
    )
    laps = [one.seconds for one in result.trained][1:]  # the first warms up
    report(laps, bare[: len(laps)], weights, config)


def report(
    laps: Sequence[dict[str, float]],
    bare: Sequence[tuple[float, float]],
    weights: int,
    config: Any,
) -> None:
    """Print medians and the overhead, which is paired by round."""
    sampling, training = config.sampling, config.training
    print(
        f"{weights / 1e6:.1f} M weights, {sampling.height} px, {sampling.steps} steps, window "
        f"{sampling.window}, {training.images} images, batch {sampling.batch_size}; "
        f"1 thread of {os.cpu_count()} cores; {len(laps)} rounds, "
        "medians (least to most)"
    )
    total = [sum(one.values()) for one in laps]
    print(f"  iteration {spread(total)} s")
    for name in ("sampling", "reward", "update"):
        values = [one[name] for one in laps]
        share = statistics.median(v / t for v, t in zip(values, total, strict=True))
        print(f"    {name:9} {spread(values)} s, {share:.0%} of it")
    print(f"  bare passes: sampling {spread([a for a, _ in bare])} s, ", end="")
    print(f"update {spread([b for _, b in bare])} s")
    for name, pick in (
        ("sampling", lambda lap, one: (lap["sampling"], one[0])),
        ("update", lambda lap, one: (lap["update"], one[1])),
        ("both", lambda lap, one: (lap["sampling"] + lap["update"], sum(one))),
    ):
        shares = [overhead(*pick(lap, one)) for lap, one in zip(laps, bare, strict=True)]
        aim = f", aim under {AIM:.0%}" if name == "both" else ""
        print(f"  overhead in {name}: {spread(shares, '{:.1%}')}{aim}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  peak memory of the process {peak:,.0f} MiB")


def overhead(ours: float, bare: float) -> float:
    """Return the share of our time that the bare passes do not explain."""
    return (ours - bare) / ours


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    low, middle, high = min(values), float(np.median(values)), max(values)
    return f"{form.format(middle)} ({form.format(low)} to {form.format(high)})"


def main() -> None:
    global CLOCK
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4, help="of 64 channels each")
    parser.add_argument("--size", type=int, default=32, help="of an image; the VAE halves it")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wall", action="store_true", help="seconds of the clock")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.wall:
        CLOCK = time.perf_counter
    measure(arguments)


if __name__ == "__main__":
    main()
