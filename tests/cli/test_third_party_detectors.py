"""The two ways to add a detector, as docs/detectors.md shows them, from files to scores."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import make_images, realbench
from tests.detection.plugin_packages import make_package
from tests.fakes import make_card

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my-detector"

pytestmark = pytest.mark.skipif(not EXAMPLE.is_dir(), reason="needs a checkout: no examples/")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed by pip from a copy (a build leaves files beside its source)."""
    root = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, root / "my-detector")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--target", str(root / "site"), str(root / "my-detector")),
        ],
        check=True,
        capture_output=True,
    )
    return root / "site"


@pytest.fixture
def with_example(site: Path, environment: dict[str, str]) -> dict[str, str]:
    return environment | {"PYTHONPATH": str(site), "COLUMNS": "160"}


@pytest.mark.slow
def test_a_package_and_a_card_folder_score_together(
    tmp_path: Path, with_example: dict[str, str]
) -> None:
    card = make_card(tmp_path, "my-card")
    images = make_images(tmp_path / "images", 4, size=200)
    out = tmp_path / "run"
    realbench(
        *("score", images, "--detector", "high-frequency", "--detector", card, "--out", out),
        environment=with_example,
        process=True,
    )
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:  # noise has more fine detail than any photograph
        assert 0.6 < float(row["high-frequency"]) <= 1
        assert 0 <= float(row["my-card"]) <= 1
    about = json.loads((out / "run.json").read_text())["detectors"][0]
    assert about["name"] == "high-frequency"
    assert about["weights_sha256"] is None
    assert "high-frequency" in (out / "report.html").read_text()


@pytest.mark.slow
def test_list_show_and_arena_know_it_and_a_broken_one_is_a_line(
    site: Path, tmp_path: Path, with_example: dict[str, str]
) -> None:
    others = tmp_path / "others"
    make_package(others, "trace-lite", package="evil")
    make_package(others, "torn", card=None)
    both = with_example | {"PYTHONPATH": f"{site}{os.pathsep}{others}"}
    run = {"environment": both, "process": True}
    listed = realbench("detectors", "list", **run)
    assert "high-frequency" in listed.stdout
    assert "none needed" in listed.stdout
    warnings = [line for line in listed.stderr.splitlines() if line]
    assert [line.split(" of ")[0] for line in warnings] == [
        "warning: plug-in 'trace-lite'",
        "warning: plug-in 'torn'",
    ]
    shown = realbench("detectors", "show", "high-frequency", **run).stdout
    assert "cutoff = 0.25" in shown
    assert "# fingerprint " in shown
    a, b = make_images(tmp_path / "a", 3), make_images(tmp_path / "b", 3, seed=1)
    out = tmp_path / "arena"
    realbench("arena", a, b, "--detector", "high-frequency", "--out", out, **run)
    votes = [json.loads(line) for line in (out / "votes.jsonl").read_text().splitlines()]
    assert len(votes) == 6
    assert all("high-frequency 0." in vote["reason"] for vote in votes)
