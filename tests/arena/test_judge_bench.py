"""Judges measured against the truth and against people."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from realbench.arena.judge_bench import (
    MEASURES,
    JudgeBench,
    JudgeMeasures,
    ask_judges,
    measure_judges,
    write_judge_bench,
)
from realbench.arena.judges.judge import Verdict
from realbench.arena.report.judges import headline
from realbench.arena.results import ArenaRun
from realbench.arena.run import arena
from realbench.arena.votes import Vote
from realbench.errors import RealBenchError, UsageError
from tests.arena.arenas import NOW
from tests.arena.judges import ByName
from tests.pages import Page


def vote(
    judge: str, prompt: str, shown: str, verdict: Verdict, p: float | None = None, **told: Any
) -> Vote:
    """Return a vote on two contestants, each named by a letter."""
    return Vote(
        id=f"{judge} {prompt} {shown}",
        judge=judge,
        judge_fingerprint="f" * 64,
        prompt_id=prompt,
        first=shown[0],
        second=shown[1],
        first_sha256="",
        second_sha256="",
        verdict=verdict,
        probability=p,
        time=NOW,
        **told,
    )


def run_of(votes: Sequence[Vote], *, reference: str | None = "r", orders: int = 1) -> ArenaRun:
    judges = dict.fromkeys(one.judge for one in votes)
    manifest: Any = {
        "judges": {name: {"fingerprint": "f" * 64, "orders": orders} for name in judges},
        "notes": ["a note"],
        "argv": ["realbench", "arena"],
    }
    ratings: Any = {}
    return ArenaRun(ratings, list(votes), manifest, {}, {}, ["a", "r"], reference, None)


def of(found: JudgeBench, judge: str) -> JudgeMeasures:
    return next(one for one in found["judges"] if one["judge"] == judge)


def test_every_measure_by_hand() -> None:
    # r is the photograph. The judge prefers it in two of four, ties once, and refuses once.
    votes = [
        vote("vlm", "p1", "ra", "first", 0.9, seconds=2.0, usage={"cost": 0.1}),
        vote("vlm", "p2", "ar", "second", 0.2, seconds=4.0, usage={"cost": 0.3}),
        vote("vlm", "p3", "ra", "second", 0.3),
        vote("vlm", "p4", "ra", "tie", 0.5),
        vote("vlm", "p5", "ra", "invalid"),
        vote("human:ana", "p1", "ra", "first"),
        vote("human:ben", "p1", "ra", "first"),
        vote("human:ana", "p2", "ra", "first"),
        vote("human:ben", "p2", "ra", "second"),
        vote("human:ana", "p3", "ra", "first"),
    ]
    found = measure_judges(run_of(votes))
    one = of(found, "vlm")
    expected = {
        "accuracy": (2.5 / 4, 4),  # a tie is one half
        "with_people": ((1 + 0.5 + 0) / 3, 3),  # p1: both, p2: one of two, p3: not
        "first_share": (1 / 3, 3),
        "brier": ((0.1**2 + 0.2**2 + 0.7**2 + 0.5**2) / 4, 4),
        # Bins of one vote each: how far the probability is from what came of it.
        "calibration_error": ((0.1 + 0.2 + 0.7 + 0.5) / 4, 4),
        "ties": (0.25, 4),
        "refusals": (0.2, 5),
        "seconds": (3.0, 2),
        "cost": (0.2, 2),
    }
    for name, (value, n) in expected.items():
        measured = one[name]  # type: ignore[literal-required]
        assert measured["estimate"] == pytest.approx(value), name
        assert measured["n"] == n, name
        assert measured["low"] <= value <= measured["high"], name
    assert one["inconsistent_share"]["estimate"] is None  # asked in one order
    assert (found["people"]["estimate"], found["people"]["n"]) == (0.5, 2)
    ana = of(found, "human:ana")
    assert (ana["is_human"], ana["with_people"]["n"]) == (True, 2)  # with ben alone
    assert ana["with_people"]["estimate"] == 0.5
    assert headline(found) == (
        "vlm says what a person says of 50\N{NARROW NO-BREAK SPACE}% of pairs, people of one "
        "another 50\N{NARROW NO-BREAK SPACE}%"
    )


def test_without_photographs_people_are_what_there_is() -> None:
    votes = [
        vote("human", "p1", "ab", "first"),
        vote("human", "p2", "ab", "second"),
        vote("vlm", "p1", "ba", "second", 0.25),
        vote("vlm", "p2", "ba", "second", 0.25),
    ]
    found = measure_judges(run_of(votes, reference=None))
    one = of(found, "vlm")
    assert one["accuracy"]["estimate"] is None
    assert one["with_people"]["estimate"] == 0.5
    assert one["brier"]["estimate"] == pytest.approx((0.25**2 + 0.75**2) / 2)
    with pytest.raises(RealBenchError, match="neither photographs nor votes of people"):
        measure_judges(run_of(votes[2:], reference=None))


def test_a_crowd_agrees_with_itself_but_is_not_held_against_itself() -> None:
    votes = [vote("human", "p1", shown, "first") for shown in ("ab", "ba")]
    votes += [vote("vlm", "p1", "ab", "first")]
    found = measure_judges(run_of(votes, reference=None, orders=0))
    assert found["people"]["estimate"] == 0.0
    assert of(found, "human")["with_people"]["n"] == 0
    assert of(found, "vlm")["with_people"]["estimate"] == 0.5


class ByBrightness(ByName):
    """Prefers the brighter picture, and so the other one once it is turned dark."""

    def _answer(self, showing: Any) -> Any:
        light = [np.asarray(Image.open(one.path)).mean() for one in (showing.first, showing.second)]
        judgment = super()._answer(showing)
        verdict = "first" if light[0] > light[1] else "second"
        return type(judgment)(verdict, probability=0.8 if verdict == "first" else 0.2)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))
    for n, name in enumerate(("one", "two", "photos")):
        (tmp_path / name).mkdir()
        for prompt in range(3):
            # Photographs are the brighter ones, and have names of their own.
            shade = (60 * n + 20 * prompt, 9 * prompt, 60 * n)
            stem = f"p{prompt}" if name != "photos" else f"photo-{prompt}"
            Image.new("RGB", (16, 16), shade).save(tmp_path / name / f"{stem}.png")
    return tmp_path


@pytest.mark.slow
def test_judges_are_asked_about_photographs_alone_and_again_about_changed_pictures(
    pictures: Path,
) -> None:
    judge = ByBrightness("bright")

    def ask() -> JudgeBench:
        run, changed = ask_judges(
            [pictures / "one", pictures / "two"],
            pictures / "photos",
            judge=judge,
            out=pictures / "out",
            robust=True,
            sample=4,
        )
        return measure_judges(run, changed=changed)

    found = ask()
    assert len(judge.asked) == 2 * 6 + 2 * (2 * 4)
    assert all("photos" in (s.first.contestant, s.second.contestant) for s in judge.asked)
    one = of(found, "bright")
    assert (one["accuracy"]["n"], one["n_votes"]) == (6, 12)
    assert one["inconsistent_share"]["estimate"] == 0.0
    right = one["accuracy"]["estimate"]
    assert right is not None
    assert right > 0.8
    assert {each["change"] for each in found["robustness"]} == {"JPEG 70", "half scale"}
    for each in found["robustness"]:
        assert (each["same"]["estimate"], each["same"]["n"]) == (1.0, 4)
    ask()
    assert len(judge.asked) == 28  # nothing is asked twice
    page = write_judge_bench(found, pictures / "out")
    rows = list(csv.DictReader((pictures / "out" / "judges.csv").open()))
    assert {row["measure"] for row in rows} >= set(MEASURES)
    text = Page(page.read_text("utf-8")).text
    for expected in ("Photograph preferred", "half scale", "Orders disagree", "n = 12"):
        assert expected in text


def test_the_schedule_needs_photographs(pictures: Path) -> None:
    with pytest.raises(UsageError, match="schedule reference needs photographs"):
        arena(pictures / "one", pictures / "two", schedule="reference", judge=ByName())
