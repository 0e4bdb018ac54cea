"""Tables of figures on narrow terminals: all of it is there, and no number is broken."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from realbench.cli.arena_table import by_judge, print_arena, ranking
from realbench.cli.bench import _measures, _worst
from realbench.cli.terminal import folded, print_table
from realbench.stats.classification import MEASURES
from tests.arena.arenas import TestJudge, make_arena

NAMES = ["photos", "black-forest-labs/flux.1-krea-dev", "stable_diffusion_3.5_medium"]
JUDGES = [TestJudge(name) for name in ("openai:gpt-x-of-last-summer", "hf:org/other-vl-model")]


def printed(table: Table, width: int, names: int = 1) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_table(console, table, names=names)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def assert_whole(table: Table, width: int, names: int) -> None:
    """Every figure stands whole in a line, and every column has its header."""
    lines = printed(table, width, names)
    assert all(len(line) <= width for line in lines)
    shown = "\n".join(lines)
    for column in table.columns[names:]:
        assert all(line in shown for cell in column.cells for line in str(cell).split("\n"))
        for word in str(column.header).split():
            assert word in shown or folded(word, 11).split("\n")[0] in shown


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    strengths = dict(zip(NAMES, (9.0, 0.0, -9.0), strict=True))  # intervals are wide
    folder = tmp_path_factory.mktemp("arena")
    return make_arena(folder, strengths, reference="photos", judges=JUDGES, n_prompts=6).ratings


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_column_of_the_arena_is_cropped(width: int, ratings: dict[str, Any]) -> None:
    assert_whole(ranking(ratings["combined"], "photos"), width, names=2)
    assert_whole(by_judge(ratings, ratings["combined"]), width, names=1)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_column_of_a_benchmark_is_cropped(width: int) -> None:
    figure = {"estimate": 0.5, "low": 0.25, "high": 0.75}
    entry = {"detector": "semantic-lite", "generator": NAMES[1], "n_real": 1100, "n_generated": 46}
    results = {"matched": True, "results": [entry | dict.fromkeys(MEASURES, figure)]}
    assert_whole(_measures(results), width, names=2)
    kinds = [("none", "none"), ("jpeg", "quality 30"), ("noise", "σ 10 of 255"), ("crop", "to 25%")]
    degraded = [
        entry | {"generator": None, "perturbation": kind, "label": label, "auc": figure}
        for kind, label in kinds
    ]
    assert_whole(_worst({"generated": [1, 2], "robustness": degraded}), width, names=1)


def test_names_of_a_strangers_run_do_not_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    names = ["a\n::error::b", "c\x1b[2J"]
    run = make_arena(tmp_path, dict.fromkeys(names, 0.0), judges=JUDGES, n_prompts=4)
    run.manifest["notes"].append("d\n::error::e")
    print_arena(run)
    shown = capsys.readouterr().out
    assert "a\\x0a::error::b" in shown
    assert "\x1b" not in shown
    assert not [line for line in shown.splitlines() if line.strip().startswith("::")]


def test_where_one_table_is_too_wide_several_repeat_the_names() -> None:
    table = Table("name", *"abcdef", padding=0)
    table.add_row("model", *["0.25–0.75"] * 6)
    assert sum("model" in line for line in printed(table, 80)) == 1
    narrow = [line for line in printed(table, 50) if "model" in line]
    assert [line.count("0.25–0.75") for line in narrow] == [3, 3]


def test_names_break_where_their_parts_meet() -> None:
    assert folded("semantic-lite", 10) == "semantic-\nlite"
    assert folded("sdxl-base-v10-vaefix", 11) == "sdxl-base-\nv10-vaefix"
    assert folded("a-withoutanybreak", 8) == "a-withou\ntanybrea\nk"
    assert folded("short\nphotographs", 11) == "short\nphotographs"
