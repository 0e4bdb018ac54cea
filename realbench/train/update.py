"""The policy update: an iteration's images, in optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from realbench.errors import RealBenchError
from realbench.train.config import DiffusionConfig
from realbench.train.flow_models.flow_model import FlowModel, take
from realbench.train.loss import Diagnostics, kl_to_base, policy_loss
from realbench.train.rollout import Experience, replay

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class UpdateFigures(Diagnostics):
    """What an iteration's update looked like, over all processes.

    Attributes:
        loss: mean over images and steps, the divergence included.
        kl: mean divergence from the base model, before its weight; 0 where it is left out.
        grad_norm: mean over the optimiser steps, before clipping.
        first_ratio_mean, first_ratio_std: of the first optimiser step alone. The weights are still
            those that sampled, so all but rounding is 1 and 0.
    """

    loss: float
    kl: float
    grad_norm: float
    first_ratio_mean: float
    first_ratio_std: float

    def rounding_warning(self, clip: float) -> str | None:
        """Return a line where the first ratios are not small against the clip, else None."""
        spread = math.hypot(self.first_ratio_mean - 1, self.first_ratio_std)
        if spread <= _SMALL * clip:
            return None
        return (
            f"the first ratios, which should be 1, are off by {spread:.1e}, and loss.clip is "
            f"{clip:.1e}: rounding decides what is clipped; raise loss.clip, set model.dtype to "
            "float32, or have sampling.batch_size and training.batch_size be equal"
        )


_SMALL = 0.1
"""Up to this share of the clip, rounding moves few ratios across its bounds."""


def update(
    model: FlowModel,
    experience: Experience,
    advantages: np.ndarray,
    parts: list[np.ndarray],
    *,
    config: DiffusionConfig,
    accelerator: Accelerator,
    optimizer: Any,
    parameters: Mapping[str, torch.nn.Parameter],
    stepped: Callable[[], object],
) -> UpdateFigures:
    """Train on images; gradients accumulate over the images and steps of a part.

    Args:
        advantages: float32 (n,), of the experience's images.
        parts: for each optimiser step the rows of the experience that it trains on.
        stepped: called after each optimiser step.

    Raises:
        RealBenchError: the gradient is not finite.
    """
    weights = torch.from_numpy(advantages)
    sums = torch.zeros(len(parts), _COLUMNS, dtype=torch.float64)
    norms = []
    for number, part in enumerate(parts):
        batches = np.array_split(part, math.ceil(len(part) / config.training.batch_size))
        for rows in batches:
            # accelerate divides by the number of passes; unequal batches must still count alike
            weight = len(rows) * len(batches) / len(part)
            index = torch.from_numpy(rows)
            for place in range(len(experience.steps)):
                with accelerator.accumulate(model.transformer):
                    loss, figures = _pass(model, experience, place, index, weights[index], config)
                    sums[number] += len(rows) * torch.tensor(figures, dtype=torch.float64)
                    accelerator.backward(loss * weight)
                    if accelerator.sync_gradients:
                        norms.append(_clip(accelerator, parameters, config.training.max_grad_norm))
                    optimizer.step()
                    optimizer.zero_grad()
        stepped()
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums.to(accelerator.device), "sum").cpu()
    return _figures(sums, float(np.mean(norms)))


_NAMES = [field.name for field in fields(Diagnostics)]
_COLUMNS = len(_NAMES) + 4  # the ratio's mean square about 1, the loss, the divergence, the weight


def _pass(
    model: FlowModel,
    experience: Experience,
    place: int,
    rows: Tensor,
    advantages: Tensor,
    config: DiffusionConfig,
) -> tuple[Tensor, list[float]]:
    """Return the loss of one step of some images, and its figures for the mean over all."""
    settings = config.loss
    taken = experience.steps[place][rows.to(experience.steps[place].sample.device)]
    conditioning = take(experience.conditioning, rows.to(taken.sample.device))
    step = replay(model, conditioning, taken, config.sampling)
    loss, diagnostics = policy_loss(
        step, taken, advantages.to(step.log_prob.device), clip=settings.clip, guard=settings.guard
    )
    divergence = torch.zeros((), device=loss.device)
    if experience.base:
        base = experience.base[place][rows.to(taken.sample.device)]
        of_means = settings.kl_of == "mean"
        divergence = kl_to_base(
            step.mean if of_means else step.velocity, base, std=taken.std if of_means else None
        )
        loss = loss + settings.kl * divergence
    figures = [getattr(diagnostics, name) for name in _NAMES]
    square = (diagnostics.ratio_mean - 1) ** 2 + diagnostics.ratio_std**2
    return loss, [*figures, square, float(loss.detach()), float(divergence.detach()), 1.0]


def _clip(
    accelerator: Accelerator, parameters: Mapping[str, torch.nn.Parameter], limit: float
) -> float:
    norm = float(accelerator.clip_grad_norm_(list(parameters.values()), limit))
    if not math.isfinite(norm):
        raise RealBenchError(
            "the gradient is not finite: lower training.learning_rate or sampling.noise_level, or "
            "set model.dtype to float32"
        )
    return norm


def _figures(sums: Tensor, grad_norm: float) -> UpdateFigures:
    """Return the figures of all optimiser steps, whose sums are rows (steps, columns)."""
    found, loss, divergence = _means(sums.sum(dim=0))
    first, _, _ = _means(sums[0])
    return UpdateFigures(
        **found,
        loss=loss,
        kl=divergence,
        grad_norm=grad_norm,
        first_ratio_mean=first["ratio_mean"],
        first_ratio_std=first["ratio_std"],
    )


def _means(sums: Tensor) -> tuple[dict[str, float], float, float]:
    *means, square, loss, divergence = (sums[:-1] / sums[-1]).tolist()
    found = dict(zip(_NAMES, means, strict=True))
    found["ratio_std"] = math.sqrt(max(0.0, square - (found["ratio_mean"] - 1) ** 2))
    return found, loss, divergence
