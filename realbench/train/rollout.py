"""Sampling of images, with the steps that are trained kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from realbench.train.config import MemoryConfig, SamplingConfig
from realbench.train.flow_models.flow_model import Conditioning, FlowModel, concatenate, take
from realbench.train.lora import base_model
from realbench.train.machine import moved_in
from realbench.train.sde import Step, draw_noise, ode_step, sde_step


@dataclass(frozen=True, slots=True)
class WindowStep:
    """A stochastic step that was taken, of n images.

    Attributes:
        index: of the step in the schedule.
        sigma, next_sigma: from and to.
        sample, next_sample: x and x′, float32 (n, ...).
        mean: of x′ given x, float32 (n, ...).
        std: of x′ given x, float32 (n,).
        log_prob: of x′ given x, float32 (n,).
        length: as of a :class:`~realbench.train.sde.Step`, float32 (n,).
    """

    index: int
    sigma: float
    next_sigma: float
    sample: Tensor
    next_sample: Tensor
    mean: Tensor
    std: Tensor
    log_prob: Tensor
    length: Tensor

    def __getitem__(self, index: slice | list[int] | Tensor) -> WindowStep:
        """Return the step of some of the images."""
        rows: dict[str, Any] = {name: getattr(self, name)[index] for name in _OF_IMAGES}
        return replace(self, **rows)

    @classmethod
    def joined(cls, parts: Sequence[WindowStep]) -> WindowStep:
        """Return one step of the images of several parts."""
        rows: dict[str, Any] = {
            name: torch.cat([getattr(one, name) for one in parts]) for name in _OF_IMAGES
        }
        return replace(parts[0], **rows)


_OF_IMAGES = ("sample", "next_sample", "mean", "std", "log_prob", "length")


@dataclass(frozen=True, slots=True)
class Rollout:
    """Images and how they came about.

    Attributes:
        images: uint8 (n, 3, H, W).
        steps: those of the window, in their order.
        latents: at σ = 0, float32 (n, ...).
    """

    images: Tensor
    steps: tuple[WindowStep, ...]
    latents: Tensor


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


@torch.no_grad()
def rollout(
    model: FlowModel,
    conditioning: Conditioning,
    sampling: SamplingConfig,
    generators: Sequence[torch.Generator],
    *,
    window: range = range(0),
) -> Rollout:
    """Make an image of each row of a conditioning: stochastic steps in the window, else the ODE's.

    Args:
        conditioning: n rows, of ``model.encode_prompts``.
        generators: one for each image, so that an image depends on neither the batch nor the
            number of processes. They draw the starting noise, then the steps'.
        window: indices of the stochastic steps, which are kept; empty for the pipeline's own
            deterministic images.

    Raises:
        UsageError: the model cannot make images of this size.
    """
    height, width = sampling.height, sampling.width
    sigmas = model.sigmas(sampling.steps, height, width)
    latents = model.initial_latents(len(generators), height, width, generators)
    kept = []
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas.tolist())):
        levels = sigmas[index].expand(len(latents))
        velocity = _velocity(model, latents, levels, conditioning, sampling)
        if index in window:
            step = sde_step(
                velocity,
                latents,
                sigma,
                next_sigma,
                noise_level=sampling.noise_level,
                kind=sampling.kind,
                noise=draw_noise(latents, generators),
            )
            taken = (latents, step.sample, step.mean, step.std, step.log_prob, step.length)
            kept.append(WindowStep(index, sigma, next_sigma, *taken))
        else:
            step = ode_step(velocity, latents, sigma, next_sigma)
        latents = step.sample
    return Rollout(model.decode(latents, height, width), tuple(kept), latents)


def replay(
    model: FlowModel, conditioning: Conditioning, taken: WindowStep, sampling: SamplingConfig
) -> Step:
    """Return a step that was taken as the model now sees it, with gradients where they are on.

    With the weights that sampled, its mean and log probability are those that were kept.

    Args:
        conditioning: the rows of the step's images.
        taken: of a rollout with the same settings.
    """
    sigma = torch.full((len(taken.sample),), taken.sigma, device=taken.sample.device)
    return sde_step(
        _velocity(model, taken.sample, sigma, conditioning, sampling),
        taken.sample,
        taken.sigma,
        taken.next_sigma,
        noise_level=sampling.noise_level,
        kind=sampling.kind,
        next_sample=taken.next_sample,
    )


def encode(
    model: FlowModel, prompts: Sequence[str], memory: MemoryConfig, batch_size: int
) -> dict[str, Tensor]:
    """Return the conditioning of n prompts, a row each; equal prompts are encoded once."""
    distinct = list(dict.fromkeys(prompts))
    with moved_in(model, "text_encoder", memory.offload_text_encoders):
        parts = [model.encode_prompts(distinct[part]) for part in _batches(distinct, batch_size)]
    rows = {prompt: row for row, prompt in enumerate(distinct)}
    return take(concatenate(parts), [rows[prompt] for prompt in prompts])


def sample(
    model: FlowModel,
    conditioning: Conditioning,
    generators: Sequence[torch.Generator],
    sampling: SamplingConfig,
    memory: MemoryConfig,
    *,
    window: range = range(0),
) -> tuple[Tensor, tuple[WindowStep, ...]]:
    """Make an image of each row, in batches.

    Returns:
        The images, uint8 (n, 3, H, W) in main memory, and the window's steps.
    """
    with moved_in(model, "vae", memory.offload_vae):
        made = [
            rollout(model, take(conditioning, part), sampling, generators[part], window=window)
            for part in _batches(generators, sampling.batch_size)
        ]
    steps = tuple(map(WindowStep.joined, zip(*(one.steps for one in made), strict=True)))
    return torch.cat([one.images.cpu() for one in made]), steps


def collect(
    model: FlowModel,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    sampling: SamplingConfig,
    memory: MemoryConfig,
    *,
    window: range,
    base_of: str | None,
) -> Experience:
    """Make an image of each prompt, with the window's steps kept.

    Args:
        prompts: n texts; those of a group are equal.
        base_of: ``"velocity"`` or ``"mean"`` of the base model, to be kept for these steps; None
            where it is not needed.
    """
    conditioning = encode(model, prompts, memory, sampling.batch_size)
    images, steps = sample(model, conditioning, generators, sampling, memory, window=window)

    def of_base(taken: WindowStep) -> Tensor:
        parts = _batches(prompts, sampling.batch_size)
        steps = (replay(model, take(conditioning, part), taken[part], sampling) for part in parts)
        return torch.cat([getattr(step, str(base_of)) for step in steps])

    base: tuple[Tensor, ...] = ()
    if base_of is not None:
        with torch.no_grad(), base_model(model.transformer):
            base = tuple(map(of_base, steps))
    return Experience(images, steps, base, conditioning)


def difference_from_pipeline(
    model: FlowModel,
    prompts: Sequence[str],
    *,
    steps: int,
    height: int,
    width: int,
    guidance: float,
    call: dict[str, Any],
) -> float:
    """Return how far our deterministic samples are from the pipeline's own, at most.

    It tells whether an adapter samples what its pipeline samples. Both start from the same noise.
    In float32 the difference should be below 1e-3; in bfloat16 it is larger, since the pipelines
    round their latents at each step and we do not.

    Args:
        call: further arguments of the pipeline's call, in which the guidance is called what it is
            called there.

    Returns:
        The largest absolute difference of the latents at σ = 0, in standard deviations of the
        pipeline's latents.
    """

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]

    theirs = model.pipeline(
        list(prompts),
        num_inference_steps=steps,
        height=height,
        width=width,
        generator=generators(),
        output_type="latent",
        **call,
    ).images
    sampling = SamplingConfig(steps=steps, height=height, width=width, guidance=guidance, window=1)
    ours = rollout(model, model.encode_prompts(prompts), sampling, generators()).latents
    return float((ours - theirs.float()).abs().max() / theirs.float().std())


def _velocity(
    model: FlowModel,
    latents: Tensor,
    sigma: Tensor,
    conditioning: Conditioning,
    sampling: SamplingConfig,
) -> Tensor:
    return model.velocity(
        latents,
        sigma,
        conditioning,
        guidance=sampling.guidance,
        height=sampling.height,
        width=sampling.width,
    )


def _batches(values: Sequence[object], size: int) -> Iterable[slice]:
    return (slice(start, start + size) for start in range(0, len(values), size))
