"""Few votes of people on top of many cheap ones."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realbench.arena.anchored import anchored
from realbench.arena.bradley_terry import POINTS, bradley_terry
from realbench.arena.exchange import import_votes
from realbench.arena.ratings import rate
from realbench.arena.records import Anchored
from realbench.arena.results import ArenaRun, rate_run
from realbench.arena.tally import tally
from realbench.arena.votes import Comparison
from realbench.errors import UsageError
from tests.cli.commands import realbench
from tests.pages import Page

STRENGTHS = np.array([-0.6, -0.2, 0.2, 0.6])
NAMES = ["m0", "m1", "m2", "m3"]


def simulate(
    seed: int, prompts: int, labelled: int, agrees: float, favors: float = 0.0
) -> tuple[list[Comparison], list[Comparison]]:
    """People's comparisons on the first prompts, and a judge's on all.

    Args:
        agrees: The chance that the judge says what a person says; 0.5 is useless.
        favors: The chance that it names m0, whatever it sees, where m0 takes part.
    """
    rng = np.random.default_rng(seed)
    people, cheap = [], []
    for prompt in (f"p{n:03}" for n in range(prompts)):
        for a, b in combinations(range(4), 2):
            won = float(rng.random() < 1 / (1 + np.exp(STRENGTHS[b] - STRENGTHS[a])))
            said = won if rng.random() < agrees else 1 - won
            if a == 0 and rng.random() < favors:
                said = 1.0
            cheap.append(Comparison("judge", prompt, NAMES[a], NAMES[b], said, None))
            if len(people) < 6 * labelled:
                people.append(Comparison("human", prompt, NAMES[a], NAMES[b], won, None))
    return people, cheap


def brought(seed: int, *args: Any, resamples: int = 400) -> Anchored:
    people, cheap = simulate(seed, *args)
    found = anchored(people, cheap, NAMES, anchor="human", resamples=resamples, seed=seed)
    assert not isinstance(found, str)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agrees", "favors"), [(0.5, 0.0), (0.8, 0.0), (0.9, 0.0), (1.0, 0.0), (0.8, 0.7)]
)
def test_intervals_cover_peoples_scale_whatever_the_judge(agrees: float, favors: float) -> None:
    truth = dict(zip(NAMES, STRENGTHS * POINTS + 1000, strict=True))
    covered, worth = [], []
    for seed in range(150):
        found = brought(seed, 120, 40, agrees, favors)
        for row in found["ratings"]:
            one = row["bradley_terry"]
            assert one["low"] is not None
            assert one["high"] is not None
            covered.append(one["low"] <= truth[row["contestant"]] <= one["high"])
        assert found["worth"] is not None
        worth.append(found["worth"] / found["n_anchor"])
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(worth) >= 1.0  # never worse than people alone


@pytest.mark.slow
def test_how_far_few_human_votes_go() -> None:
    # One less the squared correlation of the votes is the least share that prediction-powered
    # inference can come to: 0.64 for a judge that agrees on 80 %, and 0.19 on 95 %.
    for agrees, least, most in ((0.8, 0.64, 0.85), (0.95, 0.19, 0.4)):
        share = [
            found["n_anchor"] / found["worth"]
            for found in (brought(seed, 400, 30, agrees) for seed in range(12))
            if found["worth"]
        ]
        assert least - 0.03 < np.mean(share) < most


def test_a_perfect_judge_stands_for_people_and_a_useless_one_changes_nothing() -> None:
    people, cheap = simulate(1, 80, 30, 1.0)
    found = anchored(people, cheap, NAMES, anchor="human", resamples=60, seed=0)
    assert not isinstance(found, str)
    assert found["power"] == pytest.approx(1, abs=0.05)
    assert (found["n_anchor"], found["n_cheap"]) == (180, 480)
    assert found["worth"] is not None
    assert found["worth"] > 360
    every = bradley_terry(tally(cheap, NAMES))
    for row in found["ratings"]:
        own = every[NAMES.index(row["contestant"])]
        assert row["bradley_terry"]["estimate"] == pytest.approx(own, abs=5)
    useless = brought(2, 80, 30, 0.5, resamples=60)
    assert useless["power"] is not None
    assert useless["power"] < 0.3
    alone = bradley_terry(tally(simulate(2, 80, 30, 0.5)[0], NAMES))
    for row in useless["ratings"]:
        own = alone[NAMES.index(row["contestant"])]
        assert row["alone"]["estimate"] == pytest.approx(own)
        assert row["bradley_terry"]["estimate"] == pytest.approx(own, abs=15)


def test_what_cannot_be_anchored_is_said() -> None:
    people, cheap = simulate(0, 10, 2, 0.8)
    one = [each for each in people if each.prompt_id == "p000"]
    text = anchored(one, cheap, NAMES, anchor="human", resamples=10, seed=0)
    assert text == "human: fewer than two prompts with comparisons that other judges made, too"
    without = [each for each in people if "m3" not in (each.a, each.b)]
    text = anchored(without, cheap, NAMES, anchor="human", resamples=10, seed=0)
    assert text == "human: its comparisons do not link all that the other judges' link"


@pytest.mark.slow
def test_a_run_is_anchored_and_stays_so(tmp_path: Path) -> None:
    people, cheap = simulate(3, 40, 15, 0.9)
    lines = ["model_a,model_b,winner,judge,prompt_id"]
    for one in (*people, *cheap):
        lines.append(f"{one.a},{one.b},{one.a if one.score else one.b},{one.judge},{one.prompt_id}")
    (tmp_path / "votes.csv").write_text("\n".join(lines))
    import_votes(tmp_path / "votes.csv", tmp_path / "run", resamples=50)
    with pytest.raises(UsageError, match=r"the anchor 'ana' needs votes of its own.*human, judge"):
        rate_run(tmp_path / "run", anchor="ana")
    run = rate_run(tmp_path / "run", anchor="human")
    found = run.ratings["anchored"]
    assert found is not None
    assert (found["anchor"], found["n_anchor"], found["n_cheap"]) == ("human", 90, 240)
    shown = realbench("arena", "rate", tmp_path / "run", environment={"COLUMNS": "100"})
    assert "on the scale of people: 90 comparisons" in " ".join(shown.stdout.split())
    again = ArenaRun.read(tmp_path / "run")
    assert again.ratings["anchored"] == found
    text = Page((tmp_path / "run" / "report.html").read_text("utf-8")).text
    assert "On the scale of people" in text
    assert "90 comparisons of people on the same pairs correct them" in text


def test_without_an_anchor_there_is_none() -> None:
    comparisons = [Comparison("x", "p", "a", "b", 1.0, None)]
    assert rate(comparisons, ["a", "b"], resamples=2)["anchored"] is None
