"""What runs write can be read back, also by a later version; the records are published.

``python -m tests.runs.test_records`` writes ``docs/schemas`` anew after a record has changed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from realbench.arena.records import ArenaManifest, Ratings
from realbench.arena.results import ArenaRun, rate_run
from realbench.errors import RealBenchError, UsageError
from realbench.runs.files import json_bytes, table_csv
from realbench.runs.folder import json_schema
from realbench.scoring.records import ScoreManifest, Summary
from realbench.scoring.report import render_score_report
from realbench.scoring.run import ScoreRun
from realbench.train.records import TrainIteration, TrainManifest, TrainSummary

OLD = Path(__file__).parents[1] / "data" / "runs-0.1.0"
SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
RECORDS = {
    "score-run": ScoreManifest,
    "score-summary": Summary,
    "arena-run": ArenaManifest,
    "arena-ratings": Ratings,
    "train-run": TrainManifest,
    "train-log": TrainIteration,
    "train-summary": TrainSummary,
}


def test_a_score_run_of_0_1_0_still_opens_and_makes_its_report() -> None:
    run = ScoreRun.read(OLD / "score")
    assert run.n_scored == 12
    assert list(run.folders.index) == ["model-b", "model-a"]
    assert run.folders.loc["model-b", "realism"] == 0.000107
    assert run.summary["reference"] is not None
    assert run.summary["reference"]["realism"]["estimate"] == 0.323623
    assert run.failures["image"].tolist() == ["0004.png"]
    assert run.failures["reason"].str.len().min() > 10
    assert run.table.loc[0, "trace-lite"] == 0.001004
    assert run.paths["model-a", "0000.png"] == Path("model-a/0000.png")
    page = render_score_report(run.table, run.summary, run.manifest, run.paths)
    assert "The data do not" not in page
    assert "model-b is more photoreal than model-a" in page


def test_an_arena_of_0_1_0_still_opens_and_rates_to_the_same_figures(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD / "arena", tmp_path / "arena"))
    run = ArenaRun.read(folder)
    assert len(run.votes) == 24
    assert run.stop_reason == "complete"
    (standing,) = run.ratings["judges"].values()
    assert [one["contestant"] for one in standing["ratings"]] == ["photos", "model-b", "model-a"]
    assert run.standings["win_rate"].tolist() == [1.0, 0.5, 0.0]
    again = rate_run(folder).ratings["judges"]["detectors"]["ratings"]
    for old, new in zip(standing["ratings"], again, strict=True):
        assert new["bradley_terry"]["estimate"] == old["bradley_terry"]["estimate"]
        assert new["win_rate"]["low"] == old["win_rate"]["low"]


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    run = ScoreRun.read(OLD / "score")
    folder = run.write(tmp_path / "again")
    assert table_csv(ScoreRun.read(folder).table) == table_csv(run.table)
    assert ScoreRun.read(folder).summary == run.summary
    assert ScoreRun.read(folder).manifest == run.manifest


def test_what_a_later_version_adds_is_kept(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD / "score", tmp_path / "run"))
    path = folder / "summary.json"
    summary = json.loads(path.read_bytes())
    summary["folders"][0]["novelty"] = 1
    path.write_text(json.dumps(summary))
    assert ScoreRun.read(folder).summary["folders"][0]["novelty"] == 1  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("summary.json", "{", "summary.json is damaged"),
        ("summary.json", '{"schema_version": 1}', r"damaged \(folders: Field required\): run"),
        ("scores.csv", "folder,image\na,b\n", "scores.csv is damaged"),
        ("run.json", "[]", "no JSON object"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(
    tmp_path: Path, file: str, text: str, said: str
) -> None:
    folder = Path(shutil.copytree(OLD / "score", tmp_path / "run"))
    (folder / file).write_text(text)
    with pytest.raises(RealBenchError, match=said):
        ScoreRun.read(folder)


def test_a_folder_without_a_run_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no scores\.csv: name a folder that realbench score"):
        ScoreRun.read(tmp_path)
    with pytest.raises(UsageError, match=r"has no run\.json: name a folder that arena wrote"):
        ArenaRun.read(tmp_path)


@pytest.mark.parametrize("name", RECORDS)
def test_the_published_schema_is_that_of_the_record(name: str) -> None:
    assert json.loads((SCHEMAS / f"{name}.json").read_bytes()) == json_schema(RECORDS[name])


if __name__ == "__main__":
    kind: Any
    for name, kind in RECORDS.items():
        (SCHEMAS / f"{name}.json").write_bytes(json_bytes(json_schema(kind)))
