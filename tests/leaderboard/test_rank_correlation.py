"""The rank correlation of a board's two scores."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats as scipy_stats

from realbench.leaderboard.board import load_board
from realbench.leaderboard.standings import Standings, rank_board
from realbench.leaderboard.tables import readme
from realbench.leaderboard.verify import verify_board
from tests.leaderboard.boards import fill_board


def standings(board: Path) -> Standings:
    return rank_board(verify_board(load_board(board)))


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Standings:
    strengths = {f"model {letter}": 0.8 * n for n, letter in enumerate("abcdefgh")}
    return standings(fill_board(tmp_path_factory.mktemp("apart"), strengths))


def test_it_is_that_of_the_tables_columns(apart: Standings) -> None:
    found = apart.agreement
    assert found is not None
    columns = [[row.values[key].mean for row in apart.rows] for key in ("realism", "arena")]
    rho = scipy_stats.spearmanr(*columns).statistic
    tau = scipy_stats.kendalltau(*columns).statistic
    assert (found.spearman.mean, found.kendall.mean) == pytest.approx((rho, tau), abs=5e-4)
    assert found.spearman.n == 8
    assert found.spearman.n_prompts == 12


def test_its_interval_holds_it_and_is_of_some_width(apart: Standings) -> None:
    assert apart.agreement is not None
    for one in (apart.agreement.spearman, apart.agreement.kendall):
        assert one.low is not None
        assert one.high is not None
        assert -1 <= one.low < one.mean <= one.high <= 1


def test_models_that_are_alike_leave_it_open(tmp_path: Path) -> None:
    alike = standings(fill_board(tmp_path, dict.fromkeys("abcdefgh", 0.0)))
    assert alike.agreement is not None
    assert alike.agreement.kendall.low is not None
    assert alike.agreement.kendall.low < 0.2


def test_the_readme_says_it(apart: Standings) -> None:
    assert apart.agreement is not None
    text = readme(apart)
    assert "The order of the 8 models" in text
    assert f"rank correlation {apart.agreement.spearman.mean:.2f} (" in text


def test_few_models_or_one_score_have_none(tmp_path: Path) -> None:
    few = fill_board(tmp_path / "few", {"a": 1.0, "b": 0.0})
    one = fill_board(tmp_path / "one", dict.fromkeys("abcdefgh", 0.0), arena=False)
    for board in (few, one):
        found = standings(board)
        assert found.agreement is None
        assert "rank correlation" not in readme(found)
