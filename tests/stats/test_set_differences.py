"""Differences between sets, their correction for many comparisons, and ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats as distributions

from realbench.stats import holm, paired_difference, rank_sets, unpaired_difference

scores = arrays.arrays(np.float64, st.integers(2, 30), elements=st.floats(0, 1))


# --- Paired ------------------------------------------------------------------------------------


@given(a=scores, data=st.data())
def test_swapping_the_sets_turns_the_difference_round(a: np.ndarray, data: st.DataObject) -> None:
    b = data.draw(arrays.arrays(np.float64, len(a), elements=st.floats(0, 1)))
    prompts = np.arange(len(a))
    ab = paired_difference(a, b, prompts, prompts, resamples=200)
    ba = paired_difference(b, a, prompts, prompts, resamples=200)
    assert ab.interval.estimate == pytest.approx((a - b).mean(), abs=1e-12)
    assert ba.interval.estimate == pytest.approx(-ab.interval.estimate, abs=1e-12)
    assert ba.interval.low == pytest.approx(-ab.interval.high, abs=1e-12)
    assert ba.p_value == pytest.approx(ab.p_value)
    assert 0 <= ab.p_value <= 1


def test_only_shared_prompts_count_and_each_counts_once() -> None:
    a, prompts_a = [0.9, 0.7, 0.2, 0.5], ["x", "x", "y", "only in a"]
    b, prompts_b = [0.3, 0.1, 0.4], ["y", "only in b", "x"]
    result = paired_difference(a, b, prompts_a, prompts_b)
    # x: 0.8 - 0.4; y: 0.2 - 0.3
    assert result.interval.estimate == pytest.approx((0.4 - 0.1) / 2)
    assert (result.n_shared, result.interval.n_groups) == (2, 2)


def test_p_value_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 25))
    order = rng.permutation(25)
    result = paired_difference(a, b[order], np.arange(25), np.arange(25)[order])
    assert result.p_value == pytest.approx(distributions.ttest_rel(a, b).pvalue)


def test_pairing_sees_what_an_unpaired_comparison_cannot() -> None:
    rng = np.random.default_rng(1)
    difficulty = rng.normal(0, 1, 60)
    a, b = difficulty + 0.1, difficulty + rng.normal(0, 0.1, 60)
    prompts = np.arange(60)
    assert paired_difference(a, b, prompts, prompts).p_value < 1e-6
    assert unpaired_difference(a, b).p_value > 0.3


def test_p_values_are_not_held_up_by_the_number_of_resamples() -> None:
    rng = np.random.default_rng(2)
    a, prompts = rng.normal(1, 0.5, 100), np.arange(100)
    result = paired_difference(a, np.zeros(100), prompts, prompts, resamples=100)
    assert result.p_value < 1e-12


@pytest.mark.parametrize(("shift", "p_value"), [(0.0, 1.0), (0.25, 2.0**-5)])
def test_differences_without_any_spread(shift: float, p_value: float) -> None:
    b = np.array([0.5, 0.25, 0.75, 0.125, 0.0, 0.5])
    result = paired_difference(b + shift, b, range(6), range(6))
    assert result.p_value == p_value
    assert (result.interval.low, result.interval.high) == (shift, shift)


def test_one_shared_prompt_gives_a_difference_and_no_verdict() -> None:
    result = paired_difference([0.5, 0.1], [0.2, 0.3], ["x", "y"], ["x", "z"])
    assert result.interval.estimate == pytest.approx(0.3)
    assert np.isnan([result.interval.low, result.interval.high, result.p_value]).all()
    assert result.n_shared == 1


def test_without_shared_prompts_the_comparison_is_unpaired() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(20), rng.random(30)
    result = paired_difference(a, b, np.arange(20), np.arange(20, 50))
    assert result == unpaired_difference(a, b)
    assert result.n_shared == 0


# --- Unpaired ----------------------------------------------------------------------------------


def test_unpaired_p_value_is_welchs_and_groups_count_once() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.2, 1, 12), rng.normal(0, 3, 20)
    result = unpaired_difference(np.repeat(a, 3), b, np.repeat(np.arange(12), 3))
    assert result.interval.estimate == pytest.approx(a.mean() - b.mean())
    assert result.p_value == pytest.approx(distributions.ttest_ind(a, b, equal_var=False).pvalue)
    assert (result.interval.n, result.interval.n_groups) == (56, 12)
    assert result.interval.low < result.interval.estimate < result.interval.high


@pytest.mark.parametrize(("b", "p_value"), [(0.5, 1.0), (0.25, 2 / 70)])
def test_unpaired_sets_without_any_spread(b: float, p_value: float) -> None:
    """Of the 70 ways to part 8 values into 4 and 4, two part the levels."""
    result = unpaired_difference([0.5] * 4, [b] * 4)
    assert result.p_value == pytest.approx(p_value)


@pytest.mark.parametrize(("a", "b"), [([0.4], [0.1, 0.2]), ([], [0.1, 0.2]), ([], [])])
def test_unpaired_sets_that_are_too_small_give_no_verdict(a: list, b: list) -> None:
    result = unpaired_difference(a, b)
    assert np.isnan([result.interval.low, result.interval.high, result.p_value]).all()
    assert np.isnan(result.interval.estimate) == (not a)


def test_equal_models_are_called_different_as_rarely_as_promised() -> None:
    """Two models of equal realism on 10 shared prompts: over 2,000 pairs, 5 % have p < 0.05
    (measured 0.056 paired and 0.049 unpaired; three standard errors are 0.015).
    """
    rng = np.random.default_rng(5)
    paired = unpaired = 0
    prompts = np.arange(10)
    for _ in range(2000):
        a, b = 1 / (1 + np.exp(-rng.normal(-1, 2, (2, 10))))
        paired += paired_difference(a, b, prompts, prompts, resamples=1).p_value < 0.05
        unpaired += unpaired_difference(a, b, resamples=1).p_value < 0.05
    assert 0.03 <= paired / 2000 <= 0.07
    assert 0.025 <= unpaired / 2000 <= 0.065


# --- Many comparisons and ranks ----------------------------------------------------------------


def test_holm_on_a_worked_example() -> None:
    """p sorted: 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1, never below the one before."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


