"""The demo: its pictures, and the command as a newcomer runs it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from realbench import rendering
from realbench.demo import make_demo_folders
from realbench.errors import RealBenchError, UsageError
from realbench.images import find_images, read_image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_demo_folders(tmp_path_factory.mktemp("demo"))


def test_the_photographs_are_those_of_a_dependency(pictures: tuple[Path, Path]) -> None:
    files = find_images(pictures[0])
    assert [file.image for file in files] == ["china.jpg", "flower.jpg"]
    from sklearn.datasets import load_sample_image

    assert np.array_equal(read_image(files[0].path), load_sample_image("china.jpg"))


def test_the_renders_are_pictures_that_differ(pictures: tuple[Path, Path]) -> None:
    files = find_images(pictures[1])
    images = [read_image(file.path) for file in files]
    assert len(images) == 6
    assert {image.shape for image in images} == {(768, 768, 3)}
    assert len({hashlib.sha256(image.tobytes()).digest() for image in images}) == 6
    for image in images:
        assert image.std() > 15, "a scene, not a flat color"


@pytest.mark.parametrize("scene", [rendering.spheres, rendering.mountains])
def test_a_scene_depends_on_its_seed_alone(scene: object) -> None:
    first, again, other = (scene(96, seed) for seed in (3, 3, 4))  # type: ignore[operator]
    assert first.dtype == np.uint8
    assert first.shape == (96, 96, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_pictures_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    renders = tmp_path / "renders"
    renders.mkdir()
    mine = renders / "spheres-0.png"
    mine.write_bytes(b"mine")
    make_demo_folders(tmp_path)
    assert mine.read_bytes() == b"mine"


def test_a_place_that_cannot_hold_them_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RealBenchError, match=str(blocked)):
        make_demo_folders(blocked)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UsageError, match="has other files in it"):
        make_demo_folders(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.slow
def test_the_command_scores_and_reports_with_the_bundled_detectors(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from realbench.cli import main; main()", "demo"]
    result = subprocess.run(
        [*command, "--out", str(tmp_path / "demo")],
        env=os.environ | {"REALBENCH_CACHE": str(tmp_path / "cache"), "COLUMNS": "100"},
        text=True,
        capture_output=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "too few images" in result.stdout
    assert "report.html" in result.stdout
    run = tmp_path / "demo" / "run"
    assert {path.name for path in run.iterdir()} == {
        "scores.csv",
        "summary.json",
        "run.json",
        "report.html",
    }
    with (run / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok"] * 8
    summary = json.loads((run / "summary.json").read_text())
    (renders,) = summary["folders"]
    assert summary["reference"]["realism"]["estimate"] > renders["realism"]["estimate"]
    assert renders["auc"]["estimate"] > 0.5
