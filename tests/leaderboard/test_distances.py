"""Distances on a board: all entries at one n, from the features that they hold."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realbench.distances.compare import DINO, compare
from realbench.errors import RealBenchWarning
from realbench.leaderboard.board import load_board
from realbench.leaderboard.entry import start_board
from realbench.leaderboard.figures import pack_features, unpack_features
from realbench.leaderboard.page import render_board
from realbench.leaderboard.standings import Standings, rank_board
from realbench.leaderboard.tables import readme, table_csv
from realbench.leaderboard.verify import verify_board
from tests.leaderboard.boards import SIZE, add_features, enter, make_board, write_score_run

SHIFTS = {"Photographs": 0.0, "near": 0.5, "far": 3.0}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("distances")
    board = make_board(root / "board", judge=False, distances=True)
    run = write_score_run(root / "run", SHIFTS, per_prompt=2)
    add_features(run, SHIFTS)
    for name in SHIFTS:
        enter(board, [run], name, is_anchor=name == "Photographs")
    old = write_score_run(root / "old", {"old": 0.0})
    with pytest.warns(RealBenchWarning, match="score with --distances"):
        enter(board, [old], "old")
    return board


@pytest.fixture(scope="module")
def standings(board: Path) -> Standings:
    verified = verify_board(load_board(board))
    assert verified.violations == []
    return rank_board(verified)


def test_features_are_kept_to_a_step_of_their_own_scale() -> None:
    values = np.random.default_rng(0).normal(size=(5, SIZE)).astype(np.float32)
    step = np.abs(values).max(axis=1, keepdims=True) / 127
    assert (np.abs(unpack_features(pack_features(values), SIZE) - values) <= 0.51 * step).all()


def test_every_entry_is_compared_anew_at_one_n(board: Path, standings: Standings) -> None:
    rows = {row.name: row for row in [*standings.anchors, *standings.rows]}
    assert standings.n_distances == 12
    assert rows["near"].ranks["fd"] == (1, 1)
    assert rows["far"].ranks["fd"] == (2, 2)
    half = rows["Photographs"].values["two_sample"]
    assert half.low is not None
    assert half.high is not None
    assert half.low <= 0.5 <= half.high
    assert not {"two_sample", "kd", "fd"} & set(rows["old"].values)

    images = {
        name: row.entry.detector_scoring.images
        for name, row in rows.items()
        if row.entry.detector_scoring and row.name != "old"
    }
    table = pd.DataFrame(
        [(name, d, p, "ok") for name, own in images.items() for p, d, *_ in own],
        columns=["folder", "image", "prompt_id", "status"],
    )
    raw = pd.read_csv(board.parent / "run" / "scores.csv", dtype={"prompt_id": str})
    values = add_features(board.parent / "run", SHIFTS)
    by_digest = dict(zip(raw["sha256"].str[:16], values, strict=True))
    features = np.stack([by_digest[digest] for digest in table["image"]])
    record, _ = compare(table, "Photographs", ["near", "far"], {DINO: features}, [])
    assert record is not None
    for one in record["folders"]:
        for column, kind in (("two_sample", "auc"), ("kd", "kd"), ("fd", "fd")):
            found, expected = rows[one["folder"]].values[column], one["figures"][kind]
            assert found.mean == pytest.approx(expected["estimate"], rel=0.02, abs=0.02)
            assert found.n == 12


def test_tables_and_page_show_figures_and_their_ranks(standings: Standings) -> None:
    rows = {one["model"]: one for one in csv.DictReader(table_csv(standings).decode().splitlines())}
    assert (rows["far"]["fd_rank"], rows["far"]["fd_rank_high"]) == ("2", "2")
    assert float(rows["far"]["two_sample"]) > 0.9
    assert rows["Photographs"]["fd_rank"] == rows["old"]["fd"] == rows["old"]["fd_rank"] == ""
    assert float(rows["Photographs"]["fd"]) > 0
    page = render_board(standings)
    assert "distances of 12 images of each model from 12 photographs" in page
    assert ">KD<" in page
    assert ", rank 2" in readme(standings)


def test_features_that_are_not_the_boards_are_violations(board: Path, tmp_path: Path) -> None:
    path = board / "results" / "near.json"
    whole = path.read_text()
    vector = json.loads(whole)["detector_scoring"]["features"]["vectors"][0]
    zero = base64.b64encode(bytes(4 + SIZE)).decode()
    for change, problem in (
        (lambda f: f | {"fingerprint": "e" * 64}, "features: dinov2-small eeeeeeeeeeee"),
        (lambda f: f | {"vectors": f["vectors"][1:]}, "features: 23 of 24 images"),
        (lambda f: f | {"vectors": ["!", *f["vectors"][1:]]}, "features: "),
        (lambda f: f | {"vectors": [zero, *f["vectors"][1:]]}, "vector 0 is zero"),
        (lambda f: f | {"vectors": [vector[:-8], *f["vectors"][1:]]}, "vector 0 has"),
    ):
        record = json.loads(whole)
        scores = record["detector_scoring"]
        scores["features"] = change(scores["features"])
        try:
            path.write_text(json.dumps(record))
            violations = verify_board(load_board(board)).violations
        finally:
            path.write_text(whole)
        assert len(violations) == 1
        assert problem in violations[0]
    other = make_board(tmp_path / "board", judge=False, anchor=None)
    (other / "results").mkdir()
    (other / "results" / "near.json").write_text(whole)
    assert any("the board has none" in one for one in verify_board(load_board(other)).violations)


def test_a_board_of_a_run_with_distances_has_their_columns(tmp_path: Path) -> None:
    run = write_score_run(tmp_path / "run", SHIFTS, per_prompt=2)
    add_features(run, SHIFTS)
    record = json.loads((run / "summary.json").read_text())
    zero = {"estimate": 0.5, "low": None, "high": None, "n": 1}
    record["reference"] = {
        "folder": "Photographs",
        "path": "photos",
        **dict.fromkeys(("n", "n_failed", "n_prompts"), 1),
        **dict.fromkeys(("realism", "escape_rate"), zero),
        "detectors": {},
        "disagreement": {},
        "auc": None,
    }
    (run / "summary.json").write_text(json.dumps(record))
    suite = str(make_board(tmp_path / "other") / "prompts.jsonl")
    started = start_board(tmp_path / "board", [run], suite=suite, title="Started")
    assert {"two_sample", "kd", "fd"} <= set(started.settings.columns)
    assert started.settings.features is not None
    assert started.settings.features.size == SIZE
