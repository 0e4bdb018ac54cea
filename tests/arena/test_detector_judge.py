"""The ``detectors`` judge: its verdicts follow the scores, and each picture is scored once."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from PIL import Image

from realbench.arena.contestants import Lineup, line_up
from realbench.arena.judges import JudgeOptions, make_judge
from realbench.arena.judges.detectors import DetectorJudge
from realbench.arena.judges.judge import Judge, Judgment, Showing
from realbench.errors import RealBenchError, UsageError
from realbench.scoring.run import score
from tests.conftest import FolderMaker
from tests.fakes import make_card

MARGIN = 0.0005  # random weights hardly tell small pictures apart


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JudgeOptions:
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))
    first = make_card(tmp_path / "cards", "whole", level="semantic", seed=1)
    second = make_card(tmp_path / "cards", "crops", level="feature", seed=2)
    return JudgeOptions(detectors=(first, second), device="cpu", margin=MARGIN)


def every_showing(lineup: Lineup) -> list[Showing]:
    return [
        lineup.showing(prompt, a, b)
        for prompt in lineup.prompts
        for a, b in permutations(lineup.contestants, 2)
    ]


def judged(judge: DetectorJudge, showings: list[Showing]) -> list[Judgment]:
    pairs = list(judge.judge(iter(showings)))
    assert [showing for showing, _ in pairs] == showings
    assert all(judgment.seconds > 0 for _, judgment in pairs)
    return [replace(judgment, seconds=0.0) for _, judgment in pairs]


def test_verdicts_are_those_of_the_scores_that_score_gives(
    make_folder: FolderMaker, options: JudgeOptions
) -> None:
    folders = [make_folder(name, 4) for name in ("a", "b", "c")]
    shutil.copy(folders[0] / "0000.jpg", folders[1] / "0000.jpg")
    showings = every_showing(line_up(folders))
    table = score(*folders, detectors=options.detectors, device="cpu").table
    logits = {
        (row["folder"], row["prompt_id"]): math.log(row["realism"] / (1 - row["realism"]))
        for _, row in table.iterrows()
    }
    answers = judged(DetectorJudge(options), showings)
    verdicts = set()
    for showing, answer in zip(showings, answers, strict=True):
        one, two = (
            logits[p.contestant, showing.prompt_id] for p in (showing.first, showing.second)
        )
        difference = one - two
        assert answer.probability == pytest.approx(1 / (1 + math.exp(-difference)), abs=1e-6)
        if abs(abs(difference) - MARGIN) > 1e-6:  # the table's realism is a float32
            expected = (
                "tie" if abs(difference) < MARGIN else "first" if difference > 0 else "second"
            )
            assert answer.verdict == expected
        assert answer.reason is not None
        assert "whole" in answer.reason
        verdicts.add(answer.verdict)
    assert verdicts == {"first", "second", "tie"}


def test_both_orders_agree_and_there_are_no_cycles(
    make_folder: FolderMaker, options: JudgeOptions
) -> None:
    showings = every_showing(line_up([make_folder(name, 3) for name in ("a", "b", "c")]))
    answers = dict(zip(showings, judged(DetectorJudge(options), showings), strict=True))
    opposite = {"first": "second", "second": "first", "tie": "tie"}
    for showing, answer in answers.items():
        back = answers[showing.swapped()]
        assert back.verdict == opposite[answer.verdict]
        assert back.probability == pytest.approx(1 - (answer.probability or 0), abs=1e-6)


def test_a_wide_margin_makes_ties_of_everything(
    make_folder: FolderMaker, options: JudgeOptions
) -> None:
    showings = every_showing(line_up([make_folder("a", 2), make_folder("b", 2)]))
    wide = JudgeOptions(detectors=options.detectors, device="cpu", margin=1e6)
    assert {one.verdict for one in judged(DetectorJudge(wide), showings)} == {"tie"}
    assert DetectorJudge(wide).fingerprint != DetectorJudge(options).fingerprint
    assert DetectorJudge(options).fingerprint == DetectorJudge(options).fingerprint
    one_detector = JudgeOptions(detectors=options.detectors[:1], margin=MARGIN)
    assert DetectorJudge(one_detector).fingerprint != DetectorJudge(options).fingerprint


def test_images_beyond_the_limit_are_no_votes_and_weights_are_of_its_detectors(
    make_folder: FolderMaker, options: JudgeOptions
) -> None:
    showings = every_showing(line_up([make_folder("a", 1), make_folder("b", 1)]))
    small = replace(options, max_pixels=64 * 48 - 1, workers=1)
    assert {one.verdict for one in judged(DetectorJudge(small), showings)} == {"invalid"}
    with pytest.raises(UsageError, match="--weights names 'another'"):
        DetectorJudge(replace(options, weights={"another": {}}))


def test_a_rerun_loads_no_detector(
    make_folder: FolderMaker, options: JudgeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    showings = every_showing(line_up([make_folder("a", 2), make_folder("b", 2)]))
    first = judged(DetectorJudge(options), showings)

    def refuse(*_: object) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr("realbench.scoring.engine.load_detector", refuse)
    assert judged(DetectorJudge(options), showings) == first


def test_a_picture_that_changes_or_goes_away_is_no_vote(
    make_folder: FolderMaker, options: JudgeOptions
) -> None:
    a, b = make_folder("a", 2), make_folder("b", 2)
    lineup = line_up([a, b])
    Image.new("RGB", (64, 64), "red").save(a / "0000.jpg")
    (b / "0001.jpg").unlink()
    answers = judged(DetectorJudge(options), every_showing(lineup))
    assert {one.verdict for one in answers} == {"invalid"}
    assert {one.raw for one in answers} == {
        "a: the file has changed",
        "b: no such file (removed, or a link to nothing)",
    }


def test_it_pulls_no_more_showings_than_it_needs(
    make_folder: FolderMaker, options: JudgeOptions
) -> None:
    showing = every_showing(line_up([make_folder("a", 1), make_folder("b", 1)]))[0]
    pulled = 0

    def endless() -> object:
        nonlocal pulled
        while True:
            pulled += 1
            yield showing

    answers = DetectorJudge(options).judge(endless())  # type: ignore[arg-type]
    next(answers)
    answers.close()
    assert pulled <= 256


def test_what_the_manifest_says_of_it(options: JudgeOptions) -> None:
    judge = make_judge("detectors", options)
    assert isinstance(judge, Judge)
    assert (judge.name, judge.orders, judge.is_vlm) == ("detectors", 2, False)
    about = json.loads(json.dumps(judge.describe()))
    assert about["margin"] == MARGIN
    assert [one["name"] for one in about["detectors"]] == ["whole", "crops"]
    assert len(judge.fingerprint) == 64


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("detectors", JudgeOptions(margin=-1), "margin"),
        ("detectors", JudgeOptions(margin=math.nan), "margin"),
        ("detectors", JudgeOptions(detectors=("no-such",)), "no detector 'no-such'"),
        ("detector", JudgeOptions(), "choose among detectors, openai:MODEL, hf:MODEL, human"),
        ("detectors:x", JudgeOptions(), "choose among"),
        ("human:", JudgeOptions(), "choose among"),
        ("", JudgeOptions(), "choose among"),
        ("openai", JudgeOptions(), "give openai:MODEL"),
        ("hf: ", JudgeOptions(), "give hf:MODEL"),
    ],
)
def test_a_judge_that_cannot_be_is_a_usage_error(
    spec: str, options: JudgeOptions, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make_judge(spec, options)


def test_a_device_that_is_not_there_is_one_line(
    make_folder: FolderMaker, options: JudgeOptions
) -> None:
    showings = every_showing(line_up([make_folder("a", 1), make_folder("b", 1)]))
    elsewhere = JudgeOptions(detectors=options.detectors, device="quantum")
    with pytest.raises(RealBenchError, match="quantum"):
        judged(DetectorJudge(elsewhere), showings)


# --- Cross-fitting -----------------------------------------------------------------------------


def folds_file(path: Path, folds: dict[str, list[Path]]) -> Path:
    """Write a fold of each contestant's own."""
    path.write_text(
        "".join(
            f"[[fold]]\ndetectors = {json.dumps([str(card) for card in cards])}\n"
            f"contestants = {json.dumps([name])}\n"
            for name, cards in folds.items()
        )
    )
    return path


