"""The board that comes with the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from realbench.leaderboard.board import load_board
from realbench.leaderboard.build import build_board
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
    assert (len(verified.entries), len(verified.anchors)) == (46, 3)


def test_its_tables_are_built_and_its_images_are_not_there(tmp_path: Path) -> None:
    copy = tmp_path / BOARD.name
    shutil.copytree(BOARD, copy)
    assert build_board(copy) == []
    assert {one.suffix for one in BOARD.rglob("*") if one.is_file()} <= {
        ".csv", ".html", ".json", ".jsonl", ".md", ".tex", ".toml"
    }  # fmt: skip


def test_each_model_is_scored_by_the_fold_of_its_photographs(verified: Verified) -> None:
    def fold(prints: list[str]) -> int:
        (found,) = {
            one.fingerprints.index(p)
            for one in verified.board.settings.detectors
            for p in prints
            if p in one.fingerprints
        }
        return found

    counts = [0, 0, 0]
    for entry in verified.entries.values():
        assert entry.detector_scoring is not None
        counts[fold([d.fingerprint for d in entry.detector_scoring.detectors])] += 1
    assert counts == [19, 12, 15]
    for name, anchor in verified.anchors.items():
        assert anchor.detector_scoring is not None
        found = fold([d.fingerprint for d in anchor.detector_scoring.detectors])
        assert name == f"photographs-fold-{found}"


def test_its_ranking_is_sane(standings: Standings) -> None:
    rows = standings.rows
    assert rows[-1].name == "kandinsky-3", "broken output is last"
    assert min(rows, key=lambda row: row.values["arena"].mean).name == "kandinsky-3"
    best = max(row.values["realism"].mean for row in rows)
    assert all(anchor.values["realism"].mean > best for anchor in standings.anchors)
    assert all(row.values["auc"].mean > 0.5 for row in rows)
