"""Ratings: recovered strengths, honest intervals, and what must not change them."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import evalica
import numpy as np
import pytest
import trueskill
from hypothesis import given, settings
from hypothesis import strategies as st

from realbench.arena import bradley_terry, elo, true_skill
from realbench.arena.ratings import combine, rate
from realbench.arena.tally import from_draws, tally
from realbench.arena.votes import Comparison, Vote
from tests.arena.simulated import endless_ratings, names_of, simulate


def comparison(prompt: str, a: str, b: str, score: float, judge: str = "judge") -> Comparison:
    return Comparison(judge, prompt, a, b, score, None)


def standing(comparisons: list[Comparison], contestants: list[str], **options: Any) -> Any:
    result = rate(comparisons, contestants, **options)
    json.dumps(result, allow_nan=False)
    (found,) = result["judges"].values()
    return found


def figures(found: Any, system: str) -> dict[str, float]:
    return {row["contestant"]: row[system]["estimate"] for row in found["ratings"]}


# --- Recovery and coverage -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("tie", [0.0, 1.0])
def test_strengths_are_recovered_from_ten_thousand_votes(tie: float) -> None:
    strengths = np.random.default_rng(0).normal(0, 1, 8)
    comparisons = simulate(strengths, 357, seed=1, tie=tie)
    found = standing(comparisons, names_of(8), resamples=50)
    assert found["n_comparisons"] == 9996
    for system in ("bradley_terry", "elo", "trueskill"):
        ratings = figures(found, system)
        own = [ratings[name] for name in names_of(8)]
        assert np.corrcoef(own, strengths)[0, 1] > 0.99
    truth = endless_ratings(strengths, tie=tie)
    assert [figures(found, "bradley_terry")[n] for n in names_of(8)] == pytest.approx(truth, abs=25)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompts", "effect", "tie"), [(60, 0.7, 0.0), (60, 0.7, 1.0), (25, 0.5, 0.0)]
)
def test_intervals_cover_the_truth(prompts: int, effect: float, tie: float) -> None:
    hits = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        strengths = rng.normal(0, 1, 8)
        truth = endless_ratings(strengths, effect=effect, tie=tie)
        counted = tally(
            simulate(strengths, prompts, seed=seed, effect=effect, tie=tie), names_of(8)
        )
        ratings = bradley_terry.bradley_terry(counted)
        draws = np.concatenate(
            [
                bradley_terry.resampled(
                    counted,
                    ratings,
                    *bradley_terry.with_virtual_results(counted, scores, counts, rng),
                )
                for scores, counts in counted.resamples(rng, 400)
            ]
        )
        for n in range(8):
            found = from_draws(ratings[n], draws[:, n], counted.n, prompts)
            hits.append(found["low"] <= truth[n] <= found["high"])
    assert 0.93 <= np.mean(hits) <= 0.97


def test_intervals_are_over_prompts_not_votes() -> None:
    strengths = np.array([0.0, 0.3])
    once = simulate(strengths, 30, seed=3)
    # The same verdicts by 25 prompts' worth of copies tell nothing new within a prompt.
    copies = [comparison(one.prompt_id, one.a, one.b, one.score) for one in once for _ in range(25)]
    single, repeated = (standing(part, names_of(2)) for part in (once, copies))
    widths = [
        part["ratings"][0]["win_rate"]["high"] - part["ratings"][0]["win_rate"]["low"]
        for part in (single, repeated)
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_the_intervals_of_elo_and_bradley_terry_are_alike() -> None:
    found = standing(simulate(np.linspace(-1, 1, 6), 60, seed=2, effect=0.5), names_of(6))
    for row in found["ratings"]:
        one, other = row["bradley_terry"], row["elo"]
        assert other["estimate"] == pytest.approx(one["estimate"], abs=8)
        assert other["high"] - other["low"] == pytest.approx(one["high"] - one["low"], rel=0.15)


# --- Against other implementations, and by hand --------------------------------------------------


def test_bradley_terry_by_hand() -> None:
    # a wins 3 of 4. One virtual tie: 3.5 to 1.5, so the distance is 400 log10(3.5 / 1.5).
    results = [comparison(f"p{n}", "a", "b", score) for n, score in enumerate([1, 1, 0.5, 0.5])]
    ratings = bradley_terry.bradley_terry(tally(results, ["a", "b"]))
    half = 200 * math.log10(3.5 / 1.5)
    assert ratings == pytest.approx([1000 + half, 1000 - half])


def test_bradley_terry_is_evalicas_up_to_the_virtual_ties() -> None:
    comparisons = simulate(np.linspace(-0.8, 0.8, 6), 200, seed=0, tie=0.7)
    codes = {1.0: evalica.Winner.X, 0.5: evalica.Winner.Draw, 0.0: evalica.Winner.Y}
    theirs = evalica.bradley_terry(
        [one.a for one in comparisons],
        [one.b for one in comparisons],
        [codes[one.score] for one in comparisons],
        tolerance=1e-12,
        limit=10_000,
    )
    logs = np.log(theirs.scores.reindex(names_of(6)).to_numpy())
    expected = (logs - logs.mean()) * 400 / np.log(10) + 1000
    counted = tally(comparisons, names_of(6))
    totals = counted.pair_counts[None]
    own = bradley_terry.solve(counted, counted.pair_scores[None], totals, np.zeros(6))[0]
    assert own * bradley_terry.POINTS + 1000 == pytest.approx(expected, abs=1e-4)
    assert bradley_terry.bradley_terry(counted) == pytest.approx(expected, abs=1.0)


def test_elo_is_the_mean_of_evalicas_over_shuffles() -> None:
    comparisons = simulate(np.linspace(-0.5, 0.5, 4), 700, seed=0, tie=0.5)
    codes = {1.0: evalica.Winner.X, 0.5: evalica.Winner.Draw, 0.0: evalica.Winner.Y}
    rng = np.random.default_rng(1)
    runs = []
    for _ in range(60):
        order = [comparisons[n] for n in rng.permutation(len(comparisons))]
        found = evalica.elo(
            [one.a for one in order], [one.b for one in order], [codes[one.score] for one in order]
        )
        runs.append(found.scores.reindex(names_of(4)).to_numpy())
    ratings, error = elo.elo(tally(comparisons, names_of(4)), rng)
    assert (error < 4).all()
    assert ratings == pytest.approx(np.mean(runs, axis=0), abs=12)
    assert ratings.mean() == pytest.approx(1000)


def test_resampled_true_skill_is_the_packages() -> None:
    comparisons = simulate(np.linspace(-1, 1, 5), 8, seed=0, tie=0.5)
    counted = tally(comparisons, names_of(5))
    world = true_skill.environment(counted)
    games = np.random.default_rng(0).permutation(counted.n)
    ratings = [world.create_rating() for _ in range(5)]
    for n in games:
        pair = (int(counted.first[counted.pair[n]]), int(counted.second[counted.pair[n]]))
        one, other = pair if counted.score[n] else pair[::-1]
        ratings[one], ratings[other] = trueskill.rate_1vs1(
            ratings[one], ratings[other], drawn=counted.score[n] == 0.5, env=world
        )
    mu = np.array([rating.mu for rating in ratings])
    padded = np.concatenate([games, [-1, -1]])[None]
    found = true_skill.play(counted, padded, np.random.default_rng(0), virtual=0.0)[0]
    assert found == pytest.approx(mu - mu.mean() + trueskill.MU, abs=1e-6)


# --- What must not change ratings ----------------------------------------------------------------

tables = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from([(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]),
        st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda row: row[:2],
)


def built(table: list[Any], names: str = "abcd") -> list[Comparison]:
    rows = []
    for prompt, (one, other), score in table:
        a, b = names[one], names[other]
        rows.append(
            comparison(str(prompt), a, b, score)
            if a < b
            else comparison(str(prompt), b, a, 1 - score)
        )
    return rows


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_votes_changes_nothing(table: list[Any], random: Any) -> None:
    shuffled = table.copy()
    random.shuffle(shuffled)
    one, other = (rate(built(part), list("abcd"), resamples=20) for part in (table, shuffled))
    assert one == other


@settings(max_examples=40, deadline=None)
@given(tables, st.permutations("abcd"))
def test_new_names_change_nothing(table: list[Any], names: list[str]) -> None:
    plain = bradley_terry.bradley_terry(tally(built(table), list("abcd")))
    renamed = bradley_terry.bradley_terry(tally(built(table, "".join(names)), names))
    assert plain == pytest.approx(renamed, abs=1e-6, nan_ok=True)
    turned = bradley_terry.bradley_terry(tally(built(table), list("dcba")))
    assert plain == pytest.approx(turned[::-1], abs=1e-6, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(tables)
def test_swapped_results_turn_the_ladder_round(table: list[Any]) -> None:
    opposite = [(prompt, pair, 1 - score) for prompt, pair, score in table]
    one, other = (
        bradley_terry.bradley_terry(tally(built(part), list("abcd"))) for part in (table, opposite)
    )
    assert one - 1000 == pytest.approx(1000 - other, abs=1e-6, nan_ok=True)


def test_more_of_the_same_prompts_narrow_intervals_and_keep_the_ratings() -> None:
    once = simulate(np.linspace(-1, 1, 5), 40, seed=0)
    again = [
        comparison(f"{copy}-{one.prompt_id}", one.a, one.b, one.score)
        for copy in range(4)
        for one in once
    ]
    few, many = (standing(part, names_of(5)) for part in (once, again))
    for one, other in zip(few["ratings"], many["ratings"], strict=True):
        a, b = one["bradley_terry"], other["bradley_terry"]
        assert b["estimate"] == pytest.approx(a["estimate"], abs=5)  # virtual ties weigh less
        assert (b["high"] - b["low"]) / (a["high"] - a["low"]) == pytest.approx(0.5, abs=0.08)


# --- Degenerate data -----------------------------------------------------------------------------


def test_undefeated_and_winless_contestants_have_finite_ratings_and_wide_intervals() -> None:
    comparisons = [
        comparison(f"p{n}", a, b, 1.0)
        for n in range(12)
        for a, b in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    found = standing(comparisons, ["c", "b", "a"])
    assert [row["contestant"] for row in found["ratings"]] == ["a", "b", "c"]
    for row in found["ratings"]:
        for system in ("bradley_terry", "elo", "trueskill"):
            assert row[system]["low"] < row[system]["estimate"] < row[system]["high"]
    top = found["ratings"][0]
    assert top["bradley_terry"]["high"] - top["bradley_terry"]["low"] > 200
    assert top["win_rate"]["estimate"] == 1
    assert top["win_rate"]["low"] < 0.8
    assert found["ratings"][1]["win_rate"]["estimate"] == 0.5
    assert not found["pairs"][1]["tied"]  # a and c: twelve clean sweeps
    assert found["intransitive"] == {"triples": 1, "cyclic": 0, "share": 0}


def test_parts_that_never_met_have_no_common_ladder() -> None:
    comparisons = [
        comparison(f"p{n}", a, b, score)
        for n, score in enumerate([1, 1, 0, 1, 1, 0.5])
        for a, b in (("a", "b"), ("c", "d"), ("d", "e"))
    ]
    result = rate(comparisons, list("abcdefg"), resamples=50)
    json.dumps(result, allow_nan=False)
    found = result["judges"]["judge"]
    rows = {row["contestant"]: row for row in found["ratings"]}
    assert [rows[name]["rank"] for name in "cdeab"] == [1, 2, 3, 1, 2]
    assert rows["a"]["rank_high"] <= 2
    assert rows["f"]["rank"] is None
    assert rows["f"]["bradley_terry"] == {
        "estimate": None,
        "low": None,
        "high": None,
        "n": 0,
        "n_groups": 0,
    }
    across = next(p for p in found["pairs"] if {p["a"], p["b"]} == {"a", "c"})
    assert (across["difference"]["estimate"], across["p"], across["tied"]) == (None, None, True)
    assert any("2 parts" in note for note in result["notes"])
    assert any("f, g" in note for note in result["notes"])


def test_one_prompt_gives_ratings_without_intervals() -> None:
    result = rate([comparison("p", "a", "b", 1.0), comparison("p", "b", "c", 1.0)], list("abc"))
    for row in result["judges"]["judge"]["ratings"]:
        for system in ("win_rate", "bradley_terry", "elo", "trueskill"):
            assert row[system]["estimate"] is not None
            assert row[system]["low"] is row[system]["high"] is None
    assert all(pair["tied"] for pair in result["judges"]["judge"]["pairs"])
    assert any("one prompt" in note for note in result["notes"])


def test_no_comparison_at_all() -> None:
    result = rate([], ["a", "b"])
    json.dumps(result, allow_nan=False)
    assert result["judges"] == {}
    assert result["agreement"] is None


@pytest.mark.parametrize(
    ("contestants", "reference", "resamples"),
    [(["a"], None, 10), (["a", "b"], "z", 10), (["a", "b"], None, 0), (["a", "a", "b"], None, 10)],
)
def test_arguments_that_do_not_fit(
    contestants: list[str], reference: str | None, resamples: int
) -> None:
    with pytest.raises(ValueError, match=r"contestant|resamples"):
        rate(
            [comparison("p", "a", "b", 1.0)], contestants, reference=reference, resamples=resamples
        )


# --- Several judges, the reference and votes -----------------------------------------------------


@pytest.mark.slow
def test_several_judges_are_combined_with_equal_weight() -> None:
    results = [
        comparison("p", "a", "b", 1.0, "x"),
        comparison("p", "a", "b", 0.5, "y"),
        comparison("q", "a", "b", 0.0, "y"),
    ]
    merged = {one.prompt_id: one.score for one in combine(results)}
    assert merged == {"p": 0.75, "q": 0.0}
    result = rate(results, ["a", "b"], resamples=20)
    assert set(result["judges"]) == {"x", "y"}
    row = next(r for r in result["combined"]["ratings"] if r["contestant"] == "a")
    assert row["win_rate"]["estimate"] == pytest.approx(0.375)
    assert (row["wins"], row["ties"], row["losses"]) == (1, 0, 1)


def test_win_rate_against_the_reference() -> None:
    results = [comparison(f"p{n}", "model", "photos", float(n < 3)) for n in range(10)]
    results += [comparison(f"p{n}", "model", "other", 1.0) for n in range(10)]
    found = standing(results, ["photos", "model", "other"], reference="photos")
    rows = {row["contestant"]: row for row in found["ratings"]}
    against = rows["model"]["win_rate_vs_reference"]
    assert (against["estimate"], against["n"]) == (pytest.approx(0.3), 10)
    assert against["low"] < 0.3 < against["high"]
    assert rows["photos"]["win_rate_vs_reference"] is None
    assert rows["other"]["win_rate_vs_reference"] is None  # never met it


def test_position_bias_invalid_answers_and_usage() -> None:
    def vote(n: int, first: str, second: str, verdict: Any, **more: Any) -> Vote:
        return Vote(
            id=f"{n}{first}", judge="judge", judge_fingerprint="f", prompt_id=f"p{n}",
            first=first, second=second, first_sha256="1", second_sha256="2", verdict=verdict,
            time=datetime.now(UTC), **more,
        )  # fmt: skip

    votes, results = [], []
    for n in range(80):  # on a quarter of the prompts it takes whatever it is shown first
        votes += [vote(n, "a", "b", "first", usage={"input_tokens": 100, "cost": 0.5})]
        votes += [vote(n, "b", "a", "first" if n % 4 == 0 else "second")]
        results.append(Comparison("judge", f"p{n}", "a", "b", 1.0, n % 4 != 0))
    votes.append(vote(80, "a", "b", "invalid", raw="no"))
    found = rate(results, ["a", "b"], votes=votes, resamples=200)["judges"]["judge"]
    bias = found["position_bias"]
    assert bias["first_share"]["estimate"] == pytest.approx(100 / 160)
    assert bias["first_share"]["n"] == 160
    assert 0.5 < bias["first_share"]["low"] < 100 / 160 < bias["first_share"]["high"]
    assert bias["inconsistent_share"]["estimate"] == pytest.approx(0.25)
    assert found["n_invalid"] == 1
    assert found["usage"] == {"input_tokens": 8000, "output_tokens": None, "cost": 40}


def test_agreement_of_judges_and_people() -> None:
    strengths = np.linspace(-1, 1, 4)
    own = simulate(strengths, 30, seed=0, judge="vlm")
    other = [comparison(o.prompt_id, o.a, o.b, o.score, "human") for o in own[:90]]
    third = [comparison(o.prompt_id, o.a, o.b, 1 - o.score, "contrary") for o in own]
    found = rate([*own, *other, *third], names_of(4), resamples=50)["agreement"]
    pairs = {(pair["a"], pair["b"]): pair for pair in found["pairs"]}
    assert pairs["human", "vlm"]["cohen_kappa"]["estimate"] == pytest.approx(1)
    assert pairs["human", "vlm"]["n"] == 90
    assert pairs["contrary", "vlm"]["cohen_kappa"]["estimate"] == pytest.approx(-1)
    assert found["with_human"]["vlm"]["estimate"] == 1
    assert found["with_human"]["contrary"]["estimate"] == 0
    assert found["krippendorff_alpha"]["estimate"] < 0