@pytest.fixture
def folds(tmp_path: Path, options: JudgeOptions) -> dict[str, list[Path]]:
    other = make_card(tmp_path / "other", "whole", level="semantic", seed=7)
    first, second = (Path(one) for one in options.detectors)
    return {"a": [first, second], "b": [other, second]}


def test_each_contestant_is_judged_by_its_fold(
    make_folder: FolderMaker, options: JudgeOptions, folds: dict[str, list[Path]], tmp_path: Path
) -> None:
    showings = every_showing(line_up([make_folder("a", 3), make_folder("b", 3)]))
    path = folds_file(tmp_path / "folds.toml", folds)
    judge = DetectorJudge(replace(options, detectors=(), cross_fit=path))
    answers = judged(judge, showings)
    logits = {}
    for name, cards in folds.items():
        table = score(showings[0].first.path.parents[1] / name, detectors=cards).table
        for _, row in table.iterrows():
            logits[name, row["prompt_id"]] = math.log(row["realism"] / (1 - row["realism"]))
    for showing, answer in zip(showings, answers, strict=True):
        first, second = (
            logits[one.contestant, showing.prompt_id] for one in (showing.first, showing.second)
        )
        assert answer.probability == pytest.approx(1 / (1 + math.exp(second - first)), abs=1e-5)
    plain = judged(DetectorJudge(options), showings)
    assert [one.probability for one in plain] != [one.probability for one in answers]


