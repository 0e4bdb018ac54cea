"""Rank correlations of detectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from realbench.scoring.report import rank_correlation


@given(st.integers(0, 2**32 - 1), st.integers(5, 80))
def test_the_estimate_is_spearmans(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 9, (2, n)).astype(float)  # ties included
    got = rank_correlation(x, y, range(n), resamples=200)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(got.estimate)
    else:
        assert got.estimate == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)


def test_the_interval_covers_the_truth_and_knows_its_groups() -> None:
    """Of 200 samples of 40 prompts from a normal pair, at least 90 % hold the true value."""
    rng = np.random.default_rng(1)
    rho, covered = 0.6, 0
    truth = 6 / np.pi * np.arcsin(rho / 2)
    for seed in range(200):
        x = rng.normal(size=40)
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=40)
        got = rank_correlation(x, y, range(40), seed=seed, resamples=400)
        covered += got.low <= truth <= got.high
    assert covered >= 180


def test_images_of_one_prompt_are_not_counted_as_evidence_twice() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 20))
    alone = rank_correlation(x, y, range(20))
    copied = rank_correlation(np.repeat(x, 9), np.repeat(y, 9), np.repeat(np.arange(20), 9))
    assert copied.n_groups == 20
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.05)


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_too_few_groups_get_no_interval(n: int) -> None:
    x = np.arange(n, dtype=float)
    assert math.isnan(rank_correlation(x, x, range(n)).low)
