"""How far a judge agrees with people, when there are several of them."""

from __future__ import annotations

from realbench.arena.ratings import judge_agreement
from realbench.arena.votes import Comparison


def _said(judge: str, *scores: float) -> list[Comparison]:
    return [Comparison(judge, f"p{n}", "a", "b", score, None) for n, score in enumerate(scores)]


def test_a_judge_is_compared_with_what_most_people_say() -> None:
    found = judge_agreement(
        [
            *_said("human:ana", 1, 1, 0, 0.5, 1),
            *_said("human:ben", 1, 0, 0, 0.5, 0),
            *_said("human", 0, 0, 1, 1),
            # Most people say: 1, 0, 0, a tie; on the last, one against one is a tie.
            *_said("vlm", 1, 0, 1, 0.5, 0.5),
        ],
        resamples=50,
        seed=0,
    )
    assert found is not None
    assert list(found["with_human"]) == ["vlm"]
    assert found["with_human"]["vlm"]["estimate"] == 0.8
    assert found["with_human"]["vlm"]["n"] == 5


def test_without_people_there_is_no_such_figure() -> None:
    found = judge_agreement([*_said("x", 1, 0), *_said("y", 1, 1)], resamples=20, seed=0)
    assert found is not None
    assert found["with_human"] is None
