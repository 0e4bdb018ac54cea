"""The built tables: ranks that the data allow, texts that stay texts, the same every time."""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench import stats
from realbench.leaderboard.board import load_board
from realbench.leaderboard.entry import start_board
from realbench.leaderboard.figures import code, latex, markdown
from realbench.leaderboard.page import build_board, build_site
from realbench.leaderboard.standings import Standings, rank_board
from realbench.leaderboard.tables import table_csv, table_tex
from realbench.leaderboard.verify import verify_board
from realbench.text import visible
from tests.leaderboard.boards import (
    enter,
    fill_board,
    write_arena_run,
    write_score_run,
    write_suite,
)

NAMES = {
    "strong": 2.4,
    "twin one": 0.5,
    "twin two": 0.45,
    "=HYPERLINK(1)": -0.9,
    "<img src=x onerror=alert(1)>": -1.6,
    "a|b`c*d_e [x](https://evil.example) @you": -2.4,
    r"\input{/etc/passwd} $x$ 100% #1 & ~^": -3.2,
}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    meta = {"strong": {"organisation": "Smith & <b>Co</b>", "link": "https://example.org/a"}}
    return fill_board(tmp_path_factory.mktemp("tables"), NAMES, meta=meta)


@pytest.fixture(scope="module")
def standings(board: Path) -> Standings:
    return rank_board(verify_board(load_board(board)))


def test_entries_that_the_data_cannot_separate_share_a_rank(standings: Standings) -> None:
    ranks = {row.name: (row.rank, row.rank_high) for row in standings.rows}
    assert ranks["strong"] == (1, 1)
    assert ranks["twin one"] == ranks["twin two"] == (2, 3)
    assert [row.name for row in standings.anchors] == ["Photographs"]
    one, two = (
        next(row.entry.detector_scoring for row in standings.rows if row.name == name)
        for name in ("twin one", "twin two")
    )
    assert one is not None
    assert two is not None
    result = stats.paired_difference(
        *([image[2] for image in each.images] for each in (one, two)),
        *([image[0] for image in each.images] for each in (one, two)),
    )
    assert result.p_value > 0.05  # the reason


def test_arena_ratings_come_from_all_entries(standings: Standings) -> None:
    ratings = {row.name: row.values["arena"] for row in [*standings.anchors, *standings.rows]}
    assert max(ratings, key=lambda name: ratings[name].mean) == "Photographs"
    order = [row.name for row in standings.rows]
    assert sorted(order, key=lambda name: -ratings[name].mean)[0] == "strong"
    # 7 opponents on 12 prompts, each comparison once though two entries tell it.
    assert {one.n for one in ratings.values()} == {7 * 12}
    assert sum(one.mean for one in ratings.values()) / len(ratings) == pytest.approx(1000)


def test_building_twice_changes_nothing(board: Path) -> None:
    names = {path.name for path in build_board(board)}
    assert names == {"README.md", "leaderboard.csv", "leaderboard.tex", "index.html"}
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in board.iterdir()
        if path.is_file()
    }
    assert build_board(board) == []
    after = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in board.iterdir()
        if path.is_file()
    }
    assert after == before


def test_the_order_of_files_does_not_matter(board: Path, tmp_path: Path) -> None:
    build_board(board)
    copy = tmp_path / "copy"
    (copy / "results").mkdir(parents=True)
    (copy / "anchors").mkdir()
    for path in sorted(board.rglob("*"), reverse=True):
        kept = path.suffix in (".json", ".toml", ".jsonl")
        if path.is_file() and kept:
            (copy / path.relative_to(board)).write_bytes(path.read_bytes())
    build_board(copy)
    for name in ("README.md", "leaderboard.csv", "leaderboard.tex", "index.html"):
        assert (copy / name).read_bytes() == (board / name).read_bytes()


def test_a_spreadsheet_finds_no_formula(standings: Standings) -> None:
    rows = list(csv.DictReader(table_csv(standings).decode().splitlines()))
    assert len(rows) == 8
    names = [row["model"] for row in rows]
    assert "'=HYPERLINK(1)" in names
    assert not [name for name in names if name[0] in "=+-@"]
    assert rows[0]["rank"] == ""
    assert float(rows[1]["realism_low"]) < float(rows[1]["realism"])


