"""The loss of Flow-GRPO, with GRPO-Guard's normalisation of the ratio.

Sources: Flow-GRPO, arXiv 2505.05470 (objective, Gaussian KL); GRPO-Guard, arXiv 2510.22319 (ratio
normalisation, gradient reweighting); RealGen, arXiv 2512.00473 (both, with a small window).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from realbench.train.sde import full_precision

if TYPE_CHECKING:
    from realbench.train.rollout import WindowStep
    from realbench.train.sde import Step


@dataclass(frozen=True)
class Diagnostics:
    """What a loss's ratios looked like.

    Attributes:
        ratio_mean, ratio_std: of the importance ratios; with one image the deviation is 0.
        clip_fraction: share of images whose ratio is outside 1 ± clip.
        clip_fraction_high, clip_fraction_low: above and below it.
        approx_kl: mean of (ratio - 1) - log ratio >= 0, an estimate of the divergence from the
            policy that sampled.
    """

    ratio_mean: float
    ratio_std: float
    clip_fraction: float
    clip_fraction_high: float
    clip_fraction_low: float
    approx_kl: float


def policy_loss(
    step: Step, taken: WindowStep | Step, advantages: Tensor, *, clip: float, guard: bool
) -> tuple[Tensor, Diagnostics]:
    """Return the clipped policy-gradient loss of one step of n images, and how it clipped.

    Flow-GRPO (arXiv 2505.05470, its objective) minimises the mean of

        max(-A·r, -A·clip(r, 1 - c, 1 + c)),    r = exp(log p - log p_old).

    With d = μ - μ_old and x′ = μ_old + std·ε that log-ratio is the mean over an image's entries of
    ε·d/std - d²/(2·std²): its expectation is below 0 and its spread depends on the step, so a fixed
    clip is one-sided and bites at some steps only. ``guard`` applies both remedies of GRPO-Guard
    (arXiv 2510.22319):

    - ratio normalisation: log r = std·(log p - log p_old + mean(d²)/(2·std²)) = mean(ε·d), which
      is centred at 0 and whose scale is the same at all steps; std = s·√(-Δ);
    - gradient reweighting: the gradient with respect to v has the factor ∂μ/∂v, so the loss is
      divided by the step's length, which is that factor (-Δ of ``"sde"``; of ``"cps"``, of which
      the paper does not speak, another, see :func:`~realbench.train.sde.sde_step`), and no step
      dominates because it is a long one.

    Args:
        step: of the policy being trained, with gradients.
        taken: the same step of the policy that sampled.
        advantages: (n,).
        guard: see above; the step's standard deviation and length must be positive.

    Returns:
        The loss, a scalar, and diagnostics without gradients.
    """
    weights = full_precision(advantages).detach()
    log_ratio = step.log_prob - taken.log_prob.detach()
    scale = torch.ones_like(log_ratio)
    if guard:
        shift = (step.mean - taken.mean.detach()).square().flatten(1).mean(dim=1)
        std = taken.std.detach()
        log_ratio, scale = (log_ratio + shift / (2 * std.square())) * std, taken.length.detach()
    ratio = log_ratio.exp()
    loss = torch.maximum(-weights * ratio, -weights * ratio.clamp(1 - clip, 1 + clip))
    return (loss / scale).mean(), _diagnose(ratio.detach(), log_ratio.detach(), clip)


def kl_to_base(value: Tensor, base: Tensor, *, std: Tensor | None = None) -> Tensor:
    """Return how far the trained model is from the base model at a step, a scalar.

    With ``std`` it is the KL divergence of the step's two Gaussians, mean((μ - μ_base)²)/(2·std²)
    (Flow-GRPO, arXiv 2505.05470, its closed form), per entry as log probabilities are. The
    published scripts divide by 2·s², not by 2·std² = 2·s²·(-Δ): at an equal β theirs is 1/(-Δ)
    times smaller, 39 to 82 times in the first half of a schedule of 28 steps. Without ``std`` it
    is mean((v - v_base)²), as RealGen-V2 has it: the same less the step's factor, so that it
    weighs all steps alike.

    Args:
        value: μ or v of the model being trained, (n, ...); gradients flow through it.
        base: μ or v of the base model (LoRA disabled), (n, ...).
        std: the step's standard deviation, (n,), where means are given.
    """
    distance = (full_precision(value) - full_precision(base).detach()).square()
    each = distance.flatten(1).mean(dim=1)
    if std is not None:
        each = each / (2 * std.detach().to(each).square())
    return each.mean()


def _diagnose(ratio: Tensor, log_ratio: Tensor, clip: float) -> Diagnostics:
    ratio, log_ratio = torch.stack([ratio, log_ratio]).cpu().double()
    high, low = (ratio > 1 + clip).double().mean(), (ratio < 1 - clip).double().mean()
    # expm1 keeps the digits that ratio - 1 loses where the ratio is near 1
    divergence = (torch.expm1(log_ratio) - log_ratio).mean()
    spread = ratio.std(correction=0)
    return Diagnostics(
        *torch.stack([ratio.mean(), spread, high + low, high, low, divergence]).tolist()
    )
