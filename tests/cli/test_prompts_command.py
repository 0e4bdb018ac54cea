"""``realbench prompts`` as its users run it, and the suite that a run says it was about."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from realbench.arena.judges import JudgeOptions
from realbench.arena.merging import merge
from realbench.arena.run import arena
from realbench.content import content_path
from realbench.prompts import load_suite
from realbench.scoring.run import score
from tests.cli.commands import error_line, make_images, realbench

CORE_FILE = content_path("prompts") / "suites" / "realbench-core.jsonl"


def test_list_names_the_suites(environment: dict[str, str]) -> None:
    printed = realbench("prompts", "list", environment=environment, process=True).stdout
    listed = json.loads(realbench("prompts", "list", "--json", environment=environment).stdout)
    assert [one["name"] for one in listed] == ["realbench-core", "realbench-mini"]
    for one in listed:
        assert one["name"] in printed
        assert one["sha256"][:12] in printed
        assert one["n_prompts"] == sum(one["categories"].values())


def test_show_prints_what_was_asked_for(environment: dict[str, str]) -> None:
    def show(*options: str) -> list[str]:
        return realbench("prompts", "show", *options, environment=environment).stdout.splitlines()

    core = load_suite("realbench-core")
    whole = show("realbench-core")
    assert whole[0] == "# realbench-core 1.0"
    assert f"# sha256 {core.sha256}" in whole
    assert [line.split("\t")[0] for line in whole if "\t" in line] == list(core.prompts)
    food = [line for line in show("realbench-mini", "--category", "food") if "\t" in line]
    assert [line.split("\t")[0][:5] for line in food] == ["food-"] * 4
    (line,) = [x for x in show("realbench-core", "--id", "food-01", "--long") if "\t" in x]
    assert line == f"food-01\t{core.prompts['food-01'].prompt_long}"
    shown = realbench(
        "prompts", "show", "realbench-mini", environment=environment, process=True
    ).stdout
    assert shown.startswith("# realbench-mini")
    both = [x for x in show("realbench-core", "--tag", "fog", "--tag", "low-light") if "\t" in x]
    expected = [one for one in core.prompts.values() if {"fog", "low-light"} <= set(one.tags)]
    assert len(both) == len(expected) > 0


def test_show_says_what_there_is_not(environment: dict[str, str]) -> None:
    result = realbench("prompts", "show", "core", environment=environment, code=2)
    assert "'core': the suites are realbench-core, realbench-mini" in error_line(result)
    options = ("--category", "cats")
    result = realbench(
        "prompts", "show", "realbench-mini", *options, environment=environment, code=2
    )
    assert "no such prompt; its categories are people, hands" in error_line(result)


def test_export_writes_the_suite_in_three_formats(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    printed = realbench(
        "prompts", "export", "realbench-core", environment=environment, process=True
    ).stdout
    assert printed == CORE_FILE.read_text(encoding="utf-8")
    for ending in ("jsonl", "csv", "txt"):
        out = tmp_path / f"core.{ending}"
        options = ("--long", "--out", out)
        result = realbench("prompts", "export", "realbench-core", *options, environment=environment)
        assert result.stdout == ""
        assert f"324 prompts in {out}" in result.stderr
    expected = [one.prompt_long for one in load_suite("realbench-core").prompts.values()]
    with (tmp_path / "core.csv").open(encoding="utf-8", newline="") as file:
        assert [row["prompt"] for row in csv.DictReader(file)] == expected
    assert (tmp_path / "core.txt").read_text(encoding="utf-8").splitlines() == expected
    exported = load_suite(tmp_path / "core.jsonl")
    assert [one.prompt for one in exported.prompts.values()] == expected


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "missing" / "core.jsonl"
    options = ("--out", out)
    result = realbench(
        "prompts", "export", "realbench-core", *options, environment=environment, code=1
    )
    assert f"cannot write {out}: No such file" in error_line(result)


def test_import_makes_a_suite_of_a_text_file(tmp_path: Path, environment: dict[str, str]) -> None:
    source, out = tmp_path / "theirs.txt", tmp_path / "suite.jsonl"
    source.write_text("a red fox\na portrait\n", encoding="utf-8")
    result = realbench(
        "prompts", "import", source, "--out", out, environment=environment, process=True
    )
    assert "2 prompts in" in result.stderr
    assert "00000: a red fox" in result.stderr
    suite = load_suite(out)
    assert [(one.id, one.prompt) for one in suite.prompts.values()] == [
        ("00000", "a red fox"),
        ("00001", "a portrait"),
    ]
    assert suite.sha256[:12] in result.stderr


def test_import_takes_columns_and_numbers(tmp_path: Path, environment: dict[str, str]) -> None:
    source, out = tmp_path / "theirs.csv", tmp_path / "suite.jsonl"
    source.write_text("id,title,group\na/1,a red fox,animals\n", encoding="utf-8")
    options = ("--prompt-column", "title", "--category-column", "group")
    result = realbench(
        "prompts", "import", source, *options, "--out", out, environment=environment, code=2
    )
    assert "the id 'a/1' cannot be the name of an image's file" in error_line(result)
    assert not out.exists()
    numbers = ("--number", "--start", "1", "--digits", "3")
    realbench(
        "prompts", "import", source, *options, *numbers, "--out", out, environment=environment
    )
    record = {"id": "001", "category": "animals", "prompt": "a red fox"}
    assert json.loads(out.read_text(encoding="utf-8")) == record


def test_import_does_not_overwrite_its_source(tmp_path: Path, environment: dict[str, str]) -> None:
    source = tmp_path / "theirs.txt"
    source.write_text("a red fox\n", encoding="utf-8")
    result = realbench(
        "prompts", "import", source, "--out", source, environment=environment, code=2
    )
    assert "would overwrite" in error_line(result)
    assert source.read_text(encoding="utf-8") == "a red fox\n"


@pytest.mark.parametrize(
    ("package", "source"), [("pyarrow", "theirs.parquet"), ("datasets", "hf:owner/dataset")]
)
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, environment: dict[str, str], package: str, source: str
) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from realbench.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "prompts", "import", source, "--out", "suite.jsonl"],
        env=environment,
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 1
    assert package in error_line(result)
    assert "python -m pip install '.[datasets]' in a checkout" in error_line(result)


@pytest.mark.slow
def test_a_run_carries_its_suite(
    tmp_path: Path, cards: list[str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a command, and from Python, where many runs take less time."""
    monkeypatch.setenv("REALBENCH_CACHE", environment["REALBENCH_CACHE"])
    mini, core = load_suite("realbench-mini"), load_suite("realbench-core")
    ids = list(mini.prompts)[:3]
    a, b = (make_images(tmp_path / name, 3, seed=seed) for seed, name in enumerate("ab"))
    for folder in (a, b):
        for n, name in enumerate(ids):
            (folder / f"{n:04}.png").rename(folder / f"{name}.png")
    (tmp_path / "realbench-mini").mkdir()  # a folder of that name does not get in the way
    options = ("--prompts", "realbench-mini", "--out", "run", "--quiet", *cards)
    realbench("score", "a", "b", *options, environment=environment, cwd=tmp_path)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert manifest["suite"] == mini.describe()
    assert manifest["arguments"]["prompts"] == "realbench-mini"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert not any("prompts file" in note for note in summary["notes"])

    mine = tmp_path / "mine.jsonl"
    mine.write_bytes(CORE_FILE.read_bytes())
    detectors = cards[1::2]
    described = core.describe() | {"name": "mine", "version": None}
    assert score(a, prompts=mine, detectors=detectors).manifest["suite"] == described
    assert score(a, detectors=detectors).manifest["suite"] is None
    judges = JudgeOptions(detectors=tuple(detectors))
    runs = [tmp_path / name for name in ("arena", "other", "mine")]
    for run, prompts in zip(runs, ("realbench-mini", "realbench-mini", mine), strict=True):
        result = arena(a, b, prompts=prompts, out=run, options=judges)
        assert result.prompts == {name: core.prompts[name].prompt for name in ids}
    manifests = [json.loads((run / "run.json").read_text(encoding="utf-8")) for run in runs]
    suites = [manifest["suite"] for manifest in manifests]
    assert suites == [mini.describe(), mini.describe(), described]
    assert merge(runs[:2], tmp_path / "same").run.manifest["suite"] == mini.describe()
    assert merge(runs, tmp_path / "mixed").run.manifest["suite"] is None
