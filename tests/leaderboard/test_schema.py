"""The format of an entry's file: what is read, what is refused, and what is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from realbench.leaderboard.schema import (
    EntryError,
    entry_bytes,
    json_schema,
    parse_entry,
)
from tests.leaderboard.boards import fill_board

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    board = fill_board(tmp_path_factory.mktemp("schema"), {"good": 1.0, "bad": -1.0})
    return json.loads((board / "results" / "good.json").read_bytes())


def parse(record: object) -> Any:
    return parse_entry(json.dumps(record).encode())


def test_a_file_is_read_and_written_the_same(record: dict[str, Any]) -> None:
    data = entry_bytes(parse(record))
    assert json.loads(data) == record
    assert entry_bytes(parse_entry(data)) == data
    rows = [line for line in data.decode().splitlines() if line.strip().startswith('["0')]
    assert len(rows) == len(record["detector_scoring"]["images"])  # a line an image


def test_the_published_schema_is_current() -> None:
    published = ROOT / "leaderboards" / "schema.json"
    if not ROOT.joinpath("pyproject.toml").is_file():
        pytest.skip("needs a checkout")
    hint = "run: realbench leaderboard schema > leaderboards/schema.json"
    assert published.read_bytes() == json_schema(), hint


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model.name", "a\u202eb", "model.name: has the invisible character U+202E"),
        ("model.name", "x" * 101, "model.name"),
        ("model.link", "javascript:alert(1)", "model.link: is no plain https address"),
        ("model.link", 'https://x.org/"><script>', "model.link"),
        ("model.link", "https://user:pass@x.org/", "model.link"),
        ("model.parameters", "many", "model.parameters"),
        ("model.date", "2025-13-01", "model.date"),
        ("model.parameters", "\u0661\u0662B", "model.parameters"),
        ("model.parameters", "\uff11B", "model.parameters"),
        ("model.date", "\u0662026-01", "model.date"),
        ("model.version", "\uff11.0", "model.version: has the digit U+FF11"),
        ("model.name", "Model \u0663", "model.name: has the digit U+0663"),
        ("model.link", "https://x.org:\u0664\u0664/", "model.link"),
        ("detector_scoring.n_failed", 10**30, "detector_scoring.n_failed"),
        ("detector_scoring.n_failed", 10**9, "detector_scoring.n_failed"),
        ("arena_scoring.wins", 10**30, "arena_scoring.wins"),
        ("sampler", {"steps": 10**30}, "sampler.steps"),
        ("sampler", {"name": "\uff12x"}, "sampler.name"),
        ("model.homepage", "x", "model.homepage: extra inputs"),
        ("detector_scoring.realism.mean", "0.5", "detector_scoring.realism.mean"),
        ("detector_scoring.realism.n", 1.5, "detector_scoring.realism.n"),
        ("detector_scoring.images", [], "detector_scoring.images"),
        ("detector_scoring.images", [["1", "0" * 16, 1.5, [0.1]]], "less than or equal to 1"),
        ("sampler", {"steps": ["28"]}, "sampler.steps"),
        ("arena_scoring.opponents", {"x": "WX"}, "arena_scoring.opponents"),
        ("format", "1", "format is no number"),
        ("format", True, "format is no number"),
        ("format", 2, "format 2 cannot be read"),
    ],
)
def test_what_is_wrong_is_named(
    record: dict[str, Any], path: str, value: object, said: str
) -> None:
    changed = json.loads(json.dumps(record))
    *parents, last = path.split(".")
    place = changed
    for part in parents:
        place = place[part]
    place[last] = value
    with pytest.raises(EntryError) as caught:
        parse(changed)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems
    assert all(problem.count("\n") == 0 for problem in caught.value.problems)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"format": NaN}', b"[" * 100_000, b'{"a": 1, "a": 2}'],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(EntryError, match=r"JSON|nested|format"):
        parse_entry(data)


def test_an_entry_needs_scores(record: dict[str, Any]) -> None:
    empty = {**record, "detector_scoring": None, "arena_scoring": None}
    with pytest.raises(EntryError, match="neither"):
        parse(empty)


def test_another_format_is_refused(record: dict[str, Any]) -> None:
    for other in (-1, 0, 2):
        with pytest.raises(EntryError, match=f"format {other} cannot be read"):
            parse(record | {"format": other})
