"""What an arena's headline claims, and that it claims no more than the data give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench.arena.report import wording as words


def ratings(
    order: Sequence[str],
    apart: Sequence[tuple[str, str]],
    *,
    reference: str | None = None,
    n: int = 40,
) -> dict[str, Any]:
    """Return ratings of contestants, best first, of which the pairs ``apart`` are separated."""

    def estimate(value: float | None) -> dict[str, Any]:
        return {"estimate": value, "low": None, "high": None, "n": n}

    place = {name: at for at, name in enumerate(order)}
    share = {"estimate": 0.125, "low": 0.05, "high": 0.25, "n": 40}
    standing = {
        "n_comparisons": n,
        "n_prompts": 20,
        "ratings": [
            {
                "contestant": name,
                "bradley_terry": estimate(1000.0 - at if n else None),
                "win_rate_vs_reference": share if reference not in (None, name) else None,
            }
            for name, at in place.items()
        ],
        "pairs": [
            {
                "a": a,
                "b": b,
                "difference": estimate(float(place[b] - place[a])),
                "tied": (a, b) not in apart and (b, a) not in apart,
            }
            for a in order
            for b in order
            if place[a] < place[b]
        ],
    }
    return {"reference": reference, "judges": {"j": standing}, "combined": None}


ALL = [("p", "a"), ("p", "b"), ("p", "c"), ("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize(
    ("order", "apart", "reference", "headline"),
    [
        ("ab", ["ab"], None, "a is judged more real than b"),
        ("ab", [], None, "The comparisons do not separate a from b"),
        ("pa", ["pa"], "p", "The photographs are judged more real than a"),
        ("pa", [], "p", "The comparisons do not separate a from the photographs"),
        ("ap", [], "p", "The comparisons do not separate a from the photographs"),
        ("ap", ["ap"], "p", "a is judged more real than the photographs"),
        ("abc", ["ab", "ac"], None, "a is judged the most real of 3 models"),
        ("abc", ["ac", "bc"], None, "a and b share the lead among 3 models"),
        ("abc", [], None, "The comparisons name no leader among 3 models"),
        ("abc", ["ac"], None, "a and b share the lead among 3 models"),
        (
            "pabc",
            ["pa", "pb", "pc", "ab", "ac"],
            "p",
            "a is judged the most real of 3 models; the photographs stay on top",
        ),
        (
            "pabc",
            ["pb", "pc", "ab", "ac"],
            "p",
            "a is judged the most real of 3 models; it is not separated from the photographs",
        ),
        (
            "pabc",
            ["pc", "ac", "bc"],
            "p",
            "a and b share the lead among 3 models; "
            "2 models are not separated from the photographs",
        ),
        (
            "apbc",
            ["ap", "pb", "pc", "ab", "ac"],
            "p",
            "a is judged the most real of 3 models; it is judged more real than the photographs",
        ),
        (
            "pab",
            ["ab"],
            "p",
            "a is judged more real than b; neither is separated from the photographs",
        ),
        (
            "pabcdef",
            ["p" + x for x in "abcdef"] + ["af", "bf", "cf", "df"],
            "p",
            "5 of 6 models share the lead; the photographs stay on top",
        ),
    ],
)
def test_the_headline_says_what_the_data_give(
    order: str, apart: list[str], reference: str | None, headline: str
) -> None:
    pairs = [(pair[0], pair[1]) for pair in apart]
    assert words.answer(ratings(order, pairs, reference=reference)) == headline


@given(st.sets(st.sampled_from(ALL)))
def test_a_model_that_is_separated_below_another_never_leads(apart: set[tuple[str, str]]) -> None:
    found = ratings("pabc", sorted(apart), reference="p")
    first = words.leaders("abc", words.separated_pairs(found["judges"]["j"]))
    for model in "abc":
        beaten = any((other, model) in apart for other in "abc")
        assert (model in first) is not beaten
    assert first
    on_top = "photographs stay on top" in words.answer(found)
    assert on_top is {("p", "a"), ("p", "b"), ("p", "c")}.issubset(apart)


def test_nothing_compared_claims_nothing() -> None:
    assert words.answer(ratings("ab", [], n=0)) == "No pair has been compared"
    nobody = {"reference": None, "judges": {}, "combined": None}
    assert words.answer(nobody) == "No pair has been compared"
    assert words.support(nobody) == ""


def test_several_judges_are_answered_by_the_combined_standing() -> None:
    found = ratings("ab", [("a", "b")])
    found["combined"] = ratings("ab", [])["judges"]["j"]
    assert words.answer(found) == "The comparisons do not separate a from b"


def test_the_best_model_is_measured_against_the_photographs() -> None:
    sentence = words.support(ratings("pab", [], reference="p"))
    assert sentence.startswith("a, the highest rated model, wins 12")
    assert "of 40 comparisons with the photographs." in sentence
    assert words.support(ratings("ab", [])) == ""


def test_four_hundred_points_are_odds_of_ten_to_one() -> None:
    assert words.expected_win(1400, 1000) == pytest.approx(10 / 11)
    assert words.expected_win(1000, 1000) == 0.5
    assert words.expected_win(None, 1000) is None
    assert words.winning_chance(0.001).startswith("less than 1")
    assert words.winning_chance(0.9999).startswith("more than 99")


@pytest.mark.parametrize(
    ("n", "text"), [(7, "7"), (99, "99"), (139_295, "about 140,000"), (3037, "about 3,000")]
)
def test_projected_counts_are_round(n: int, text: str) -> None:
    assert words.roughly(n) == text


def test_long_texts_are_cut_and_lines_are_joined() -> None:
    assert words.shortened(" a\n b ", 10) == "a b"
    assert words.shortened("x" * 20, 10) == "x" * 9 + "…"
    assert words.shortened(" \n", 10) is None
