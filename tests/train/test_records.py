"""A run's folder read back as typed records."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from realbench import TrainRun
from realbench.errors import RealBenchError, UsageError
from tests.train.report.trainings import add_verdict, make_training


def test_a_run_is_read_back(tmp_path: Path) -> None:
    folder = make_training(tmp_path, iterations=20, every=10)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    run = TrainRun.read(folder)
    assert [one.iteration for one in run.log] == list(range(21))
    assert [one.iteration for one in run.trained] == list(range(1, 21))
    assert list(run.evaluations) == [0, 10, 20]
    assert run.manifest.kind == "diffusion"
    assert run.manifest.config["training"]["group_size"] == 8
    third = run.log[3]
    assert third.reward == lines[3]["reward"]
    assert third.figure("ratio_std") == lines[3]["ratio_std"]
    assert math.isnan(run.log[7].figure("grad_norm") or 0)
    assert third.figure("first_ratio_std") is None  # of version 0.1.0, which had no such figure
    last = run.evaluations[20]
    assert last.reward["estimate"] == pytest.approx(0.6)  # which 0.1.0 called the mean
    assert (last.reward["low"], last.reward["n_groups"]) == (pytest.approx(0.57), 12)
    assert last.by_prompt == lines[20]["evaluation"]["by_prompt"]
    assert run.summary == {}


def test_a_summary_is_of_a_finished_run_alone(tmp_path: Path) -> None:
    folder = make_training(tmp_path, iterations=10)
    add_verdict(folder)
    run = TrainRun.read(folder)
    assert run.summary["quality"]["passed"] is True
    assert run.manifest.stop_reason == "complete"


def test_a_line_that_is_still_written_is_left_out(tmp_path: Path) -> None:
    folder = make_training(tmp_path, iterations=10)
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"iteration": 11, "rew')
    assert TrainRun.read(folder).log[-1].iteration == 10


def test_what_is_no_run_or_damaged_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder of a realgen-train run"):
        TrainRun.read(tmp_path / "missing")
    (tmp_path / "run.json").write_text('{"scores": 1}')
    with pytest.raises(UsageError, match="is no folder of a realgen-train run"):
        TrainRun.read(tmp_path)
    folder = make_training(tmp_path / "run", iterations=3)
    lines = (folder / "log.jsonl").read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | {"reward": "high"})
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(RealBenchError, match=r"line 3 of .*log\.jsonl is damaged \(reward: "):
        TrainRun.read(folder)
    manifest = json.loads((folder / "run.json").read_text())
    del manifest["device"]
    (folder / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(RealBenchError, match=r"run\.json is damaged \(device: Field required\)"):
        TrainRun.read(folder)
