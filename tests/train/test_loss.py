"""The loss: its gradient, its clipping, and what GRPO-Guard's normalisation does."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from realbench.train.loss import kl_to_base, policy_loss
from realbench.train.sde import SdeKind, Step, sde_step

N = 6
SIGMA, NEXT_SIGMA, LEVEL = 0.8, 0.7, 0.9
ADVANTAGES = torch.tensor([1.2, -0.7, 0.4, -2.0, 0.9, -0.1], dtype=torch.float64)


def replayed(
    velocity: Tensor,
    old_velocity: Tensor,
    sigma: float = SIGMA,
    next_sigma: float = NEXT_SIGMA,
    kind: SdeKind = "sde",
) -> tuple[Step, Step, Tensor]:
    """Draw a step with the old velocity, and replay it with the new one; and the noise."""
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(old_velocity.shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(old_velocity.shape, generator=generator, dtype=torch.float64)
    given: dict[str, Any] = {"noise_level": LEVEL, "kind": kind}
    old = sde_step(old_velocity, sample, sigma, next_sigma, noise=noise, **given)
    new = sde_step(velocity, sample, sigma, next_sigma, next_sample=old.sample, **given)
    return new, old, noise


def velocities(scale: float, shape: tuple[int, ...] = (N, 3, 2)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    old, change = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return old + scale * change, old


def loss_of(
    steps: tuple[Step, Step, Tensor], *, guard: bool, clip: float = 0.02
) -> tuple[Tensor, Any]:
    return policy_loss(*steps[:2], ADVANTAGES, clip=clip, guard=guard)


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("std_weighted_kl", [False, True])
def test_gradient_is_the_numerical_one(guard: bool, std_weighted_kl: bool) -> None:
    """Through the step, the log probability, the ratio, its clip and the KL; float64."""
    new, old = velocities(0.3)

    def whole(velocity: Tensor) -> Tensor:
        steps = replayed(velocity, old)
        loss, found = loss_of(steps, guard=guard)
        assert 0 < found.clip_fraction < 1  # both branches are differentiated
        if std_weighted_kl:
            return loss + 0.1 * kl_to_base(steps[0].mean, steps[1].mean + 0.1, std=steps[1].std)
        return loss + 0.1 * kl_to_base(velocity, old + 0.1)

    assert torch.autograd.gradcheck(whole, new.requires_grad_())


@pytest.mark.parametrize("guard", [False, True])
def test_the_first_ratio_is_one(guard: bool) -> None:
    _, old = velocities(0)
    loss, found = loss_of(replayed(old, old), guard=guard)
    assert found.ratio_mean == 1
    assert found.ratio_std == found.clip_fraction == found.approx_kl == 0
    scale = SIGMA - NEXT_SIGMA if guard else 1
    assert float(loss) == pytest.approx(float(-ADVANTAGES.mean()) / scale)


def test_guard_makes_the_log_ratio_the_mean_of_noise_times_shift() -> None:
    """log r = mean(ε·(μ - μ_old)), so it has no bias and does not depend on the step's length."""
    new, old = velocities(0.3)
    step, taken, noise = replayed(new, old)
    _, found = loss_of((step, taken, noise), guard=True, clip=0.01)
    ratio = (noise * (step.mean - taken.mean)).flatten(1).mean(dim=1).exp()
    assert found.ratio_mean == pytest.approx(float(ratio.mean()), abs=1e-12)
    assert found.ratio_std == pytest.approx(float(ratio.std(correction=0)), abs=1e-12)
    assert found.clip_fraction_high == pytest.approx(float((ratio > 1.01).double().mean()))
    assert found.clip_fraction_low == pytest.approx(float((ratio < 0.99).double().mean()))


def test_without_guard_the_ratio_is_biased_with_it_it_is_centred() -> None:
    """20,000 images of 8 entries: z of mean ratio - 1 is below -6 without, and within ±4 with."""
    new, old = velocities(0.2, (20_000, 8))
    step, taken, _ = replayed(new, old)
    z = {}
    for guard in (False, True):
        advantages = torch.ones(len(new), dtype=torch.float64)
        _, found = policy_loss(step, taken, advantages, clip=0.1, guard=guard)
        z[guard] = (found.ratio_mean - 1) / found.ratio_std * math.sqrt(len(new))
    assert z[False] < -6
    assert abs(z[True]) < 4


@pytest.mark.parametrize("kind", ["sde", "cps"])
def test_guard_gives_every_step_the_same_gradient(kind: SdeKind) -> None:
    """The gradient with respect to the velocity at ratio 1, over a shifted 10-step schedule.

    Of ``"sde"`` at σ = 1 as well, where its s is another.
    """
    levels = [3 * s / (1 + 2 * s) for s in (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)]
    _, old = velocities(0)
    sizes: dict[bool, list[float]] = {False: [], True: []}
    for sigma, next_sigma in pairwise(levels):
        for guard, found in sizes.items():
            velocity = old.clone().requires_grad_()
            loss, _ = loss_of(replayed(velocity, old, sigma, next_sigma, kind), guard=guard)
            (gradient,) = torch.autograd.grad(loss, velocity)
            found.append(float(gradient.norm()))
    assert max(sizes[True]) / min(sizes[True]) == pytest.approx(1, abs=1e-9)
    assert max(sizes[False]) / min(sizes[False]) > 1.5


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "gradient"),
    [
        (0.5, 1.0, 0.0),  # already much likelier: no further
        (0.5, -1.0, math.exp(0.5)),  # likelier though it was bad: back
        (-0.5, 1.0, -math.exp(-0.5)),  # less likely though it was good: back
        (-0.5, -1.0, 0.0),
        (0.05, 1.0, -math.exp(0.05)),  # within the clip
        (0.0, 0.0, 0.0),  # a group without variance
    ],
)
def test_clipping(log_ratio: float, advantage: float, gradient: float) -> None:
    log_prob = torch.tensor([log_ratio], requires_grad=True)
    zero = torch.zeros(1)
    step, taken = (Step(zero, zero, zero, one, zero, zero) for one in (log_prob, zero))
    loss, found = policy_loss(step, taken, torch.tensor([advantage]), clip=0.2, guard=False)
    loss.backward()
    assert log_prob.grad is not None
    assert float(log_prob.grad) == pytest.approx(gradient)
    assert found.clip_fraction == (abs(log_ratio) > 0.2)
    assert found.approx_kl == pytest.approx(math.exp(log_ratio) - 1 - log_ratio, abs=1e-9)


def test_kl_is_that_of_the_gaussians() -> None:
    new, base = velocities(0.3)
    std = torch.linspace(0.1, 0.6, N, dtype=torch.float64)
    wide = std[:, None, None]
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(new, wide), normal(base, wide))
    assert float(kl_to_base(new, base, std=std)) == pytest.approx(float(divergence.mean()))
    assert float(kl_to_base(new, base)) == pytest.approx(float((new - base).square().mean()))


@pytest.mark.parametrize("delta", [-1 / 28, -0.012])
def test_published_scripts_leave_the_steps_length_out_of_the_divergence(delta: float) -> None:
    """Ours is the Gaussians', so at an equal β it is 1/|Δ| times theirs: 28 and 83 times."""
    new, base = velocities(0.3)
    s = torch.linspace(0.5, 1.5, N, dtype=torch.float64)
    published = ((new - base).square().flatten(1).mean(dim=1) / (2 * s.square())).mean()
    ours = kl_to_base(new, base, std=s * math.sqrt(-delta))
    assert float(ours / published) == pytest.approx(-1 / delta)
