"""Numbers and findings in words."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench.report import wording
from realbench.text import visible


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.125, "0.12"), (-0.5, "−0.50"), (-0.001, "0.00"), (None, "–"), (math.nan, "–")],
)
def test_numbers_are_typeset(value: Any, text: str) -> None:
    assert wording.number(value) == text


@given(st.floats(-1, 1))
def test_a_signed_number_reads_back(value: float) -> None:
    text = wording.signed(value).replace("−", "-")
    assert abs(float(text) - value) <= 0.005 + 1e-9
    assert "-0.00" not in text
    assert text.startswith(("+", "-")) or float(text) == 0


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.4, 0.5, "0.40–0.50"), (-0.1, 0.2, "−0.10 to 0.20"), (None, 0.5, "no interval")],
)
def test_intervals_are_typeset(low: Any, high: Any, text: str) -> None:
    assert wording.span(low, high) == text


def entry(name: str, mean: float | None, low: int | None, high: int | None, **more: Any) -> dict:
    return {
        "folder": name,
        "rank": low,
        "rank_low": low,
        "rank_high": high,
        "realism": {"estimate": mean},
        **more,
    }


@pytest.mark.parametrize(
    ("folders", "headline"),
    [
        ([entry("b", 0.2, 2, 2), entry("a", 0.9, 1, 1)], "a is more photoreal than b"),
        ([entry("a", 0.5, 1, 2), entry("b", 0.6, 1, 2)], "The data do not separate b from a"),
        (
            [entry("a", 0.9, 1, 1), entry("b", 0.2, 2, 3), entry("c", 0.1, 2, 3)],
            "a is the most photoreal of 3 folders",
        ),
        (
            [entry("a", 0.9, 1, 2), entry("b", 0.8, 1, 2), entry("c", 0.1, 3, 3)],
            "a and b share the lead among 3 folders",
        ),
        (
            [entry("a", 0.9, 1, 3), entry("b", 0.8, 1, 3), entry("c", 0.7, 1, 3)],
            "The data do not tell which of these 3 folders is most photoreal",
        ),
        ([entry("a", 0.25, 1, 1)], "a has a mean realism of 0.25"),
        ([entry("a", None, None, None)], "No image could be scored"),
        (
            [entry("a", 0.25, 1, 1, auc={"estimate": 0.93, "low": 0.9, "high": 0.95})],
            "The photographs outscore a in 93\N{NARROW NO-BREAK SPACE}% of pairs",
        ),
        (
            [entry("a", 0.25, 1, 1, auc={"estimate": 0.52, "low": 0.4, "high": 0.6})],
            "The data do not separate a from the photographs",
        ),
    ],
)
def test_the_headline_claims_only_what_the_ranks_allow(folders: list, headline: str) -> None:
    assert wording.answer({"folders": folders}) == headline


def test_a_tie_is_said_in_words() -> None:
    pair = {"a": "x", "b": "y", "difference": -0.1, "low": -0.2, "high": 0.05, "p_adjusted": 0.2}
    assert wording.pair_sentence({**pair, "tied": True}).startswith(
        "x and y are statistically tied"
    )
    assert wording.pair_sentence({**pair, "tied": False}).startswith("y is more photoreal than x")


@given(st.text())
def test_a_visible_name_has_no_direction_controls_and_can_be_encoded(text: str) -> None:
    shown = visible(f"\u202e{text}\udcff")
    assert shown.startswith("\\u202e")
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    shown.encode()


@given(st.lists(st.text(st.characters(categories=["L"]), min_size=1), min_size=1, max_size=9))
def test_a_listing_names_or_counts_everything(names: list[str]) -> None:
    text = wording.listing(names, 4)
    if len(names) <= 4:
        assert all(name in text for name in names)
    else:
        assert text.endswith(f"{len(names) - 3} more")


def test_an_estimate_has_its_interval_or_says_that_it_has_none() -> None:
    one = {"estimate": 0.125, "low": -0.1, "high": 0.2}
    assert wording.figure(one) == "0.12\n−0.10 to 0.20"
    assert wording.figure(one | {"low": 0.1}, 3, inline=True) == "0.125 (0.100–0.200)"
    assert wording.figure(one | {"low": None, "high": None}) == "0.12\nno interval"
    assert wording.figure(one | {"estimate": None}) == wording.figure(None) == "–"


def test_how_realism_is_made_is_said() -> None:
    plain = [{"name": "a", "fused": None}, {"name": "b"}]
    assert wording.combination(plain).startswith("combines them on the logit scale, with half")
    fused = [
        {"name": "a", "fused": {"weight": 0.77, "offset": 0.11}},
        {"name": "b", "fused": {"weight": 0.33, "offset": 0.11}},
    ]
    assert (
        wording.combination(fused)
        == "has the logit 0.77 times that of a plus 0.33 times that of b plus 0.22"
    )
