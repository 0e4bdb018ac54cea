"""From images to a leaderboard with the commands alone, on real runs of tiny detectors."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from realbench.leaderboard.board import load_board
from realbench.leaderboard.entry import Description, make_entry, start_board, write_entry
from realbench.leaderboard.page import build_board
from realbench.leaderboard.verify import verify_board
from tests.cli.commands import error_line, make_images, realbench
from tests.fakes import make_card

N_PROMPTS = 6


@dataclass(frozen=True)
class Project:
    root: Path
    board: Path
    score: Path
    arena: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Real runs of ``score`` and ``arena`` over two models and photographs, and an empty board."""
    import os

    root = tmp_path_factory.mktemp("project")
    settings = os.environ | {
        "REALBENCH_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "100"
    }  # fmt: skip
    found = [
        part
        for name, level, seed in (("whole", "semantic", 1), ("crops", "feature", 2))
        for part in ("--detector", make_card(root / "cards", name, level=level, seed=seed))
    ]
    models = [make_images(root / name, N_PROMPTS, seed=n) for n, name in enumerate("ab")]
    photos = make_images(root / "photos", N_PROMPTS, seed=9)
    suite = root / "day-and-night.jsonl"
    lines = [
        json.dumps({"id": f"{n:04}", "prompt": f"A photo {n}", "category": ["day", "night"][n % 2]})
        for n in range(N_PROMPTS)
    ]
    suite.write_text("\n".join(lines))
    score, arena, board = root / "score", root / "arena", root / "board"
    shared = ["--reference", photos, "--prompts", suite]
    realbench("score", *models, *shared, *found, "--out", score, "-q", environment=settings)
    realbench("arena", *models, *shared, *found, "--out", arena, "-q", environment=settings)
    title = ["--title", 'Two "models"', "--prompts", suite, "--min-prompts", 4]
    new = ("leaderboard", "new", board, score, arena, *title)
    realbench(*new, environment=settings, process=True)
    return Project(root, board, score, arena, settings)


def _add(
    project: Project, board: Path, *arguments: object, code: int = 0, process: bool = False
) -> object:
    return realbench(
        *("leaderboard", "add", project.score, project.arena, "--board", board, *arguments),
        environment=project.environment,
        code=code,
        process=process,
    )


def test_from_images_to_a_board(project: Project, tmp_path: Path) -> None:
    board = Path(shutil.copytree(project.board, tmp_path / "board"))
    run = {"environment": project.environment, "process": True}
    _add(project, board, "--model", "photos", "--anchor", process=True)
    meta = ["version=1", "organisation=A Lab", "licence=MIT", "parameters=2B", "date=2026-01"]
    meta += ["link=https://example.org/a", "sampler.steps=28", "sampler.name=euler"]
    _add(project, board, "--model", "Model A", "--folder", "a",
         *(part for one in meta for part in ("--meta", one)))  # fmt: skip
    before = Path(shutil.copytree(board, tmp_path / "before"))
    _add(project, board, "--model", "Model B", "--folder", "b")

    entry = json.loads((board / "results" / "model-a.json").read_bytes())
    summary = json.loads((project.score / "summary.json").read_bytes())
    folder = next(one for one in summary["folders"] if one["folder"] == "a")
    scores = entry["detector_scoring"]
    for part in ("mean", "low", "high", "n"):  # the run's own figures, recomputed from its table
        own = "estimate" if part == "mean" else part
        assert scores["realism"][part] == pytest.approx(folder["realism"][own], abs=2e-6)
        assert scores["escape_rate"][part] == pytest.approx(folder["escape_rate"][own], abs=2e-6)
        night = folder["categories"]["night"][own]
        assert scores["categories"]["night"][part] == pytest.approx(night, abs=2e-6)
    ratings = json.loads((project.arena / "ratings.json").read_bytes())
    row = next(one for one in ratings["judges"]["detectors"]["ratings"] if one["contestant"] == "a")
    arena = entry["arena_scoring"]
    assert [arena[key] for key in ("wins", "ties", "losses")] == [
        row[key] for key in ("wins", "ties", "losses")
    ]
    assert arena["win_rate"]["mean"] == pytest.approx(row["win_rate"]["estimate"], abs=1e-6)
    assert set(arena["opponents"]) == {"b", "photos"}
    assert entry["sampler"] == {"steps": 28, "name": "euler"}
    assert entry["model"]["organisation"] == "A Lab"

    said = realbench("leaderboard", "verify", board, **run)
    assert said.stdout == f"{board}: 2 entries, no violation\n"
    built = realbench("leaderboard", "build", board, "--site", tmp_path / "site", **run)
    assert "wrote README.md, leaderboard.csv, leaderboard.tex, index.html" in built.stdout
    here = {"environment": project.environment}
    assert "nothing to change" in realbench("leaderboard", "build", board, **here).stdout
    machine = realbench("leaderboard", "build", board, "--json", **here).stdout
    assert json.loads(machine) == {"written": {str(board): []}, "site": None}
    for name in ("build", "verify"):
        assert realbench("leaderboard", name, board, "--quiet", **here).stdout == ""
    assert (tmp_path / "site" / "board" / "index.html").is_file()
    changed = realbench("leaderboard", "diff", before, board, **run).stdout
    assert "new: Model B: rank" in changed
    text = realbench("leaderboard", "diff", before, board, "--markdown", **here).stdout
    assert "| new | <code>Model B</code> |" in text