def test_the_page_has_no_markup_of_names(board: Path) -> None:
    build_board(board)
    page = (board / "index.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "Smith &amp; &lt;b&gt;Co" in page
    assert page.count("<script") == 1


def test_markdown_has_no_markup_of_names(board: Path) -> None:
    build_board(board)
    text = (board / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows[:10]}) == 1  # no name splits a row
    assert "<img" not in text
    assert "](https://evil" not in text
    for name in NAMES:
        assert any(html.unescape(line).find(f"**{name}**") >= 0 for line in rows)


LATEX_COMMANDS = {
    "textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar",
    "textasciigrave", "scriptsize", "toprule", "midrule", "bottomrule", "begin", "end",
}  # fmt: skip


def test_latex_has_no_commands_of_names(standings: Standings) -> None:
    text = table_tex(standings)
    assert set(re.findall(r"\\([a-zA-Z]+)", text.split("\n", 1)[1])) <= LATEX_COMMANDS
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in rows}) == 1
    assert len(rows) == 9


@given(st.text(max_size=60))
def test_latex_leaves_no_special_character(name: str) -> None:
    shown = latex(name)
    commands = re.findall(r"\\([a-zA-Z]+)\{\}", shown)
    assert set(commands) <= LATEX_COMMANDS
    rest = re.sub(r"\\[a-zA-Z]+\{\}|\\[{}$&#%_]|\{\[\}|\{\]\}|\{''\}|\$-\$", "", shown)
    assert not set(rest) & set('\\{}$&#%_^~<>|"`[]\n\r')


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=60))
def test_markdown_leaves_no_syntax_and_loses_nothing(name: str) -> None:
    for shown in (markdown(name), code(name).removeprefix("<code>").removesuffix("</code>")):
        assert html.unescape(shown) == re.sub(r"\s+", " ", visible(name))
        assert not set(re.sub(r"&#\d+;", "", shown)) & set("*_`[]<>|\\&!#@:~$\n\r")


def test_addresses_do_not_become_links() -> None:
    assert "://" not in markdown("see https://evil.example")
    assert "www." not in markdown("www.evil.example WWW.evil.example").lower()
    assert "@" not in markdown("@octocat")
    assert markdown("FLUX.1-dev (v1.0)") == "FLUX.1-dev (v1.0)"


def test_a_site_has_every_board_and_a_list(board: Path, tmp_path: Path) -> None:
    build_board(board)
    build_site([board], tmp_path / "site")
    assert (tmp_path / "site/board/index.html").read_bytes() == (board / "index.html").read_bytes()
    assert '<a href="board/">Test board</a>' in (tmp_path / "site/index.html").read_text()
    assert (tmp_path / "site/board/results/strong.json").is_file()


def test_a_board_without_entries_is_built(tmp_path: Path) -> None:
    board = fill_board(tmp_path, {}, photographs=None, arena=False)
    build_board(board)
    assert "No model has been entered yet" in (board / "index.html").read_text()
    assert rank_board(verify_board(load_board(board))).rows == []


def test_a_board_ranked_by_arena_needs_no_detectors(tmp_path: Path) -> None:
    strengths = {"best": 3.0, "middle": 0.0, "worst": -3.0}
    run = write_arena_run(tmp_path / "arena", strengths)
    made = start_board(
        tmp_path / "board", [run], suite=str(write_suite(tmp_path / "s.jsonl")), title="Arena"
    )
    assert made.settings.rank_by == "arena"
    for name in strengths:
        enter(made.path, [run], name)
    verified = verify_board(made)
    assert verified.violations == []
    rows = rank_board(verified).rows
    assert [row.name for row in rows] == ["best", "middle", "worst"]
    assert [row.rank for row in rows] == [1, 2, 3]
    build_board(made.path)
    assert "best leads 3 models" in (made.path / "index.html").read_text()


def test_boards_over_different_prompts_are_compared_on_the_shared_ones(tmp_path: Path) -> None:
    """The same model on half of the prompts is no other model."""
    board = fill_board(tmp_path, {"whole": 0.5}, photographs=None, arena=False, least=6)
    few = write_score_run(tmp_path / "few", {"half": 0.5}, n_prompts=6)
    enter(board, [few], "half")
    rows = rank_board(verify_board(load_board(board))).rows
    assert {(row.rank, row.rank_high) for row in rows} == {(1, 2)}