def test_the_fingerprint_is_of_all_folds_and_who_is_in_them(
    options: JudgeOptions, folds: dict[str, list[Path]], tmp_path: Path
) -> None:
    def fingerprint(of: dict[str, list[Path]]) -> str:
        path = folds_file(tmp_path / "folds.toml", of)
        return DetectorJudge(replace(options, detectors=(), cross_fit=path)).fingerprint

    once = fingerprint(folds)
    assert fingerprint(dict(reversed(folds.items()))) == once
    assert fingerprint({"a": folds["b"], "b": folds["a"]}) != once
    assert fingerprint({"a": folds["a"], "c": folds["b"]}) != once
    assert DetectorJudge(options).fingerprint != once


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[fold]]\ncontestants = ['a']\n", "fold[0].detectors: is missing"),
        ("[[fold]]\ndetectors = []\ncontestants = ['a']\n", "fold[0].detectors"),
        ("fold = [", "is no TOML"),
        ("", "fold: is missing"),
        (2 * "[[fold]]\ndetectors = ['trace-lite']\ncontestants = ['a']\n", "a is in two folds"),
        (
            "[[fold]]\ndetectors = ['trace-lite']\ncontestants = ['a']\n"
            "[[fold]]\ndetectors = ['semantic-lite']\ncontestants = ['b']\n",
            "different detectors",
        ),
        ("[[fold]]\ndetectors = ['nobody']\ncontestants = ['a']\n", "nobody"),
    ],
)
def test_folds_that_cannot_be_used_are_one_line(
    options: JudgeOptions, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "folds.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        DetectorJudge(replace(options, detectors=(), cross_fit=path))
    assert "\n" not in str(caught.value)


def test_folds_and_detectors_exclude_each_other(
    options: JudgeOptions, folds: dict[str, list[Path]], tmp_path: Path
) -> None:
    path = folds_file(tmp_path / "folds.toml", folds)
    with pytest.raises(UsageError, match="exclude each other"):
        DetectorJudge(replace(options, cross_fit=path))


def test_a_contestant_without_a_fold_is_named(
    make_folder: FolderMaker, options: JudgeOptions, folds: dict[str, list[Path]], tmp_path: Path
) -> None:
    showings = every_showing(line_up([make_folder("a", 1), make_folder("c", 1)]))
    path = folds_file(tmp_path / "folds.toml", folds)
    judge = DetectorJudge(replace(options, detectors=(), cross_fit=path))
    with pytest.raises(UsageError, match="c is in no fold"):
        list(judge.judge(iter(showings)))
