"""The sampling step against closed forms, diffusers' scheduler and exact marginals."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from realbench.train.sde import SdeKind, draw_noise, ode_step, sde_step

KINDS: tuple[SdeKind, ...] = ("sde", "cps")
SIGMAS = [(1.0, 0.96), (0.96, 0.88), (0.5, 0.4), (0.3, 0.05), (0.05, 0.0)]


def inputs(n: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    velocity, sample = torch.randn(2, n, 4, 5, 6, generator=generator, dtype=dtype)
    return velocity, sample


@pytest.mark.parametrize(("sigma", "next_sigma"), SIGMAS)
@pytest.mark.parametrize("level", [0.3, 0.9, 1.4])
def test_sde_mean_and_deviation_are_the_closed_form(
    sigma: float, next_sigma: float, level: float
) -> None:
    """By scalars, with the equation written otherwise: v·Δ and a score term apart.

    The score of x_σ is -(x + (1 - σ)v)/σ and a reverse SDE adds -s²/2·score·Δ to the ODE's drift.
    """
    velocity, sample = inputs(dtype=torch.float64)
    step = sde_step(velocity, sample, sigma, next_sigma, noise_level=level)
    delta = next_sigma - sigma
    s = level * math.sqrt(sigma / (1 - (next_sigma if sigma == 1 else sigma)))
    score = -(sample + (1 - sigma) * velocity) / sigma
    expected = sample + velocity * delta - s**2 / 2 * score * delta
    torch.testing.assert_close(step.mean, expected, rtol=1e-12, atol=1e-12)
    assert step.std.tolist() == pytest.approx([s * math.sqrt(-delta)] * 3, rel=1e-12)


@pytest.mark.parametrize(("sigma", "next_sigma"), SIGMAS)
@pytest.mark.parametrize("kind", KINDS)
def test_length_is_how_far_the_mean_moves_with_the_velocity(
    kind: SdeKind, sigma: float, next_sigma: float
) -> None:
    """By a difference of two steps; of the SDE it is -Δ but at σ = 1, of CPS up to 4.6 times it."""
    velocity, sample = inputs(dtype=torch.float64)
    level = 0.9
    step, moved = (
        sde_step(one, sample, sigma, next_sigma, noise_level=level, kind=kind)
        for one in (velocity, velocity + 1)
    )
    shared = 1 + level**2 / 2 if kind == "sde" else 1.0
    gain = (moved.mean - step.mean).flatten(1).mean(dim=1)
    torch.testing.assert_close(-gain / shared, step.length)
    if kind == "sde" and sigma < 1:
        assert step.length.tolist() == pytest.approx([sigma - next_sigma] * 3)


@pytest.mark.parametrize(("level", "last"), [(0.7, 4.549), (0.9, 6.483)])
def test_length_of_cps_over_the_first_half_of_a_schedule(level: float, last: float) -> None:
    """28 steps shifted by 3: from 1 to ``last`` times -Δ, which would weigh steps unevenly."""
    levels = [3 * s / (1 + 2 * s) for s in np.linspace(1, 0, 29)[:15]]
    x = torch.zeros(1, 1, dtype=torch.float64)
    steps = [sde_step(x, x, a, b, noise_level=level, kind="cps") for a, b in pairwise(levels)]
    ratios = [
        float(one.length) / (a - b) for one, (a, b) in zip(steps, pairwise(levels), strict=True)
    ]
    assert ratios == sorted(ratios)
    assert (ratios[0], ratios[-1]) == (pytest.approx(1), pytest.approx(last, rel=1e-3))


@pytest.mark.parametrize(("sigma", "next_sigma"), SIGMAS[:-1])
@pytest.mark.parametrize("kind", KINDS)
def test_drawn_samples_have_the_mean_and_the_deviation(
    kind: SdeKind, sigma: float, next_sigma: float
) -> None:
    """40,000 draws: z of the mean and of the variance within ±4.5 (p = 7e-6 each)."""
    draws = 40_000
    velocity, sample = torch.full((2, draws, 1), 0.7)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(sample.shape, generator=generator)
    step = sde_step(velocity, sample, sigma, next_sigma, noise_level=0.8, kind=kind, noise=noise)
    standard = ((step.sample - step.mean)[:, 0] / step.std).double()
    assert step.std.min() > 0
    assert abs(float(standard.mean())) * math.sqrt(draws) < 4.5
    assert abs(float(standard.var()) - 1) * math.sqrt(draws / 2) < 4.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_without_noise_it_is_diffusers_euler_step(kind: SdeKind, shift: float) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(10)
    velocity, theirs = inputs()
    ours = euler = theirs
    for n, time in enumerate(scheduler.timesteps):
        sigma, next_sigma = scheduler.sigmas[n : n + 2].tolist()
        theirs = scheduler.step(velocity * (n + 1), time, theirs, return_dict=False)[0]
        step = sde_step(velocity * (n + 1), ours, sigma, next_sigma, noise_level=0.0, kind=kind)
        ours = step.sample
        euler = ode_step(velocity * (n + 1), euler, sigma, next_sigma).sample
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert torch.equal(euler, theirs)
        assert step.std.tolist() == step.log_prob.tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_is_the_normal_densitys_mean_and_replays(kind: SdeKind) -> None:
    velocity, sample = inputs()
    sigma = torch.tensor([1.0, 0.7, 0.2])
    next_sigma = torch.tensor([0.9, 0.65, 0.1])
    noise = torch.randn(sample.shape, generator=torch.Generator().manual_seed(3))
    arguments: dict[str, Any] = {"noise_level": 0.7, "kind": kind}
    step = sde_step(velocity, sample, sigma, next_sigma, noise=noise, **arguments)
    normal = torch.distributions.Normal(step.mean, step.std[:, None, None, None])
    expected = normal.log_prob(step.sample).flatten(1).mean(dim=1)
    torch.testing.assert_close(step.log_prob, expected, rtol=1e-5, atol=1e-6)
    again = sde_step(
        velocity, sample, sigma, next_sigma, next_sample=step.sample.bfloat16().float(), **arguments
    )
    assert not torch.equal(again.log_prob, step.log_prob)
    again = sde_step(velocity, sample, sigma, next_sigma, next_sample=step.sample, **arguments)
    assert torch.equal(again.log_prob, step.log_prob)
    for n in range(3):  # each image by itself
        alone = sde_step(
            velocity[n : n + 1],
            sample[n : n + 1],
            float(sigma[n]),
            float(next_sigma[n]),
            noise=noise[n : n + 1],
            **arguments,
        )
        torch.testing.assert_close(alone.sample, step.sample[n : n + 1], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.log_prob, step.log_prob[n : n + 1], rtol=0, atol=1e-6)


def test_the_noise_of_an_image_is_its_generators_own() -> None:
    like = torch.zeros(3, 4, 5)
    together = draw_noise(like, [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)])
    alone = draw_noise(like[:1], [torch.Generator().manual_seed(6)])
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_half_precision_is_computed_in_float32() -> None:
    velocity, sample = inputs()
    halves = sde_step(
        velocity.bfloat16(), sample, 0.5, 0.4, noise_level=0.7, noise=torch.zeros_like(sample)
    )
    expected = sde_step(
        velocity.bfloat16().float(), sample, 0.5, 0.4, noise_level=0.7, noise=sample * 0
    )
    assert halves.sample.dtype == halves.log_prob.dtype == torch.float32
    assert torch.equal(halves.sample, expected.sample)


def test_the_last_step_of_cps_is_certain_and_its_gradient_finite() -> None:
    velocity, sample = inputs()
    velocity.requires_grad_()
    step = sde_step(velocity, sample, 0.1, 0.0, noise_level=0.7, kind="cps")
    step.log_prob.sum().backward()
    assert step.std.tolist() == [0, 0, 0]
    assert velocity.grad is not None
    assert velocity.grad.abs().sum() == 0


@given(
    sigma=st.floats(0.001, 1.0),
    share=st.floats(0.0, 0.999),
    level=st.floats(0.01, 1.0),
    kind=st.sampled_from(KINDS),
)
def test_steps_are_finite_over_the_whole_range(
    sigma: float, share: float, level: float, kind: SdeKind
) -> None:
    velocity, sample = inputs()
    step = sde_step(velocity, sample, sigma, sigma * share, noise_level=level, kind=kind)
    for value in (step.mean, step.sample, step.std, step.log_prob):
        assert torch.isfinite(value).all()
    assert (step.std >= 0).all()


@given(sigma=st.floats(0.01, 1.0), share=st.floats(0.0, 0.99), level=st.floats(0.0, 1.0))
def test_cps_keeps_the_level_of_noise(sigma: float, share: float, level: float) -> None:
    """x_σ = (1 - σ)x₀ + σε with v = ε - x₀: x′ is (1 - σ′)x₀ plus noise of variance σ′², exactly.

    The noise is what the mean keeps of ε, and what the step adds.
    """
    epsilon, clean = inputs(dtype=torch.float64)
    sample = (1 - sigma) * clean + sigma * epsilon
    next_sigma = sigma * share
    step = sde_step(epsilon - clean, sample, sigma, next_sigma, noise_level=level, kind="cps")
    kept = (step.mean - (1 - next_sigma) * clean) / epsilon
    torch.testing.assert_close(
        kept.square() + step.std[0] ** 2,
        torch.full_like(kept, next_sigma**2),
        rtol=1e-6,
        atol=1e-9,
    )


def test_the_sde_does_not_keep_it_in_large_steps() -> None:
    """What CPS is for: here the SDE's noise has variance 0.297 where the schedule has 0.16."""
    epsilon, clean = inputs(dtype=torch.float64)
    sample = 0.2 * clean + 0.8 * epsilon
    step = sde_step(epsilon - clean, sample, 0.8, 0.4, noise_level=0.9)
    weights = torch.stack([clean.flatten(), epsilon.flatten()], dim=1)
    kept = torch.linalg.lstsq(weights, step.mean.flatten()[:, None]).solution[1]
    assert float(kept) ** 2 + float(step.std[0]) ** 2 > 1.5 * 0.4**2


