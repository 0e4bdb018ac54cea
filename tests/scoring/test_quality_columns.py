"""Quality measures in a run: columns beside realism, cached by image and prompt, never mixed in."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from realbench.content import content_path
from realbench.errors import RealBenchError, UsageError
from realbench.quality.measure import Measure
from realbench.scoring import score
from realbench.scoring.run import Progress, ScoreRun
from tests.cli.commands import error_line, make_images, realbench
from tests.detection.families.published_cards import pictures
from tests.fakes import make_card
from tests.quality.tiny_clip import save_transformers_clip

TEXTS = {"0000": "a red fox", "0001": "a cup of coffee", "0002": "a fox " * 40}


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measure's folder with its model: PickScore's card, a tiny model."""
    place = tmp_path_factory.mktemp("measure") / "pick"
    place.mkdir()
    save_transformers_clip(place / "model")
    text = (content_path("quality") / "pickscore" / "measure.toml").read_text()
    text = text.replace('name = "pickscore"', 'name = "pick"')
    (place / "measure.toml").write_text(text)
    return place


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders with the same image under two prompts, prompts for three of four ids."""
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n, picture in enumerate(pictures(*[(60, 70 + n) for n in range(4)])):
            Image.fromarray(picture).save(tmp_path / name / f"{n:04}.png")
    shutil.copy(tmp_path / "a" / "0001.png", tmp_path / "a" / "0000.png")  # one image, two prompts
    (tmp_path / "b" / "0003.png").write_bytes(b"torn")
    lines = [json.dumps({"id": key, "prompt": text}) for key, text in TEXTS.items()]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    return tmp_path


def run(work: Path, measure: Path, **options: object) -> ScoreRun:
    return score(
        work / "a",
        work / "b",
        detectors=[make_card(work, "tiny") if not (work / "tiny").exists() else work / "tiny"],
        quality=[measure],
        prompts=work / "prompts.jsonl",
        weights={"pick": {"weights": measure / "model"}},
        device="cpu",
        **options,  # type: ignore[arg-type]
    )


def test_columns_means_and_notes(work: Path, measure: Path) -> None:
    stages: list[Progress] = []
    found = run(work, measure, out=work / "run", progress=stages.append)
    plain = score(work / "a", work / "b", detectors=[work / "tiny"], device="cpu")
    with (work / "run" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-2:] == ["verdict", "pick"]
    assert list(rows[0])[:-1] == list(plain.table.columns)
    for column in ("realism", "tiny", "disagreement"):  # nothing of it is mixed in
        np.testing.assert_array_equal(found.table[column], plain.table[column])
    by_file = {(row["folder"], row["image"]): row["pick"] for row in rows}
    assert by_file["a", "0003.png"] == ""  # no prompt
    assert by_file["b", "0003.png"] == ""  # no image
    assert by_file["a", "0000.png"] != by_file["a", "0001.png"]  # one image, two prompts
    assert by_file["a", "0001.png"] == by_file["b", "0001.png"]

    summary = json.loads((work / "run" / "summary.json").read_text())
    for entry in summary["folders"]:
        own = entry["quality"]["pick"]
        values = [float(by_file[entry["folder"], f"{n:04}.png"]) for n in range(3)]
        assert own["n"] == 3
        assert own["estimate"] == pytest.approx(np.mean(values), abs=1e-5)
        assert own["low"] < own["estimate"] < own["high"]
    others = [
        {key: value for key, value in entry.items() if key != "quality"}
        for entry in summary["folders"]
    ]
    assert others == plain.summary["folders"]
    assert "pick: no score for 1, which image has no prompt" in summary["notes"]
    assert "pick: 1 prompt is longer than it reads; it saw their beginning" in summary["notes"]
    about = json.loads((work / "run" / "run.json").read_text())["quality"]
    assert [one["name"] for one in about] == ["pick"]
    page = (work / "run" / "report.html").read_text()
    assert "Image quality and alignment" in page
    assert "PickScore" in page
    assert "quality</a>" not in (plain.write(work / "plain") / "report.html").read_text().lower()
    assert [(one.done, one.total) for one in stages] == [(n, 8) for n in range(1, 9)]


def test_scores_are_cached_by_prompt_and_survive_a_failure(
    work: Path, measure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = Measure.scores

    def fails_later(self: Measure, pixels: torch.Tensor, prompts: list[str]) -> np.ndarray:
        if seen:
            raise RuntimeError("DefaultCPUAllocator: out of memory")
        seen.extend(prompts)
        return real(self, pixels, prompts)

    monkeypatch.setattr(Measure, "scores", fails_later)
    with pytest.raises(RealBenchError, match="not enough memory to run pick"):
        run(work, measure, batch_size=2)
    assert len(seen) == 2

    def records(self: Measure, pixels: torch.Tensor, prompts: list[str]) -> np.ndarray:
        seen.extend(prompts)
        return real(self, pixels, prompts)

    monkeypatch.setattr(Measure, "scores", records)
    first = run(work, measure)
    assert len(seen) == 4  # a's three, and the one that b does not share
    again = run(work, measure)
    assert len(seen) == 4
    np.testing.assert_array_equal(first.table["pick"], again.table["pick"])
    assert first.summary["notes"] == again.summary["notes"]
    path = work / "prompts.jsonl"
    path.write_text(path.read_text().replace("a cup of coffee", "a cup of tea"))
    changed = run(work, measure)
    assert seen[4:] == ["a cup of tea"]
    ids = changed.table["prompt_id"]
    same = changed.table["pick"][ids == "0000"]
    np.testing.assert_array_equal(same, first.table["pick"][ids == "0000"])
    assert (changed.table["pick"] != first.table["pick"])[ids == "0001"].all()


def test_a_file_is_read_and_decoded_once_for_all_that_look_at_it(
    work: Path, measure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    decoded: list[int] = []
    from realbench.scoring import pipeline

    real_read, real_decode = pipeline.read_bytes_and_hash, pipeline.decode

    def reads(path: Path) -> tuple[bytes, str]:
        read.append(path)
        return real_read(path)

    def decodes(data: bytes, **options: int) -> np.ndarray:
        decoded.append(len(data))
        return real_decode(data, **options)

    monkeypatch.setattr(pipeline, "read_bytes_and_hash", reads)
    monkeypatch.setattr(pipeline, "decode", decodes)
    run(work, measure)
    assert len(read) == len(set(read)) == 8
    assert len(decoded) == 5  # of each picture with each of its prompts, one time
    run(work, measure)
    assert len(decoded) == 5


def test_what_cannot_be_measured_is_refused_before_scoring(work: Path, measure: Path) -> None:
    tiny = make_card(work, "tiny")
    given = {"pick": {"weights": measure / "model"}}
    with pytest.raises(UsageError, match=r"--quality pick compares .* give --prompts"):
        score(work / "a", detectors=[tiny], quality=[measure], weights=given, device="cpu")
    twin = make_card(work, "pick")
    with pytest.raises(UsageError, match="names two of this run's detectors"):
        score(work / "a", detectors=[twin], quality=[measure], prompts=work / "prompts.jsonl")
    with pytest.raises(UsageError, match="--weights names 'pick'"):
        score(work / "a", detectors=[tiny], weights=given, device="cpu")
    assert not (work / "cache").exists()


def test_the_command_prints_them_apart(work: Path, measure: Path, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    images = make_images(tmp_path / "images", 3)
    tiny = make_card(work, "tiny")
    shown = realbench(
        *("score", images, "--detector", tiny, "--quality", measure),
        *("--prompts", work / "prompts.jsonl", "--weights", f"pick={measure / 'model'}"),
        environment=environment,
    ).stdout
    ranking, _, apart = shown.partition("P(real) in [0, 1]")
    assert "PickScore" not in ranking
    assert "PickScore" in apart
    assert "no part of realism" in " ".join(apart.split())
    listed = realbench("quality", "list", environment=environment, process=True).stdout
    assert all(name in listed for name in ("aesthetic", "clip-score", "hpsv2", "long-clip"))
    refused = realbench("score", images, "--detector", "pickscore", environment=environment, code=2)
    assert "no detector: --quality pickscore" in error_line(refused)
