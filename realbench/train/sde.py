"""One sampling step of a rectified flow, as a distribution that can be drawn from and scored.

The forward process is x_σ = (1 - σ)·x₀ + σ·ε with noise level σ in [0, 1], and the network's
velocity v estimates E[ε - x₀ | x_σ]. A sampler goes from σ down to σ′; Δ = σ′ - σ < 0.
Everything is computed in float32 (float64 input stays float64), whatever the network's dtype is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

SdeKind = Literal["sde", "cps"]


@dataclass(frozen=True, slots=True)
class Step:
    """A step from σ to σ′ of n images.

    Attributes:
        sample: x′, float32 (n, ...).
        mean: the mean of x′ given x, float32 (n, ...).
        std: the standard deviation of each entry of x′ given x, float32 (n,); 0 of an ODE step.
        log_prob: log density of ``sample``, averaged over an image's entries, float32 (n,); 0
            where ``std`` is 0, since a deterministic step has no density.
        velocity: what the network said, float32 (n, ...).
        length: -∂μ/∂v, how far the mean moves with the velocity, less a factor that all steps of
            a schedule share (see :func:`sde_step`); float32 (n,), positive.
    """

    sample: Tensor
    mean: Tensor
    std: Tensor
    log_prob: Tensor
    velocity: Tensor
    length: Tensor


def sde_step(
    velocity: Tensor,
    sample: Tensor,
    sigma: Tensor | float,
    next_sigma: Tensor | float,
    *,
    noise_level: float,
    kind: SdeKind = "sde",
    noise: Tensor | None = None,
    next_sample: Tensor | None = None,
) -> Step:
    """Take a stochastic step, or score one that was taken.

    ``"sde"`` is the reverse SDE of Flow-GRPO (arXiv 2505.05470, its Euler-Maruyama update): with
    s = a·√(σ/(1 - σ)),

        μ = x·(1 + s²Δ/(2σ)) + v·(1 + s²(1 - σ)/(2σ))·Δ,    x′ = μ + s·√(-Δ)·ε.

    It has the marginals of the ODE in the limit of small steps. At σ = 1, where s is infinite,
    σ′ stands for σ in the denominator of s, as in the authors' implementation. ∂μ/∂v is
    (1 + a²/2)·Δ, and at σ = 1 it is Δ; ``length`` is it without the factor 1 + a²/2: -Δ, as
    GRPO-Guard (arXiv 2510.22319) has it, but at σ = 1 that less the factor.

    ``"cps"`` is coefficients-preserving sampling (arXiv 2509.05952): with x̂₀ = x - σv,
    x̂₁ = x + (1 - σ)v and s = σ′·sin(aπ/2),

        μ = (1 - σ′)·x̂₀ + √(σ′² - s²)·x̂₁,    x′ = μ + s·ε,

    so that the noise in x′ has exactly the level σ′ that the network expects. ``length`` is
    -∂μ/∂v = (1 - σ′)·σ - σ′·cos(aπ/2)·(1 - σ), which is not proportional to Δ. (The authors leave
    the density's constants and its 1/(2s²) away; here the log density is the Gaussian's for both.)

    Args:
        velocity: v, floating (n, ...); may carry gradients.
        sample: x, (n, ...).
        sigma, next_sigma: numbers or tensors (n,), in [0, 1], decreasing.
        noise_level: a >= 0; at most 1 for ``"cps"``. 0 is the ODE's Euler step.
        noise: ε, (n, ...), of a step that is taken.
        next_sample: an x′ that was drawn before: it is returned and scored.
    """
    velocity, sample = full_precision(velocity), full_precision(sample)
    here, there = _per_image(sigma, sample), _per_image(next_sigma, sample)
    moments = _sde_moments if kind == "sde" else _cps_moments
    mean, std, length = moments(velocity, sample, here, there, noise_level)
    if next_sample is not None:
        drawn = full_precision(next_sample)
    else:
        drawn = mean if noise is None else mean + std * full_precision(noise)
    density = log_density(drawn, mean, std)
    return Step(drawn, mean, std.flatten(), density, velocity, length.flatten())


def ode_step(
    velocity: Tensor, sample: Tensor, sigma: Tensor | float, next_sigma: Tensor | float
) -> Step:
    """Take the Euler step x′ = x + v·Δ of the probability-flow ODE."""
    velocity, sample = full_precision(velocity), full_precision(sample)
    delta = _per_image(next_sigma, sample) - _per_image(sigma, sample)
    mean = sample + velocity * delta
    nothing = torch.zeros_like(delta.flatten())
    return Step(mean, mean, nothing, nothing, velocity, -delta.flatten())


def log_density(sample: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the log density of N(mean, std²) at ``sample``, averaged over an image's entries.

    ``sample`` is a constant: gradients flow through ``mean`` alone.

    Args:
        sample, mean: (n, ...).
        std: broadcast over them, or (n,).

    Returns:
        (n,); 0 where ``std`` is 0.
    """
    std = _per_image(std.flatten(), mean)
    random = std > 0
    scale = torch.where(random, std, torch.ones_like(std))
    standard = (sample.detach() - mean) / scale
    value = -0.5 * standard.square() - scale.log() - 0.5 * math.log(2 * math.pi)
    return torch.where(random, value, torch.zeros_like(value)).flatten(1).mean(dim=1)


def draw_noise(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw standard normal noise of the shape, dtype and device of ``like``, (n, ...).

    With a generator for each image its noise depends on neither the batch nor, for CPU generators,
    the device.
    """
    shape, dtype = like.shape[1:], like.dtype
    rows = [torch.randn(shape, generator=g, dtype=dtype, device=g.device) for g in generators]
    return torch.stack([row.to(like.device) for row in rows])


def full_precision(value: Tensor) -> Tensor:
    """Return ``value`` as float32; float64 is kept."""
    return value if value.dtype == torch.float64 else value.float()


def _sde_moments(
    velocity: Tensor, sample: Tensor, sigma: Tensor, next_sigma: Tensor, noise_level: float
) -> tuple[Tensor, Tensor, Tensor]:
    delta = next_sigma - sigma
    # A schedule's first σ can be a rounding away from 1; 1/(1 - σ) would then be a huge number.
    denominator = torch.where(sigma > 1 - 1e-6, 1 - next_sigma, 1 - sigma)
    variance = noise_level**2 * sigma / denominator  # s²
    gain = 1 + variance * (1 - sigma) / (2 * sigma)  # 1 + a²/2, but at σ = 1
    mean = sample * (1 + variance * delta / (2 * sigma)) + velocity * delta * gain
    return mean, (variance * -delta).sqrt(), -delta * gain / (1 + noise_level**2 / 2)


def _cps_moments(
    velocity: Tensor, sample: Tensor, sigma: Tensor, next_sigma: Tensor, noise_level: float
) -> tuple[Tensor, Tensor, Tensor]:
    angle = noise_level * math.pi / 2
    clean = sample - sigma * velocity
    noise = sample + (1 - sigma) * velocity
    # √(σ′² - s²) = σ′·cos(aπ/2)
    mean = (1 - next_sigma) * clean + next_sigma * math.cos(angle) * noise
    length = (1 - next_sigma) * sigma - next_sigma * math.cos(angle) * (1 - sigma)
    return mean, next_sigma * math.sin(angle), length


def _per_image(value: Tensor | float, like: Tensor) -> Tensor:
    """Return ``value``, a number or (n,), as (n, 1, ...) of the dtype and device of ``like``."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return tensor.expand(like.shape[0]).reshape(-1, *[1] * (like.ndim - 1))