@given(p=arrays.arrays(np.float64, st.integers(0, 30), elements=st.floats(0, 1)))
def test_holm_lies_between_no_correction_and_bonferroni(p: np.ndarray) -> None:
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * len(p)) + 1e-15).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


def test_holm_leaves_out_comparisons_that_could_not_be_made() -> None:
    np.testing.assert_allclose(holm([0.02, np.nan, 0.01]), [0.02, np.nan, 0.02])


def test_ranks_say_what_the_pairs_allow() -> None:
    # The first beats the other two, which are tied with each other.
    assert rank_sets([0.9, 0.5, 0.4], [(0, 1), (2, 0)]) == [(1, 1), (2, 3), (2, 3)]
    assert rank_sets([0.1, 0.2, 0.3], []) == [(1, 3)] * 3
    assert rank_sets([], []) == []
    assert rank_sets([0.1, 0.2], [(0, 1), (1, 0)]) == [(2, 2), (1, 1)]


def test_sets_without_a_mean_are_never_ranked_apart() -> None:
    assert rank_sets([0.1, np.nan], [(0, 1)]) == [(1, 2), (1, 2)]


@given(means=arrays.arrays(np.float64, st.integers(1, 8), elements=st.floats(0, 1), unique=True))
def test_ranks_are_certain_where_every_pair_differs(means: np.ndarray) -> None:
    pairs = [(i, j) for i in range(len(means)) for j in range(i)]
    places = (-means).argsort().argsort() + 1
    assert rank_sets(means, pairs) == [(place, place) for place in places]
