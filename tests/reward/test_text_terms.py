"""The terms on texts, at their edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench.reward.text_terms import (
    FORM_CHECKS,
    form_faults,
    form_term,
    kept_term,
    length_term,
    vocabulary_term,
    words_of,
)


@pytest.mark.parametrize(
    ("count", "value"),
    [(0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0), (8, 1.0), (9, 0.75), (11, 0.25), (12, 0.0), (99, 0)],
)
def test_length_is_full_within_the_limits_and_falls_evenly_beyond(count: int, value: float) -> None:
    text = " ".join(["fox"] * count)
    assert length_term(text, minimum=4, maximum=8, margin=4) == pytest.approx(value)


def test_an_empty_text_has_no_length_whatever_the_limits_are() -> None:
    assert length_term("", minimum=0, maximum=8, margin=4) == 0.0
    assert length_term(" … \n", minimum=0, maximum=8, margin=4) == 0.0
    assert length_term("fox", minimum=0, maximum=8, margin=4) == 1.0


def test_words_are_counted_in_any_language_and_with_hyphens() -> None:
    assert words_of("A close-up, the fox’s Eye.") == ["a", "close-up", "the", "fox’s", "eye"]
    assert words_of("im Straßengraben") == ["im", "strassengraben"]


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        ("A red fox at dawn, mist over the field.", []),
        ("  A red fox at dawn.\n", []),
        ("A red fox.\n\nIt is dawn.", ["one paragraph"]),
        ("Prompt: a red fox", ["no label"]),
        ("**Prompt:** a red fox", ["no label", "no markup"]),
        ("Here's a photograph of a red fox", ["no label"]),
        ("Surely a red fox", []),  # begins like "sure", and is none
        ("A prompt fox", []),
        ("- a red fox", ["no markup"]),
        ("1. a red fox", ["no markup"]),
        ("a fox, 35mm at f/2 - grainy", []),
        ("<think>a red fox", ["no markup"]),
        ("a fox in the snow a fox in the snow", []),
        ("a fox in the snow a fox in the snow a fox in the snow", ["no repeats"]),
    ],
)
def test_the_form_of_an_answer(answer: str, faults: list[str]) -> None:
    assert form_faults(answer) == faults
    assert form_term(answer) == pytest.approx(1 - len(faults) / len(FORM_CHECKS))


def test_an_answer_that_was_cut_off_loses_a_point() -> None:
    assert form_faults("a red fox", ended=False) == ["ended"]
    assert form_term("a red fox", ended=False) == pytest.approx(0.8)


@pytest.mark.parametrize("answer", ["", " \n ", "…", '""'])
def test_an_answer_without_words_has_no_form(answer: str) -> None:
    assert form_term(answer) == 0.0


@pytest.mark.parametrize(
    ("text", "original", "value"),
    [
        ("Two old bicycles in the rain", "a bicycle in the rain", 1.0),
        ("Two old cars in the rain", "a bicycle in the rain", 0.5),
        ("a cat", "a dog on the beach", 0.0),
        ("", "a dog on the beach", 0.0),
        ("anything", "on it", 1.0),  # nothing of content to keep
        ("", "on it", 0.0),
        ("A DOG", "a dog, a dog", 1.0),
    ],
)
def test_words_of_the_original_are_kept(text: str, original: str, value: float) -> None:
    assert kept_term(text, original) == pytest.approx(value)


def test_vocabulary_counts_different_words_up_to_enough() -> None:
    words = ("light", "lens", "grain")
    assert vocabulary_term("nothing of it", words, enough=2) == 0.0
    assert vocabulary_term("Light, light, light", words, enough=2) == 0.5
    assert vocabulary_term("light on the lens", words, enough=2) == 1.0
    assert vocabulary_term("light lens grain", words, enough=2) == 1.0
    assert vocabulary_term("highlight", words, enough=2) == 0.0  # a whole word, not a part


@given(st.text(), st.text())
def test_every_term_is_in_the_unit_interval(text: str, other: str) -> None:
    for value in (
        length_term(text, minimum=2, maximum=5, margin=3),
        form_term(text),
        kept_term(text, other),
        vocabulary_term(text, ("a", "light"), enough=2),
    ):
        assert 0.0 <= value <= 1.0
