"""The board that comes with the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from realbench.leaderboard.board import load_board
from realbench.leaderboard.page import build_board
from realbench.leaderboard.standings import Standings, rank_board
from realbench.leaderboard.verify import Verified, verify_board

BOARD = Path(__file__).parents[2] / "leaderboards" / "gallery-5"


@pytest.fixture(scope="module")
def verified() -> Verified:
    return verify_board(load_board(BOARD))


@pytest.fixture(scope="module")
def standings(verified: Verified) -> Standings:
    return rank_board(verified)


def test_it_verifies(verified: Verified) -> None:
    assert verified.violations == []
    assert (len(verified.entries), len(verified.anchors)) == (46, 1)


@pytest.mark.slow
def test_its_tables_are_built_and_its_images_are_not_there(tmp_path: Path) -> None:
    copy = tmp_path / BOARD.name
    shutil.copytree(BOARD, copy)
    assert build_board(copy) == []
    assert {one.suffix for one in BOARD.rglob("*") if one.is_file()} <= {
        ".csv", ".html", ".json", ".jsonl", ".md", ".tex", ".toml"
    }  # fmt: skip


def test_everything_is_scored_by_the_fold_that_holds_it_out(verified: Verified) -> None:
    ((semantic,), (trace,)) = (one.fingerprints for one in verified.board.settings.detectors)
    for entry in (*verified.entries.values(), *verified.anchors.values()):
        assert entry.detector_scoring is not None
        assert [d.fingerprint for d in entry.detector_scoring.detectors] == [semantic, trace]
    (anchor,) = verified.anchors.values()
    assert anchor.detector_scoring is not None
    assert len(anchor.detector_scoring.images) == 105


@pytest.mark.slow
def test_its_ranking_is_sane(standings: Standings) -> None:
    rows = standings.rows
    means = [row.values["realism"].mean for row in rows]
    assert means == sorted(means, reverse=True), "by the mean, though one is surely worse than one"
    assert {row.rank for row in rows} == {1}, "five prompts tell no two apart"
    assert rows[-1].name == "kandinsky-3", "broken output is last"
    assert min(rows, key=lambda row: row.values["arena"].mean).name == "kandinsky-3"
    best = max(row.values["realism"].mean for row in rows)
    assert all(anchor.values["realism"].mean > best for anchor in standings.anchors)
    (anchor,) = standings.anchors
    rating = max(row.values["arena"].mean for row in rows)
    assert anchor.values["arena"].mean > rating, "photographs are on top"
    assert all(row.values["auc"].mean > 0.5 for row in rows)
