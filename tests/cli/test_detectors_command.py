"""``realbench detectors`` as its users run it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import error_line, make_images, realbench


def test_bench_prints_writes_and_warns(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    real, fake = (
        make_images(tmp_path / "real", 6),
        make_images(tmp_path / "fake", 6, seed=1, size=120),
    )
    arguments = ("detectors", "bench", "--reference", real, "--generated", fake, *cards)
    out = tmp_path / "run"
    shown = realbench(*arguments, "--out", out, environment=environment, process=True)
    assert shown.stderr.startswith("warning: photographs and generated images can be told apart")
    for text in ("AUC", "whole", "crops", "ensemble", "fake", "images/s", "correlate by"):
        assert text in shown.stdout
    assert {one.name for one in out.iterdir()} == {
        *("bench.csv", "bench.json", "scores.csv", "report.html")
    }
    again = realbench(*arguments, "--matched", "--json", environment=environment)
    assert not again.stderr
    results = json.loads(again.stdout)
    assert results["matched"]
    assert results["shortcuts"]["size"]["exploitable"]
    assert len(results["results"]) == 3


def test_bench_says_what_is_wrong(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    real = make_images(tmp_path / "real", 2)
    missing = realbench(
        *("detectors", "bench", "--reference", real, "--generated", tmp_path / "none", *cards),
        environment=environment,
        code=2,
    )
    assert "no such folder" in error_line(missing)
