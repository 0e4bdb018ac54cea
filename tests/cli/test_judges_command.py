"""``realbench judges bench``, ``arena import`` and ``arena export`` as their users run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import error_line, make_images, realbench


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a RUN that arena wrote; or --reference, --generated and --out"),
        (["--reference", "p", "--generated", "g"], "name a RUN"),
        (["run", "--judge", "detectors"], "RUN has its judges and pictures"),
        (["nowhere"], "no such folder: nowhere"),
    ],
)
def test_misuse(arguments: list[str], message: str, environment: dict[str, str]) -> None:
    result = realbench("judges", "bench", *arguments, environment=environment, code=2)
    assert message in error_line(result)


@pytest.mark.slow
def test_judges_of_an_imported_run_are_measured(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    votes = tmp_path / "votes.csv"
    votes.write_text(
        "model_a,model_b,winner,judge,prompt_id\n"
        "x,y,model_a,human:ana,p1\nx,y,model_a,vlm,p1\nx,y,tie,human:ana,p2\nx,y,y,vlm,p2\n"
    )
    run = tmp_path / "run"
    realbench("arena", "import", votes, "--out", run, environment=environment)
    shown = realbench("arena", "export", run, "--format", "evalica", environment=environment)
    assert shown.stdout.splitlines()[:2] == [
        "left,right,winner,judge,prompt_id",
        "x,y,left,human:ana,p1",
    ]
    shown = realbench("judges", "bench", run, environment=environment)
    text = " ".join(shown.stdout.split())
    assert "vlm says what a person says of 50" in text
    assert "of 2 pairs 0 have a photograph, 2 have votes of people" in text
    assert (run / "judges.html").exists()
    assert json.loads((run / "judges.json").read_bytes())["people"]["n"] == 0


@pytest.mark.slow
def test_detectors_are_asked(tmp_path: Path, cards: list[str], environment: dict[str, str]) -> None:
    folders = [make_images(tmp_path / name, 3, seed=n) for n, name in enumerate(("g", "photos"))]
    arguments = ["--generated", folders[0], "--reference", folders[1], "--out", tmp_path / "out"]
    found = json.loads(
        realbench("judges", "bench", *arguments, *cards, "--json", environment=environment).stdout
    )
    (judge,) = found["judges"]
    assert (judge["judge"], judge["n_votes"], judge["accuracy"]["n"]) == ("detectors", 6, 3)
    assert judge["seconds"]["estimate"] > 0
    assert judge["first_share"]["estimate"] is None  # which detectors cannot have
