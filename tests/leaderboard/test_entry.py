"""Runs that cannot become entries, and what contributors say of a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from realbench.errors import RealBenchError, UsageError
from realbench.leaderboard.entry import parse_meta, start_board
from tests.leaderboard.boards import (
    enter,
    make_board,
    write_arena_run,
    write_score_run,
    write_suite,
)

SUMMARY = json.dumps(
    {
        "schema_version": 1,
        "folders": [],
        "pairs": [],
        "reference": None,
        "confidence": 0.95,
        "notes": [],
    }
)


def test_settings_of_the_sampler_keep_their_kind() -> None:
    model, sampler = parse_meta(
        [
            "version=1.0",
            "licence=MIT",
            "sampler.steps=28",
            "sampler.cfg=3.5",
            "sampler.name=euler=a",
        ]
    )
    assert model == {"version": "1.0", "licence": "MIT"}
    assert sampler == {"steps": 28, "cfg": 3.5, "name": "euler=a"}
    assert type(sampler["steps"]) is int


@pytest.mark.parametrize("pair", ["steps=28", "version", "=x", "version=", "sampler.=1"])
def test_other_keys_are_a_mistake(pair: str) -> None:
    with pytest.raises(UsageError, match="--meta"):
        parse_meta([pair])
    with pytest.raises(UsageError, match="twice"):
        parse_meta(["date=2025", "date=2026"])


def _suite(run: Path) -> None:
    path = run / "run.json"
    manifest = json.loads(path.read_bytes())
    path.write_text(json.dumps(manifest | {"suite": {"name": "other", "sha256": "0" * 64}}))


def _column(run: Path) -> None:
    path = run / "scores.csv"
    path.write_text(path.read_text().replace("realism", "reelism"))


def _number(run: Path) -> None:
    path = run / "scores.csv"
    path.write_text(path.read_text().replace(",ok,,0.", ",ok,,high"))


def _failures(run: Path) -> None:
    path = run / "scores.csv"
    path.write_text(path.read_text().replace(",ok,", ",unreadable,"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_suite, "run with other prompts"),
        (_column, "is damaged"),
        (_number, "is damaged"),
        (_failures, "no image of the model has a score"),
        (lambda run: (run / "run.json").write_text("{"), "is damaged"),
        (lambda run: (run / "run.json").write_text("[]"), "is damaged"),
        (lambda run: (run / "scores.csv").unlink(), "has no scores.csv"),
    ],
)
def test_a_damaged_run_is_one_line(
    tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    board = make_board(tmp_path / "board")
    run = write_score_run(tmp_path / "run", {"a": 1.0})
    damage(run)
    with pytest.raises(RealBenchError, match=said) as caught:
        enter(board, [run], "a")
    assert str(run) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_image_is_counted(tmp_path: Path) -> None:
    board = make_board(tmp_path / "board", judge=False)
    run = write_score_run(tmp_path / "run", {"a": 1.0})
    path = run / "scores.csv"
    lines = path.read_text().splitlines()
    lines[1] = "a,000-0.png,000,,unreadable,truncated,,,,"
    path.write_text("\n".join(lines) + "\n")
    entry = json.loads(enter(board, [run], "a").read_bytes())
    assert entry["detector_scoring"]["n_failed"] == 1
    assert entry["detector_scoring"]["realism"]["n"] == 11


def test_a_board_takes_what_it_ranks(tmp_path: Path) -> None:
    board = make_board(tmp_path / "board", judge=False)
    run = write_arena_run(tmp_path / "arena", {"a": 1.0, "b": 0.0})
    with pytest.raises(UsageError, match="has the judges detectors, but the board takes none"):
        enter(board, [run], "a")


def test_a_board_is_started_with_the_runs_own_prompts(tmp_path: Path) -> None:
    run = write_score_run(tmp_path / "run", {"a": 1.0})
    (run / "summary.json").write_text(SUMMARY)
    suite = str(write_suite(tmp_path / "suite.jsonl"))
    board = start_board(tmp_path / "board", [run], suite=suite, title='A "quoted" \\ title')
    assert board.settings.title == 'A "quoted" \\ title'
    assert board.settings.suite.min_prompts == 11
    _suite(run)
    with pytest.raises(RealBenchError, match="other prompts"):
        start_board(tmp_path / "other", [run], suite=suite, title="x")
    assert not (tmp_path / "other").exists()


def test_a_board_is_not_started_from_a_run_without_its_prompts(tmp_path: Path) -> None:
    run = write_score_run(tmp_path / "run", {"a": 1.0})
    (run / "summary.json").write_text(SUMMARY)
    suite = tmp_path / "other.jsonl"
    suite.write_text('{"id": "castle", "prompt": "A castle."}\n')
    with pytest.raises(UsageError, match=r"no image of a prompt of .*such as castle\.png"):
        start_board(tmp_path / "board", [run], suite=str(suite), title="x")
    assert not (tmp_path / "board").exists()