def test_an_entry_of_a_fused_ensemble_carries_its_weights(project: Project, tmp_path: Path) -> None:
    (tmp_path / "ensembles.toml").write_text(
        '[mine]\ndetectors = ["./cards/whole", "./cards/crops"]\nweights = [0.25, 1.5]\n'
        "bias = -0.125\n"
    )
    (tmp_path / "cards").symlink_to(project.root / "cards")
    suite = project.root / "day-and-night.jsonl"
    models = [project.root / name for name in "ab"]
    realbench(
        *("score", *models, "--prompts", suite, "--detector", "ensemble:mine", "--out", "run"),
        environment=project.environment,
        cwd=tmp_path,
    )
    run, board = tmp_path / "run", tmp_path / "board"
    start_board(board, [run], suite=str(suite), title="Fused")
    write_entry(
        make_entry([run], load_board(board), Description({"name": "a"})), board / "results/a.json"
    )
    assert verify_board(load_board(board)).violations == []
    build_board(board)
    assert "crops, weight 1.5, offset " in (board / "README.md").read_text()
    assert "fitted (<code>realbench detectors fuse</code>)" in (board / "index.html").read_text()

    record = json.loads((board / "results" / "a.json").read_bytes())
    record["detector_scoring"]["detectors"][1]["fused"]["weight"] = 1.0
    (board / "results" / "a.json").write_text(json.dumps(record))
    told = verify_board(load_board(board)).violations
    assert "crops: weight 1 and offset" in told[0]
    assert "does not follow from its detectors' scores" in told[1]


def test_a_violation_is_a_line_and_exit_code_1(project: Project, tmp_path: Path) -> None:
    board = Path(shutil.copytree(project.board, tmp_path / "board"))
    _add(project, board, "--model", "photos", "--anchor")
    _add(project, board, "--model", "a")
    path = board / "results" / "a.json"
    record = json.loads(path.read_bytes())
    mean = record["detector_scoring"]["realism"]["mean"]
    record["detector_scoring"]["realism"]["mean"] = 0.999
    path.write_text(json.dumps(record))
    run = {"environment": project.environment, "code": 1}
    assert realbench("leaderboard", "verify", board, **run).stdout == (
        f"results/a.json: realism.mean is 0.999, but its own data give {mean}: write the entry "
        "again with realbench leaderboard add\n"
    )
    machine = realbench("leaderboard", "verify", board, "--json", **run)
    assert json.loads(machine.stdout)["n_entries"] == 1
    assert "cannot be built: results/a.json" in error_line(
        realbench("leaderboard", "build", board, **run)
    )


def test_mistakes_are_one_line(project: Project, tmp_path: Path) -> None:
    board = Path(shutil.copytree(project.board, tmp_path / "board"))

    def fails(*arguments: object, code: int) -> str:
        return error_line(
            realbench("leaderboard", *arguments, environment=project.environment, code=code)
        )

    here = ("--board", board, "--model", "a")
    assert "has no board.toml" in fails("verify", tmp_path, code=2)
    again = ("new", board, project.score, "--prompts", project.root / "day-and-night.jsonl")
    assert "is there already" in fails(*again, "--title", "x", code=2)
    assert "has no run.json" in fails("add", tmp_path, *here, code=2)
    assert "no folder 'c': name the model's with --folder (a, b, photos)" in fails(
        "add", project.score, "--board", board, "--model", "c", code=2
    )
    assert "is a second score run" in fails("add", project.score, project.score, *here, code=2)
    assert "knows no 'weight'" in fails("add", project.score, *here, "--meta", "weight=1", code=2)
    assert "takes KEY=VALUE" in fails("add", project.score, *here, "--meta", "date", code=2)
    assert "model.date" in fails("add", project.score, *here, "--meta", "date=soon", code=2)
    assert "the board has no anchor 'a'" in fails("add", project.score, *here, "--anchor", code=1)
    text = (board / "board.toml").read_text()
    (board / "board.toml").write_text(text.replace("min_prompts = 4", "min_prompts = 40"))
    assert "6 of the suite's prompts, the board asks for 40" in fails(
        "add", project.score, *here, code=1
    )
    assert list((board / "results").iterdir()) == []
    (board / "board.toml").write_text(text)
    _add(project, board, "--model", "a")
    again = _add(project, board, "--model", "a", code=2)
    assert "is there already: give --replace" in error_line(again)  # type: ignore[arg-type]
    _add(project, board, "--model", "a", "--replace")
