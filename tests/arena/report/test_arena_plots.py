"""The win matrix and the axes in round steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from realbench.report.page import environment
from realbench.report.plots import round_axis
from tests.pages import Page


@given(st.lists(st.floats(-20_000, 20_000), min_size=1, max_size=9))
def test_a_round_axis_holds_all_values_with_few_ticks(values: list[float]) -> None:
    axis = round_axis(values)
    assert axis.low <= min(values)
    assert axis.high >= max(values)
    assert 2 <= len(axis.ticks) <= 6
    assert all(tick == round(tick) for tick in axis.ticks)


def test_a_round_axis_keeps_its_bounds_and_its_landmark() -> None:
    axis = round_axis([2.0, 97.0], landmark=50.0, bounds=(0.0, 100.0))
    assert (axis.low, axis.high) == (0.0, 100.0)
    assert round_axis([60.0, 61.0], landmark=50.0).low <= 50
    assert round_axis([None, None]).low == 800


def win_matrix(matrix: dict, *, reference: str | None) -> str:
    template = environment().get_template("arena/report/matrix.html")
    return str(template.module.win_matrix(matrix, reference))


def matrix(k: int) -> dict:
    names = [f"m{n}" for n in range(k)]
    shares = [[None if i == j else 0.5 + (j - i) / (2 * k) for j in range(k)] for i in range(k)]
    return {"contestants": names, "win_rate": shares, "n": [[6] * k] * k}


def test_few_contestants_get_numbers_and_many_colours_alone() -> None:
    few, many = (
        Page(win_matrix(matrix(3), reference="m0")),
        Page(win_matrix(matrix(15), reference=None)),
    )
    assert "67" in few.text
    cells = [a for tag, a in many.tags if tag == "td" and a.get("title")]
    assert len(cells) == 15 * 14
    assert cells[0]["title"] == "m0 against m1: wins 53\u202f% of 6 comparisons"
    assert not any(text.strip().isdigit() for text in many.texts)
    assert [a["title"] for tag, a in few.tags if a.get("class") == "is-photo"] == ["m0", "m0"]


def test_a_pair_without_comparisons_is_said_to_have_none() -> None:
    shown = {"contestants": ["a", "b"], "win_rate": [[None, None], [None, None]], "n": [[0, 0]] * 2}
    page = Page(win_matrix(shown, reference=None))
    assert "a against b: no comparison" in [a.get("title") for _, a in page.tags]


@given(st.floats(0, 1))
def test_colours_are_even_around_the_middle(share: float) -> None:
    shares = [[None, share], [1 - share, None]]
    shown = {"contestants": ["a", "b"], "win_rate": shares, "n": [[0, 6], [6, 0]]}
    page = Page(win_matrix(shown, reference=None))
    cells = [a["class"] for tag, a in page.tags if tag == "td" and a.get("title")]
    levels = [int(one.removeprefix("w")) for one in cells]
    assert sum(levels) in (10, 9, 11)
    assert abs(levels[0] - 10 * share) <= 0.5 + 1e-9


def test_names_in_the_matrix_are_escaped() -> None:
    shown = matrix(2) | {"contestants": ['<b>"x', "b"]}
    html = str(win_matrix(shown, reference=None))
    assert "<b>" not in html
    assert "&lt;b&gt;&#34;x" in html