# A mixture of two Gaussians, of which everything is known exactly.
SHARES, MEANS, DEVIATIONS = np.array([0.3, 0.7]), np.array([-2.0, 1.0]), np.array([0.3, 0.5])


def exact_velocity(sample: Tensor, sigma: float) -> Tensor:
    """E[ε - x₀ | x_σ], (n, 1)."""
    means, variances = torch.tensor(MEANS), torch.tensor(DEVIATIONS) ** 2
    spread = (1 - sigma) ** 2 * variances + sigma**2
    rest = sample - (1 - sigma) * means
    belongs = torch.softmax(
        torch.tensor(SHARES).log() - 0.5 * spread.log() - rest**2 / (2 * spread), dim=1
    )
    clean = means + (1 - sigma) * variances / spread * rest
    noise = sigma / spread * rest
    return (belongs * (noise - clean)).sum(dim=1, keepdim=True)


def exact_cdf(values: np.ndarray, sigma: float) -> np.ndarray:
    spread = np.sqrt((1 - sigma) ** 2 * DEVIATIONS**2 + sigma**2)
    each = stats.norm.cdf((values[:, None] - (1 - sigma) * MEANS) / spread)
    return np.asarray(each @ SHARES)


def sampled(
    take: Callable[[Tensor, Tensor, float, float], Tensor], seed: int = 0
) -> dict[float, np.ndarray]:
    """20,000 samples at σ = 0.5 and at σ = 0, in 250 steps from the normal's quantiles."""
    levels = torch.linspace(1, 0, 251, dtype=torch.float64).tolist()
    quantiles = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    sample = torch.from_numpy(quantiles)[:, None]
    GENERATOR.manual_seed(seed)
    found = {}
    for sigma, next_sigma in pairwise(levels):
        sample = take(exact_velocity(sample, sigma), sample, sigma, next_sigma)
        if abs(next_sigma - 0.5) < 1e-3 or next_sigma == 0:
            found[round(next_sigma, 6)] = sample[:, 0].numpy()
    return found


