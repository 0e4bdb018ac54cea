"""Schedule active: what it chooses, when it stops, and what it saves."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from realbench.arena import bradley_terry
from realbench.arena.active import ActiveSchedule
from realbench.arena.ratings import rate
from realbench.arena.tally import tally
from realbench.arena.votes import Comparison
from tests.arena.simulated import names_of, simulate


def bank(strengths: np.ndarray, prompts: int, seed: int) -> dict[tuple[str, str, str], Comparison]:
    """Every result that could be asked for."""
    found = simulate(strengths, prompts, seed=seed, effect=0.3)
    return {(one.prompt_id, one.a, one.b): one for one in found}


def shared(results: dict[tuple[str, str, str], Comparison]) -> dict[tuple[str, str], list[str]]:
    pairs: dict[tuple[str, str], list[str]] = {}
    for prompt, a, b in results:
        pairs.setdefault((a, b), []).append(prompt)
    return pairs


def test_it_stops_when_all_neighbours_are_apart_and_rate_agrees() -> None:
    results = bank(np.array([4.0, 2.0, 0.0, -2.0]), 100, seed=0)
    schedule = ActiveSchedule(names_of(4), shared(results), seed=0)
    found: list[Comparison] = []
    while batch := schedule.next_batch(found, 20):
        assert schedule.stop_reason is None
        found += [results[unit] for unit in batch]
    assert schedule.stop_reason == "separated"
    assert len(found) < len(results) / 2
    standing = rate(found, names_of(4), resamples=200)["judges"]["judge"]
    ladder = [row["contestant"] for row in standing["ratings"]]
    assert ladder == names_of(4)
    tied = {(pair["a"], pair["b"]): pair["tied"] for pair in standing["pairs"]}
    assert sum(tied[pair] for pair in pairwise(ladder)) <= 1


def test_equals_are_judged_to_the_end_and_nothing_twice() -> None:
    results = bank(np.zeros(3), 12, seed=1)
    schedule = ActiveSchedule(names_of(3), shared(results), seed=0)
    asked = []
    found: list[Comparison] = []
    while batch := schedule.next_batch(found, 7):
        assert len(batch) <= 7
        asked += batch
        found += [results[unit] for unit in batch]
    assert schedule.stop_reason == "complete"
    assert sorted(asked) == sorted(results)


def test_pairs_that_came_to_nothing_are_not_asked_for_again() -> None:
    results = bank(np.zeros(4), 5, seed=0)
    schedule = ActiveSchedule(names_of(4), shared(results), seed=0)
    asked = []
    while batch := schedule.next_batch([], 6):  # every answer is invalid
        asked += batch
    assert sorted(asked) == sorted(results)
    assert schedule.stop_reason == "complete"


def test_a_run_that_is_taken_up_again_goes_on_where_it_stopped() -> None:
    results = bank(np.linspace(-1, 1, 6), 20, seed=0)
    schedule = ActiveSchedule(names_of(6), shared(results), seed=3)
    found = [results[unit] for _ in range(3) for unit in schedule.next_batch([], 3)]
    again = ActiveSchedule(names_of(6), shared(results), seed=3)
    asked = [unit for _ in range(4) for unit in again.next_batch(found, 5)]
    assert not {(one.prompt_id, one.a, one.b) for one in found} & set(asked)
    assert len(set(asked)) == len(asked) == 3 + 3 * 5  # three of the opening were left


def test_the_opening_links_everybody() -> None:
    results = bank(np.zeros(9), 3, seed=0)
    for seed in range(10):
        schedule = ActiveSchedule(names_of(9), shared(results), seed)
        batch = schedule.next_batch([], 18)
        counted = tally([results[unit] for unit in batch], names_of(9))
        assert counted.components().max() == 0
        assert counted.contestant_counts.min() >= 2


def test_foregone_results_are_not_asked_for() -> None:
    strengths = np.array([6.0, 0.3, 0.0, -6.0])
    results = bank(strengths, 200, seed=0)
    schedule = ActiveSchedule(names_of(4), shared(results), seed=0)
    found: list[Comparison] = []
    for _ in range(6):
        found += [results[unit] for unit in schedule.next_batch(found, 20)]
    late = [(one.a, one.b) for one in found[40:]]
    assert late.count(("m01", "m02")) > 0.5 * len(late)
    assert late.count(("m00", "m03")) == 0


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_is_shared_is_asked_once(data: st.DataObject) -> None:
    names = names_of(5)
    pairs = {
        pair: data.draw(st.lists(st.sampled_from("pqrs"), unique=True, max_size=4))
        for pair in combinations(names, 2)
    }
    schedule = ActiveSchedule(names, pairs, data.draw(st.integers(0, 5)))
    score = data.draw(st.sampled_from([0.0, 0.5]))
    found: list[Comparison] = []
    while batch := schedule.next_batch(found, data.draw(st.integers(1, 9))):
        found += [Comparison("judge", *unit, score, None) for unit in batch]
    asked = [(one.prompt_id, one.a, one.b) for one in found]
    everything = {(prompt, *pair) for pair, prompts in pairs.items() for prompt in prompts}
    assert len(set(asked)) == len(asked)
    assert set(asked) <= everything
    if schedule.stop_reason == "complete":
        assert set(asked) == everything


def test_strangers_are_an_error() -> None:
    with pytest.raises(ValueError, match="no pair of the contestants"):
        ActiveSchedule(["a", "b"], {("a", "z"): ["p"]}, 0)


@pytest.mark.slow
def test_it_ranks_as_well_as_all_with_half_of_the_comparisons() -> None:
    active, everything = [], []
    for seed in range(8):
        strengths = np.random.default_rng(seed).permutation(np.linspace(0, 7, 30))
        results = bank(strengths, 60, seed)
        schedule = ActiveSchedule(names_of(30), shared(results), seed)
        found: list[Comparison] = []
        while len(found) < 600:
            found += [results[unit] for unit in schedule.next_batch(found, 30)]
        order = np.random.default_rng(seed).permutation(len(results))[:1200]
        units = list(results.values())
        for part, store in ((found, active), ([units[n] for n in order], everything)):
            ratings = bradley_terry.bradley_terry(tally(part, names_of(30)))
            store.append(stats.spearmanr(ratings, strengths).statistic)
    assert np.mean(active) >= np.mean(everything)
