"""Advantages: the arithmetic, its edges, and what has to hold whatever the rewards are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from realbench.errors import RealBenchError
from realbench.train.advantages import EPSILON, NO_VARIANCE, advantages

ONE = {"realism": 1.0}


def of(rewards: list[float], groups: list[int], **options: object) -> np.ndarray:
    result = advantages({"realism": np.array(rewards)}, ONE, np.array(groups), **options)  # type: ignore[arg-type]
    return result.values


def test_a_group_by_hand() -> None:
    # mean 0.4, population deviation 0.2
    values = of([0.2, 0.6, 0.2, 0.6], [7, 7, 7, 7])
    np.testing.assert_allclose(values, np.array([-1, 1, -1, 1]) * 0.2 / (0.2 + EPSILON), rtol=1e-6)
    assert values.dtype == np.float32


def test_groups_are_apart_in_any_order() -> None:
    rewards, groups = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7], [3, -1, 3, -1, 3, -1]
    values = of(rewards, groups)
    for group in (3, -1):
        at = [n for n, one in enumerate(groups) if one == group]
        np.testing.assert_allclose(values[at], of([rewards[n] for n in at], [0] * len(at)))


def test_groups_without_variance_and_of_one_are_zero_and_counted() -> None:
    rewards = np.array([0.5, 0.5, 0.5 + 1e-7, 0.9, 0.1, 0.3])
    result = advantages({"realism": rewards}, ONE, np.array([0, 0, 0, 1, 2, 2]))
    assert (result.values[:4] == 0).all()
    assert (result.values[4:] != 0).all()
    assert (result.zero_groups, result.groups) == (2, 3)


def test_per_component_counts_a_component_by_its_order_not_by_its_spread() -> None:
    components = {
        "wide": np.array([0.0, 1.0, 0.0, 1.0]),
        "narrow": np.array([0.51, 0.5, 0.51, 0.5]),
    }
    weights, groups = {"wide": 1.0, "narrow": 2.0}, np.zeros(4, int)
    per_component = advantages(components, weights, groups).values
    summed = advantages(components, weights, groups, mode="sum").values
    assert np.sign(per_component).tolist() == [1, -1, 1, -1]  # the narrow one, of twice the weight
    assert np.sign(summed).tolist() == [-1, 1, -1, 1]  # the wide one drowns it
    expected = (-0.5 / (0.5 + EPSILON) + 2 * 0.005 / (0.005 + EPSILON)) / 3
    np.testing.assert_allclose(per_component[0], expected, rtol=1e-5)


def test_sum_normalises_the_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    components = {"a": rng.random(12), "b": rng.random(12)}
    groups = np.arange(12) // 4
    summed = advantages(components, {"a": 3, "b": 1}, groups, mode="sum")
    mean = 0.75 * components["a"] + 0.25 * components["b"]
    np.testing.assert_allclose(summed.values, of(mean.tolist(), groups.tolist()), rtol=1e-6)


def test_a_component_that_cancels_another_leaves_a_group_without_variance() -> None:
    a = np.array([0.2, 0.6])
    components, weights = {"a": a, "b": 1 - a}, {"a": 1.0, "b": 1.0}
    result = advantages(components, weights, np.zeros(2, int), mode="sum")
    assert result.zero_groups == 1
    assert (result.values == 0).all()


def test_a_component_at_its_end_is_counted_while_the_other_teaches() -> None:
    components = {"done": np.ones(4), "alive": np.array([0.1, 0.2, 0.3, 0.4])}
    result = advantages(components, {"done": 1.0, "alive": 1.0}, np.array([0, 0, 1, 1]))
    assert result.zero_groups == 0
    assert (result.values != 0).all()


def test_of_weight_0_a_component_changes_nothing() -> None:
    components = {"a": np.array([0.1, 0.4]), "watched": np.array([0.9, 0.2])}
    result = advantages(components, {"a": 1.0, "watched": 0.0}, np.zeros(2, int))
    np.testing.assert_array_equal(result.values, of([0.1, 0.4], [0, 0]))
    flat = {"a": np.array([0.4, 0.4]), "watched": np.array([0.9, 0.2])}
    assert advantages(flat, {"a": 1.0, "watched": 0.0}, np.zeros(2, int)).zero_groups == 1


def test_clipping() -> None:
    rewards = [0.0] * 99 + [1.0]
    assert of(rewards, [0] * 100).max() == 5.0
    assert of(rewards, [0] * 100, clip=100).max() == pytest.approx(9.95, rel=1e-2)


def test_global_std_divides_every_group_by_the_batch() -> None:
    rewards, groups = [0.1, 0.2, 0.0, 1.0, 0.5, 0.5], [0, 0, 1, 1, 2, 2]
    values = of(rewards, groups, global_std=True)
    deviation = np.std(rewards) + EPSILON
    expected = np.array([-0.05, 0.05, -0.5, 0.5, 0, 0]) / deviation
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_by_name(bad: float) -> None:
    with pytest.raises(RealBenchError, match=r"'judge' gave -?(nan|inf) for image 1 \(1 of 2"):
        advantages(
            {"realism": np.array([0.1, 0.2]), "judge": np.array([0.1, bad])},
            {"realism": 1.0, "judge": 1.0},
            np.zeros(2, int),
        )


# --- Whatever the rewards ----------------------------------------------------------------------

batches = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, n, elements=st.floats(0, 1, width=32)),
        arrays(np.float32, n, elements=st.floats(0, 1, width=32)),
        arrays(np.int64, n, elements=st.integers(-3, 3)),
    )
)


@given(batches, st.floats(0, 10), st.floats(0.01, 10), st.sampled_from(["per-component", "sum"]))
def test_what_always_holds(
    batch: tuple[np.ndarray, np.ndarray, np.ndarray], first: float, second: float, mode: str
) -> None:
    a, b, groups = batch
    weights = {"a": first, "b": second}
    result = advantages({"a": a, "b": b}, weights, groups, mode=mode, clip=1e9)  # type: ignore[arg-type]
    values = result.values
    assert np.isfinite(values).all()
    flat = 0
    for group in np.unique(groups):
        mine = values[groups == group]
        assert abs(mine.mean()) < 1e-3  # no group gains or loses as a whole
        assert mine.std() <= 1 + 1e-4
        flat += bool((mine == 0).all())
    assert result.groups == len(np.unique(groups))
    assert 0 <= result.zero_groups <= flat
    # only the ratio of the weights counts, and not the order of the images
    scaled = advantages(
        {"a": a, "b": b},
        {"a": 3 * first, "b": 3 * second},
        groups,
        mode=mode,
        clip=1e9,  # type: ignore[arg-type]
    )
    # (at the edge of NO_VARIANCE rounding decides, between 0 and less than 0.01)
    np.testing.assert_allclose(scaled.values, values, atol=1e-2)
    order = np.random.default_rng(0).permutation(len(a))
    shuffled = advantages(
        {"a": a[order], "b": b[order]},
        weights,
        groups[order],
        mode=mode,
        clip=1e9,  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(shuffled.values, values[order], atol=1e-4)


@given(batches)
def test_one_component_alone_is_the_same_in_both_modes(
    batch: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    a, _, groups = batch
    one = advantages({"a": a}, {"a": 2.0}, groups)
    other = advantages({"a": a}, {"a": 2.0}, groups, mode="sum")
    np.testing.assert_allclose(one.values, other.values, atol=1e-6)
    assert one.zero_groups == other.zero_groups
    better = np.argmax(a)
    mates = a[groups == groups[better]]
    if np.ptp(mates) > NO_VARIANCE:
        assert one.values[better] > 0
