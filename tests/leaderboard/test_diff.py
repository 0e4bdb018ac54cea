"""What a new entry changes in a board."""

from __future__ import annotations

import html
import shutil
from pathlib import Path

import pytest

from realbench.leaderboard.board import load_board
from realbench.leaderboard.diff import BoardDiff, diff_boards, diff_markdown, diff_text
from realbench.leaderboard.names import slug
from realbench.leaderboard.standings import Standings, rank_board
from realbench.leaderboard.verify import verify_board
from tests.leaderboard.boards import fill_board


def standings(board: Path) -> Standings:
    return rank_board(verify_board(load_board(board)))


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("diff")
    strengths = {"good": 1.0, "bad": -1.5, "best <b>@x</b>": 2.5}
    after = fill_board(root, strengths, photographs=None, arena=False)
    before = Path(shutil.copytree(after, root / "before"))
    (before / "results" / f"{slug('best <b>@x</b>')}.json").unlink()
    return before, after


def test_a_new_leader_moves_the_others_down(states: tuple[Path, Path]) -> None:
    before, after = map(standings, states)
    diff = diff_boards(before, after)
    assert [one.model for one in diff.changes] == ["best <b>@x</b>", "good", "bad"]
    text = diff_text(diff)
    assert "1 new, 2 changed in rank or score; 2 models before, 3 after" in text
    assert "new: best <b>@x</b>: rank 1, realism 0." in text
    assert "good: rank 1 → 2, realism 0." in text
    assert "bad: rank 2 → 3" in text


def test_one_more_that_cannot_be_told_apart_moves_nobody(tmp_path: Path) -> None:
    after = fill_board(tmp_path, dict.fromkeys("abcd", 0.0), photographs=None, arena=False)
    before = Path(shutil.copytree(after, tmp_path / "before"))
    (before / "results" / "d.json").unlink()
    diff = diff_boards(standings(before), standings(after))
    assert [one.model for one in diff.changes] == ["d"]


def test_markdown_shows_names_and_obeys_none(states: tuple[Path, Path]) -> None:
    text = diff_markdown(diff_boards(*map(standings, states)))
    assert "<b>" not in text
    assert "@" not in text
    assert "<code>best <b>@x</b></code>" in html.unescape(text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_the_same_board_has_no_difference(states: tuple[Path, Path]) -> None:
    same = diff_boards(standings(states[0]), standings(states[0]))
    assert same.changes == []
    assert "nothing changed (2 models)" in diff_text(same)
    assert "Nothing changes" in diff_markdown(same)


def test_a_removed_model_is_told(states: tuple[Path, Path]) -> None:
    diff = diff_boards(standings(states[1]), standings(states[0]))
    assert "removed: best <b>@x</b>: rank 1" in diff_text(diff)


def test_it_is_plain_data(states: tuple[Path, Path]) -> None:
    diff = diff_boards(None, standings(states[1]))
    assert BoardDiff.model_validate_json(diff.model_dump_json()) == diff
    assert {one.before for one in diff.changes} == {None}