GENERATOR = torch.Generator()


def stochastic(kind: SdeKind, level: float, drift: float = 1.0) -> Callable[..., Tensor]:
    def take(velocity: Tensor, sample: Tensor, sigma: float, next_sigma: float) -> Tensor:
        step = sde_step(
            velocity,
            sample,
            sigma,
            next_sigma,
            noise_level=level,
            kind=kind,
            noise=torch.randn(sample.shape, generator=GENERATOR, dtype=sample.dtype),
        )
        euler = ode_step(velocity, sample, sigma, next_sigma)
        return step.sample + (drift - 1) * (step.mean - euler.mean)

    return take


def deterministic(velocity: Tensor, sample: Tensor, sigma: float, next_sigma: float) -> Tensor:
    return ode_step(velocity, sample, sigma, next_sigma).sample


@pytest.mark.parametrize(
    "take",
    [deterministic, stochastic("sde", 0.7), stochastic("sde", 0.3), stochastic("cps", 0.05)],
    ids=["ode", "sde-0.7", "sde-0.3", "cps"],
)
def test_every_sampler_has_the_exact_marginals(take: Callable[..., Tensor]) -> None:
    """Kolmogorov-Smirnov against the mixture's distribution, halfway and at the end."""
    for sigma, values in sampled(take).items():
        distance, p = stats.kstest(values, lambda x, sigma=sigma: exact_cdf(x, sigma))
        assert p > 1e-3, (sigma, distance, p)


def test_a_drift_that_is_a_fifth_too_weak_is_found() -> None:
    """The power of the test above: over 40 seeds such a sampler was rejected each time."""
    values = sampled(stochastic("sde", 0.7, drift=0.8))
    assert all(
        stats.kstest(found, lambda x, sigma=sigma: exact_cdf(x, sigma)).pvalue < 1e-3
        for sigma, found in values.items()
    )
