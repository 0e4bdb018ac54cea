"""One process's share of an iteration's images, with the steps that are trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from realbench.train.config import MemoryConfig, SamplingConfig
from realbench.train.flow_models.flow_model import Conditioning, FlowModel, concatenate, take
from realbench.train.lora import base_model
from realbench.train.rollout import Rollout, WindowStep, replay, rollout


@dataclass(frozen=True)
class Experience:
    """Images that a process made, and what training on them needs.

    Attributes:
        images: uint8 (n, 3, H, W), in main memory.
        steps: of the window, each of n images.
        base: for each of ``steps`` the base model's velocity or mean, float32 (n, ...); empty
            where no divergence from it is wanted.
        conditioning: a row for each image.
    """

    images: Tensor
    steps: tuple[WindowStep, ...]
    base: tuple[Tensor, ...]
    conditioning: Conditioning


def encode(
    model: FlowModel, prompts: Sequence[str], memory: MemoryConfig, batch_size: int
) -> dict[str, Tensor]:
    """Return the conditioning of n prompts, a row each; equal prompts are encoded once."""
    distinct = list(dict.fromkeys(prompts))
    with moved_in(model, "text_encoder", memory.offload_text_encoders):
        parts = [
            model.encode_prompts(distinct[start : start + batch_size])
            for start in range(0, len(distinct), batch_size)
        ]
    rows = {prompt: row for row, prompt in enumerate(distinct)}
    return take(concatenate(parts), [rows[prompt] for prompt in prompts])


def sample(
    model: FlowModel,
    conditioning: Conditioning,
    generators: Sequence[torch.Generator],
    config: SamplingConfig,
    memory: MemoryConfig,
    *,
    window: range = range(0),
) -> list[Rollout]:
    """Make an image of each row, in batches; without a window the pipeline's own images."""
    made = []
    with moved_in(model, "vae", memory.offload_vae):
        for start in range(0, len(generators), config.batch_size):
            part = slice(start, start + config.batch_size)
            made.append(
                rollout(
                    model,
                    take(conditioning, part),
                    steps=config.steps,
                    guidance=config.guidance,
                    height=config.height,
                    width=config.width,
                    window=window,
                    noise_level=config.noise_level,
                    kind=config.kind,
                    generators=generators[part],
                )
            )
    return made


def collect(
    model: FlowModel,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    config: SamplingConfig,
    memory: MemoryConfig,
    *,
    window: range,
    base_of: str | None,
) -> Experience:
    """Make an image of each prompt, with the window's steps kept.

    Args:
        prompts: n texts; those of a group are equal.
        generators: of each image.
        window: the steps that are stochastic.
        base_of: ``"velocity"`` or ``"mean"`` of the base model, to be kept for these steps; None
            where it is not needed.
    """
    conditioning = encode(model, prompts, memory, config.batch_size)
    made = sample(model, conditioning, generators, config, memory, window=window)
    steps = tuple(
        WindowStep.joined([one.steps[place] for one in made]) for place in range(len(made[0].steps))
    )
    base: tuple[Tensor, ...] = ()
    if base_of is not None:
        with torch.no_grad(), base_model(model.transformer):
            base = tuple(_replayed(model, conditioning, step, config, base_of) for step in steps)
    images = torch.cat([one.images.cpu() for one in made])
    return Experience(images, steps, base, conditioning)


def _replayed(
    model: FlowModel,
    conditioning: Conditioning,
    taken: WindowStep,
    config: SamplingConfig,
    what: str,
) -> Tensor:
    parts = []
    for start in range(0, len(taken.sample), config.batch_size):
        part = slice(start, start + config.batch_size)
        step = replay(
            model,
            take(conditioning, part),
            taken[part],
            guidance=config.guidance,
            height=config.height,
            width=config.width,
            noise_level=config.noise_level,
            kind=config.kind,
        )
        parts.append(getattr(step, what))
    return torch.cat(parts)


@contextmanager
def moved_in(model: FlowModel, name: str, offloaded: bool) -> Iterator[None]:
    """Have some of a pipeline's parts on the model's device while they are at work.

    Args:
        model: whose pipeline's parts are meant.
        name: of the parts, or its beginning.
        offloaded: whether they are in main memory otherwise; if not, nothing happens.
    """
    components = getattr(model.pipeline, "components", {}) if offloaded else {}
    parts = [
        part
        for key, part in components.items()
        if key.startswith(name) and isinstance(part, torch.nn.Module)
    ]
    device = next(model.transformer.parameters()).device
    for part in parts:
        part.to(device)
    try:
        yield
    finally:
        for part in parts:
            part.to("cpu")
        if parts and device.type == "cuda":
            torch.cuda.empty_cache()
