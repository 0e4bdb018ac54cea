"""Which pairs an arena's report shows side by side."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from realbench.arena.report.examples import EXAMPLES, PER_PROMPT, Examples, find_examples
from realbench.arena.votes import Vote, compare

RATINGS = {"high": 1300.0, "middle": 1000.0, "low": 700.0}


def vote(
    prompt: str,
    first: str,
    second: str,
    verdict: str,
    *,
    judge: str = "j",
    probability: float | None = None,
    reason: str | None = None,
) -> Vote:
    return Vote(
        id=f"{judge}{prompt}{first}{second}",
        judge=judge,
        judge_fingerprint="f",
        prompt_id=prompt,
        first=first,
        second=second,
        first_sha256="0",
        second_sha256="1",
        verdict=verdict,
        probability=probability,
        reason=reason,
        time=datetime(2026, 1, 1, tzinfo=UTC),
    )


def both(
    prompt: str, winner: str, loser: str, *, chance: float | None = None, judge: str = "j"
) -> list[Vote]:
    other = None if chance is None else 1 - chance
    return [
        vote(prompt, winner, loser, "first", probability=chance, judge=judge),
        vote(prompt, loser, winner, "second", probability=other, judge=judge),
    ]


def find(votes: list[Vote], pictures: dict | None = None) -> Examples:
    ratings = {name: {"estimate": value, "low": None} for name, value in RATINGS.items()}
    prompts = {one.prompt_id: f"prompt {one.prompt_id}" for one in votes}
    return find_examples(
        compare(votes, {}), votes, ratings, pictures=pictures or {}, prompts=prompts
    )


def names(group: object) -> list[tuple[str, str]]:
    return [tuple(side.contestant for side in example.sides) for example in group.shown]


def test_each_pair_goes_where_it_belongs() -> None:
    votes = [
        *both("1", "high", "low"),
        *both("2", "low", "high"),
        *both("3", "low", "middle"),
        vote("4", "high", "middle", "first"),
        vote("4", "middle", "high", "first"),
    ]
    found = find(votes)
    assert names(found.clear) == [("high", "low")]
    assert names(found.upsets) == [("low", "high"), ("low", "middle")]
    assert names(found.split) == [("high", "middle")]
    assert (found.clear.total, found.upsets.total, found.split.total) == (1, 2, 1)
    assert found.upsets.of == found.split.of == 4
    assert found.upsets.shown[0].chance < 0.05
    assert [side.won for side in found.upsets.shown[0].sides] == [True, False]
    assert [side.won for side in found.split.shown[0].sides] == [False, False]
    assert [words for words, _ in found.split.shown[0].said[0].answers] == [
        "high, shown first",
        "middle, shown first",
    ]


def test_the_most_certain_win_comes_first() -> None:
    votes = [*both("1", "high", "low", chance=0.7), *both("2", "high", "middle", chance=0.99)]
    found = find(votes)
    assert names(found.clear) == [("high", "middle"), ("high", "low")]
    assert found.clear.shown[0].said[0].answers == [
        ("high in both orders (P(left) = 0.99 and 0.99)", None)
    ]


def test_judges_that_contradict_each_other_make_neither_win_nor_upset() -> None:
    votes = [*both("1", "high", "low", judge="a"), *both("1", "low", "high", judge="b")]
    found = find(votes)
    assert not found


def test_no_contestant_and_no_prompt_fills_a_group() -> None:
    votes = [v for n in range(30) for v in both(f"{n % 3}", "high", "low")]
    votes += [v for n in range(30) for v in both(f"{n}", "middle", "low")]
    found = find(votes)
    assert len(found.clear.shown) <= EXAMPLES
    prompts = Counter(example.prompt_id for example in found.clear.shown)
    assert max(prompts.values()) <= PER_PROMPT
    seen = Counter(side for pair in names(found.clear) for side in pair)
    assert max(seen.values()) <= 4


def test_a_tie_and_reasons_are_given_in_the_order_shown() -> None:
    votes = [
        vote("1", "high", "low", "tie", reason="Both look real."),
        vote("1", "low", "high", "first", reason="Its light is right.", probability=0.8),
    ]
    (said,) = find(votes).split.shown[0].said
    assert said.answers == [
        ("tie, with high shown first", "Both look real."),
        ("low, shown first (P(left) = 0.20)", "Its light is right."),
    ]


def test_a_picture_that_has_gone_leaves_its_example(tmp_path: Path) -> None:
    path = tmp_path / "high.png"
    Image.new("RGB", (800, 400), "red").save(path)
    votes = both("1", "high", "low")
    shown = find(votes, {("high", "1"): path, ("low", "1"): tmp_path / "gone.png"}).clear.shown
    left, right = shown[0].sides
    assert left.uri.startswith("data:image/jpeg;base64,")
    assert (left.width, left.height) == (384, 192)
    assert right.uri is None


def test_orders_that_mirror_each_other_are_told_once() -> None:
    votes = [
        vote("1", "high", "low", "first", probability=0.9, reason="0.8 first, 0.1 second"),
        vote("1", "low", "high", "second", probability=1 - 0.9, reason="0.1 first, 0.8 second"),
    ]
    assert find(votes).clear.shown[0].said[0].answers == [
        ("high in both orders (P(left) = 0.90 and 0.90)", "0.8 first, 0.1 second")
    ]
