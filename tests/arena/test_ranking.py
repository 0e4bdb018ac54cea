"""Differences, rank sets, cycles and power."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from realbench.arena import bradley_terry, ranking
from realbench.arena.ratings import rate
from realbench.arena.tally import tally
from realbench.arena.votes import Comparison
from tests.arena.simulated import names_of, simulate


def standing(comparisons: list[Comparison], contestants: list[str], resamples: int = 400) -> Any:
    return rate(comparisons, contestants, resamples=resamples)["judges"]["judge"]


def results(pairs: dict[tuple[str, str], list[float]]) -> list[Comparison]:
    return [
        Comparison("judge", f"p{n}", a, b, score, None)
        for (a, b), scores in pairs.items()
        for n, score in enumerate(scores)
    ]


def test_a_circle_is_counted() -> None:
    found = standing(
        results({("a", "b"): [1, 1, 0], ("b", "c"): [1, 1, 0], ("a", "c"): [0, 0, 1],
                 ("a", "d"): [1, 1, 1], ("b", "d"): [1, 1, 1], ("c", "d"): [0.5, 0.5, 0.5]}),
        list("abcd"), 20,
    )  # fmt: skip
    assert found["intransitive"] == {"triples": 4, "cyclic": 1, "share": 0.25}


def test_triples_that_did_not_all_meet_do_not_count() -> None:
    found = standing(results({("a", "b"): [1, 0], ("b", "c"): [1, 0]}), list("abc"), 20)
    assert found["intransitive"] == {"triples": 0, "cyclic": 0, "share": None}


def test_win_matrix_by_hand() -> None:
    found = standing(results({("a", "b"): [1, 0.5, 0, 1], ("a", "c"): [1, 1]}), list("cab"), 20)
    matrix = found["win_matrix"]
    place = {name: n for n, name in enumerate(matrix["contestants"])}
    a, b, c = (place[name] for name in "abc")
    assert matrix["contestants"] == [row["contestant"] for row in found["ratings"]]
    assert matrix["win_rate"][a][b] == pytest.approx(0.625)
    assert matrix["win_rate"][b][a] == pytest.approx(0.375)
    assert (matrix["n"][a][b], matrix["n"][b][a], matrix["n"][b][c]) == (4, 4, 0)
    assert matrix["win_rate"][b][c] is None
    assert matrix["win_rate"][a][a] is None


def test_rank_sets_follow_from_the_pairs_that_differ() -> None:
    found = standing(simulate(np.array([2.0, 0.05, 0.0, -2.0]), 60, seed=3), names_of(4))
    rows = {row["contestant"]: row for row in found["ratings"]}
    assert (rows["m00"]["rank_low"], rows["m00"]["rank_high"]) == (1, 1)
    assert (rows["m03"]["rank_low"], rows["m03"]["rank_high"]) == (4, 4)
    for name in ("m01", "m02"):
        assert (rows[name]["rank_low"], rows[name]["rank_high"]) == (2, 3)
    middle = next(p for p in found["pairs"] if {p["a"], p["b"]} == {"m01", "m02"})
    assert middle["tied"]
    assert middle["difference"]["low"] < 0 < middle["difference"]["high"]
    for pair in found["pairs"]:
        assert pair["difference"]["estimate"] >= 0  # the better one first
        assert (pair["comparisons_needed"] is None) or pair["tied"]


def test_p_values_are_not_held_up_by_the_number_of_resamples() -> None:
    found = standing(simulate(np.array([1.0, -1.0]), 200, seed=0), names_of(2), 50)
    assert found["pairs"][0]["p"] < 1e-9


@pytest.mark.parametrize("prompts", [10, 40])
def test_equal_contestants_are_seldom_told_apart(prompts: int) -> None:
    wrong = 0
    for seed in range(150):
        counted = tally(simulate(np.zeros(3), prompts, seed=seed), names_of(3))
        wrong += any(not pair["tied"] for pair in differences(counted, seed))
    assert wrong / 150 <= 0.08  # 5 % of families, and three standard errors of this many


def differences(counted: Any, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    ratings = bradley_terry.bradley_terry(counted)
    draws = np.concatenate(
        [
            bradley_terry.resampled(
                counted, ratings, *bradley_terry.with_virtual_results(counted, scores, counts, rng)
            )
            for scores, counts in counted.resamples(rng, 300)
        ]
    )
    components = counted.components()
    order = ranking.order_of(ratings, components)
    return ranking.pair_differences(counted, ratings, draws, order, components)


def test_comparisons_needed_suffice_four_times_in_five() -> None:
    strengths = np.array([0.25, -0.25])
    seed = next(seed for seed in range(99) if _middling(strengths, seed))
    (pair,) = differences(tally(simulate(strengths, 40, seed=seed), names_of(2)), seed)
    total = 40 + pair["comparisons_needed"]
    found = sum(
        not differences(tally(simulate(strengths, total, seed=s), names_of(2)), s)[0]["tied"]
        for s in range(1000, 1100)
    )
    assert 0.65 <= found / 100 <= 0.92


def _middling(strengths: np.ndarray, seed: int) -> bool:
    """Whether 40 simulated prompts show about the true difference."""
    counted = tally(simulate(strengths, 40, seed=seed), names_of(2))
    return abs(counted.pair_scores[0] / 40 - 1 / (1 + np.exp(-0.5))) < 0.01


def test_no_difference_needs_no_number() -> None:
    found = standing(results({("a", "b"): [1, 0, 1, 0]}), ["a", "b"], 50)
    assert found["pairs"][0]["comparisons_needed"] is None
    assert found["pairs"][0]["p"] == pytest.approx(1, abs=0.2)
