"""Sampling of one batch of images, with the steps that are trained kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from realbench.train.flow_models.flow_model import Conditioning, FlowModel
from realbench.train.sde import SdeKind, Step, ode_step, sde_step


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
        conditioning: what the images were made for.
        latents: at σ = 0, float32 (n, ...).
    """

    images: Tensor
    steps: tuple[WindowStep, ...]
    conditioning: Conditioning
    latents: Tensor


@torch.no_grad()
def rollout(
    model: FlowModel,
    conditioning: Conditioning,
    *,
    steps: int,
    guidance: float,
    height: int,
    width: int,
    window: range,
    noise_level: float,
    kind: SdeKind = "sde",
    generators: Sequence[torch.Generator],
) -> Rollout:
    """Make an image of each row of a conditioning: stochastic steps in the window, else the ODE's.

    Args:
        conditioning: n rows, of ``model.encode_prompts``.
        steps: of the schedule.
        guidance: as the pipeline's users give it.
        window: indices of the stochastic steps; empty for the pipeline's own deterministic images.
        noise_level, kind: see :func:`~realbench.train.sde.sde_step`. With level 0 nothing is
            random after the start, and nothing is kept.
        generators: one for each image, so that an image depends on neither the batch nor the
            number of processes. They draw the starting noise, then the steps'.

    Raises:
        UsageError: the model cannot make images of this size.
    """
    sigmas = model.sigmas(steps, height, width)
    levels = sigmas.tolist()
    latents = model.initial_latents(len(generators), height, width, generators)
    kept = []
    for index, (sigma, next_sigma) in enumerate(pairwise(levels)):
        velocity = model.velocity(
            latents,
            sigmas[index].expand(len(latents)),
            conditioning,
            guidance=guidance,
            height=height,
            width=width,
        )
        if index in window and noise_level > 0:
            step = sde_step(
                velocity,
                latents,
                sigma,
                next_sigma,
                noise_level=noise_level,
                kind=kind,
                generator=generators,
            )
            kept.append(
                WindowStep(
                    index,
                    sigma,
                    next_sigma,
                    sample=latents,
                    next_sample=step.sample,
                    mean=step.mean,
                    std=step.std,
                    log_prob=step.log_prob,
                    length=step.length,
                )
            )
        else:
            step = ode_step(velocity, latents, sigma, next_sigma)
        latents = step.sample
    images = model.decode(latents, height, width)
    return Rollout(images, tuple(kept), conditioning, latents)


def replay(
    model: FlowModel,
    conditioning: Conditioning,
    taken: WindowStep,
    *,
    guidance: float,
    height: int,
    width: int,
    noise_level: float,
    kind: SdeKind = "sde",
) -> Step:
    """Return a step that was taken as the model now sees it, with gradients where they are on.

    With the weights that sampled, its mean and log probability are those that were kept.

    Args:
        conditioning: the rows of the step's images.
        taken: of a rollout with the same settings.
    """
    sigma = torch.full((len(taken.sample),), taken.sigma, device=taken.sample.device)
    velocity = model.velocity(
        taken.sample, sigma, conditioning, guidance=guidance, height=height, width=width
    )
    return sde_step(
        velocity,
        taken.sample,
        taken.sigma,
        taken.next_sigma,
        noise_level=noise_level,
        kind=kind,
        next_sample=taken.next_sample,
    )
