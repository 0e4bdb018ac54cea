"""What the wheel holds: one package, with its content and templates, and nothing by accident."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 60e6  # bytes of the embedded detectors (45) and of the features (15)
FEATURES = "realbench/_content/features/"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / "pyproject.toml").is_file(), reason="needs a checkout: no pyproject.toml"
    ),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel from a copy of what git tracks, as a release is."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("needs a git checkout: git ls-files failed")
    copy = tmp_path_factory.mktemp("source")
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    build = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(out), str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    (path,) = out.glob("*.whl")
    assert path.name.startswith("realgen-")
    return zipfile.ZipFile(path)


def test_realbench_is_the_only_package(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"realbench"}
    assert len(tops) == 2


@pytest.mark.parametrize(
    "name",
    [
        "realbench/scoring/report.html",
        "realbench/distances/section.html",
        "realbench/arena/report/report.html",
        "realbench/arena/report/arena.css",
        "realbench/arena/page/static/index.html",
        "realbench/_content/prompts/judges/photorealism-v1.toml",
        "realbench/_content/prompts/suites/realbench-core.jsonl",
        "realbench/_content/sets/demo/predictions.csv",
        "realbench/_content/sets/realgen-photographs/set.toml",
        "realbench/report/templates/pieces.html",
        "realbench/report/templates/report.css",
        "realbench/detection/training/templates/record.md.j2",
    ],
)
def test_templates_are_inside(wheel: zipfile.ZipFile, name: str) -> None:
    assert wheel.getinfo(name).file_size > 100


@pytest.mark.parametrize("detector", ["semantic-lite", "trace-lite"])
@pytest.mark.parametrize(
    "name", ["card.toml", "weights.safetensors", "README.md", "recipe.toml", "record.json"]
)
def test_detectors_are_inside(wheel: zipfile.ZipFile, detector: str, name: str) -> None:
    path = f"realbench/_content/detectors/{detector}/{name}"
    assert wheel.getinfo(path).file_size > 100


def test_prompts_are_inside(wheel: zipfile.ZipFile) -> None:
    assert [name for name in wheel.namelist() if name.startswith("realbench/_content/prompts/")]


def test_the_detectors_are_inside_and_within_their_budget(wheel: zipfile.ZipFile) -> None:
    content = [i for i in wheel.infolist() if i.filename.startswith("realbench/_content/detectors")]
    # The two judges of realgen-train demo know nothing but its model's pictures: a budget apart.
    demo = [i for i in content if "/small-photo-" in i.filename]
    embedded = [i for i in content if i not in demo]
    weights = [i for i in embedded if i.filename.endswith(".safetensors")]
    assert len(weights) == 2
    # A transformer that a detector shares with the distances lies among the features.
    features = [i for i in wheel.infolist() if i.filename.startswith(FEATURES)]
    assert [i for i in features if i.filename.endswith("dinov2-small/weights.safetensors")]
    assert sum(i.file_size for i in [*embedded, *features]) <= BUDGET
    assert len([i for i in demo if i.filename.endswith(".safetensors")]) == 2
    assert sum(i.file_size for i in demo) <= 10e6


def test_the_small_model_is_inside_and_within_its_budget(wheel: zipfile.ZipFile) -> None:
    content = [i for i in wheel.infolist() if i.filename.startswith("realbench/_content/models")]
    assert len([i for i in content if i.filename.endswith(".safetensors")]) == 2
    assert sum(i.file_size for i in content) <= 15e6


def test_every_tracked_module_is_inside(wheel: zipfile.ZipFile) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "realbench"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    present = {name for name in tracked if (ROOT / name).is_file()}
    assert present <= set(wheel.namelist())


def test_the_metadata_say_name_licence_and_command(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(info).decode())
    assert metadata["Name"] == "realgen"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    folder = info.rsplit("/", 1)[0]
    assert b"realbench = realbench.cli:main" in wheel.read(f"{folder}/entry_points.txt")
    assert any(name.startswith(folder) and "LICENSE" in name for name in wheel.namelist())


def test_the_installed_wheel_finds_its_content(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        "import realbench; from realbench.content import content_path; "
        "print(realbench.__file__); print(content_path('detectors')); "
        "from realbench import list_detectors; print(*list_detectors())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    package, detectors, names = result.stdout.splitlines()
    assert Path(package).is_relative_to(tmp_path)
    assert Path(detectors) == tmp_path / "realbench" / "_content" / "detectors"
    assert {"semantic-lite", "trace-lite"} <= set(names.split())
