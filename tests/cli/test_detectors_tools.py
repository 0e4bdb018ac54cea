"""``realbench detectors calibrate``, ``fuse`` and ``check`` as their users run them."""

from __future__ import annotations

import csv
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realbench.arena.judges import JudgeOptions
from realbench.arena.judges.detectors import DetectorJudge
from realbench.cli.bench import FUSION_VERDICTS as _VERDICTS
from realbench.content import content_path
from realbench.detection.ensembles import presets
from realbench.detection.registry import list_detectors
from realbench.detection.verdict import read_sample
from realbench.scoring import Scorer
from tests.cli.commands import error_line, realbench
from tests.fakes import make_card


def _pictures(folder: Path, count: int, *, smooth: float, seed: int) -> Path:
    """Noise in the middle, mixed with flat color by ``smooth`` in [0, 1]."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for n in range(count):
        noise = rng.integers(0, 256, (64, 64, 3)).astype(np.float64)
        flat = rng.integers(60, 200, (1, 1, 3)) * np.ones((64, 64, 1))
        mixed = (1 - smooth) * noise + smooth * flat
        Image.fromarray(mixed.astype(np.uint8)).save(folder / f"{folder.name}-{n:03}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options that name photographs and two generators of other pictures."""
    folder = tmp_path_factory.mktemp("data")
    real = _pictures(folder / "photos", 60, smooth=0.5, seed=0)
    first = _pictures(folder / "gen-a", 30, smooth=0.4, seed=1)
    second = _pictures(folder / "gen-b", 30, smooth=0.35, seed=2)
    return ["--reference", real, "--generated", first, "--generated", second]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_card(tmp_path / "cards", "whole", level="semantic", seed=1)
    make_card(tmp_path / "cards", "crops", level="feature", seed=2)
    return tmp_path


def test_calibration_is_saved_beside_the_users_card_and_used_from_there(
    place: Path, data: list[object], environment: dict[str, str]
) -> None:
    arguments = ("detectors", "calibrate", "cards/whole", *data)
    shown = realbench(*arguments, environment=environment, cwd=place, process=True).stdout
    for text in ("temperature", "calibration error", "before", "after", "log loss saved"):
        assert text in shown
    assert "verdicts at --max-false-alarm 0.05: generated below" in shown
    assert "Use: --detector ./cards/whole" in shown
    held_out = read_sample(place / "cards" / "whole" / "verdict.json")
    assert {name: len(one["whole"]) for name, one in held_out.photographs.items()} == {"photos": 60}
    assert {name: len(one["whole"]) for name, one in held_out.generated.items()} == {
        "gen-a": 30,
        "gen-b": 30,
    }
    saved = tomllib.loads((place / "cards" / "whole" / "calibration.toml").read_text())
    assert (saved["n_real"], saved["n_generated"], saved["prior"]) == (60, 60, 0.5)

    # Again, elsewhere, for another prior: from the raw logits, not from the calibrated ones.
    further = ("--out", "other", "--prior", "0.9", "--json")
    again = realbench(*arguments, *further, environment=environment, cwd=place)
    (entry,) = json.loads(again.stdout)
    fitted = entry["calibration"]
    assert fitted["temperature"] == pytest.approx(saved["temperature"], rel=0.01)
    shift = fitted["temperature"] * np.log(9)
    assert fitted["bias"] == pytest.approx(saved["bias"] + shift, abs=0.02 * abs(shift))
    for figures in (entry["before"], entry["after"]):
        error = figures["calibration_error"]
        assert error["low"] <= error["estimate"] <= error["high"]
    assert entry["after"]["log_loss"]["estimate"] <= 0.72  # never much worse than a guess, log 2

    images = [Image.open(path) for path in sorted(Path(str(data[3])).iterdir())[:3]]
    even, shifted = (
        Scorer(place / folder / "whole", device="cpu")(images).logits["whole"]
        for folder in ("cards", "other")
    )
    assert shifted - even == pytest.approx(np.log(9), abs=0.05)
    photographs = [Image.open(path) for path in sorted(Path(str(data[1])).iterdir())]
    called = Scorer(place / "other" / "whole", device="cpu")(photographs).verdict
    assert called is not None
    assert (called == "generated").sum() <= 3  # of 60 that the rule was fitted on


@pytest.mark.parametrize("command", ["calibrate", "fuse", "bench"])
def test_one_folder_is_not_both_photographs_and_generated(
    command: str, place: Path, data: list[object], environment: dict[str, str]
) -> None:
    name = {"calibrate": ["cards/whole"], "fuse": ["mine"], "bench": []}[command]
    photos = Path(str(data[1]))
    for generated in (photos, photos.parent):
        refused = realbench(
            *("detectors", command, *name, "--reference", photos, "--generated", generated),
            environment=environment,
            cwd=place,
            code=2,
        )
        told = error_line(refused)
        assert "given as a photograph" in told or "is given twice" in told
        assert "photos" in told


def test_training_into_a_file_ends_before_the_work(
    place: Path, data: list[object], environment: dict[str, str]
) -> None:
    (place / "taken").write_text("")
    for option in (["--out", "taken"], ["--work", "taken"], ["--keep-folds", "taken/folds"]):
        refused = realbench(
            "detectors", "train", *data, *option, environment=environment, cwd=place, code=2
        )
        told = error_line(refused)
        assert told.startswith("error: taken")
        assert "file: give" in told


def test_calibration_of_a_bundled_name_never_goes_into_the_package(
    place: Path, data: list[object], environment: dict[str, str]
) -> None:
    refused = realbench(
        *("detectors", "calibrate", "trace-lite", *data, "--out", content_path("detectors")),
        environment=environment,
        cwd=place,
        code=2,
    )
    assert "is part of the package" in error_line(refused)


def test_calibration_says_what_is_wrong(
    place: Path, data: list[object], environment: dict[str, str], tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(Path(str(data[3])).iterdir())[:20]:
        shutil.copy(path, few)
    less = ("detectors", "calibrate", "cards/whole", *data[:2], "--generated", few)
    told = realbench(*less, environment=environment, cwd=place, code=2)
    assert "at least 50 photographs and 50 generated images" in error_line(told)
    assert not (place / "cards" / "whole" / "calibration.toml").exists()
    blocked = ("detectors", "calibrate", "cards/whole", *less[3:], "--out")
    told = realbench(*blocked, "cards/whole/card.toml", environment=environment, cwd=place, code=2)
    assert "lies below a file" in error_line(told)  # which is said before images are scored
    prior = ("detectors", "calibrate", "cards/whole", *data, "--prior", "1")
    assert "--prior" in error_line(realbench(*prior, environment=environment, cwd=place, code=2))


def test_a_fusion_is_compared_saved_and_used_by_its_name(
    place: Path,
    data: list[object],
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = ("--detector", "cards/whole", "--detector", "./cards/crops")
    fused = realbench(
        *("detectors", "fuse", "mine", *members, *data),
        environment=environment,
        cwd=place,
        process=True,
    ).stdout
    for text in ("ensemble:mine: whole", "plain average: AUC", "fusion: AUC", "log loss"):
        assert text in fused
    assert sum(verdict in fused for verdict in _VERDICTS.values()) == 1
    assert "without their generators" in fused
    saved = tomllib.loads((place / "ensembles.toml").read_text())["mine"]
    assert saved["detectors"] == ["./cards/whole", "./cards/crops"]
    assert min(saved["weights"]) >= 0

    out = place / "run"
    realbench(
        *("score", data[3], "--detector", "ensemble:mine", "--out", out, "-q"),
        environment=environment,
        cwd=place,
    )
    from scipy.special import expit, logit

    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        parts = np.array([logit(float(row["whole"])), logit(float(row["crops"]))])
        expected = expit(parts @ np.array(saved["weights"]) + saved["bias"])
        assert float(row["realism"]) == pytest.approx(expected, abs=1e-3)
    run = json.loads((out / "run.json").read_text())
    assert [one["fused"]["weight"] for one in run["detectors"]] == saved["weights"]

    benched = realbench(
        *("detectors", "bench", *data[:4], "--detector", "ensemble:mine", "--json"),
        environment=environment,
        cwd=place,
    )
    names = {one["detector"] for one in json.loads(benched.stdout)["results"]}
    assert names == {"whole", "crops", "ensemble"}

    monkeypatch.chdir(place)
    judge = DetectorJudge(JudgeOptions(detectors=("ensemble:mine",)))
    plain = DetectorJudge(JudgeOptions(detectors=("cards/whole", "cards/crops")))
    assert judge.fingerprint != plain.fingerprint

    again = ("detectors", "fuse", "mine", *members, *data)
    taken = realbench(*again, environment=environment, cwd=place, code=2)
    assert "has an ensemble 'mine' already" in error_line(taken)


def test_fusion_says_what_is_wrong(
    place: Path, data: list[object], environment: dict[str, str]
) -> None:
    one = ("detectors", "fuse", "x", "--detector", "cards/whole", *data)
    alone = realbench(*one, environment=environment, cwd=place, code=2)
    assert "at least two detectors" in error_line(alone)
    preset = realbench("detectors", "fuse", "default", *data, environment=environment, code=2)
    assert "preset's name" in error_line(preset)
    assert not (place / "ensembles.toml").exists()


def test_check_tries_what_is_here_and_tells_what_is_missing(
    place: Path, environment: dict[str, str]
) -> None:
    environment |= {"REALBENCH_WEIGHTS": str(place / "none"), "HF_HUB_OFFLINE": "1"}
    fine = realbench(
        *("detectors", "check", "npr", "cards/whole"),
        environment=environment,
        cwd=place,
        process=True,
    ).stdout.splitlines()
    assert fine[0].startswith("whole: works: P(real) 0.")
    assert "images/s" in fine[0]
    assert "MiB" in fine[0]
    assert fine[1].startswith("npr: not here: ")
    assert "NPR.pth" in fine[1]
    assert fine[2] == "1 of 2 can be used here"

    (place / "cards" / "crops" / "weights.safetensors").write_bytes(b"altered")
    broken = realbench(
        *("detectors", "check", "./cards/crops", "cards/whole"),
        environment=environment,
        cwd=place,
        code=1,
    )
    assert "crops: FAILED: " in broken.stdout
    assert "sha256" in broken.stdout
    assert "whole: works" in broken.stdout
    assert "failed though complete: crops" in error_line(broken)


def test_list_names_the_ensembles(place: Path, environment: dict[str, str]) -> None:
    (place / "ensembles.toml").write_text('[mine]\ndetectors = ["npr", "./cards/whole"]\n')
    shown = realbench("detectors", "list", environment=environment, cwd=place).stdout
    assert "ensemble:default: semantic-lite, trace-lite" in shown
    assert "ensemble:mine: npr, ./cards/whole" in shown


def test_list_has_whole_names_on_a_terminal_of_80_columns(environment: dict[str, str]) -> None:
    narrow = environment | {"COLUMNS": "80"}
    shown = realbench("detectors", "list", environment=narrow, process=True).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) <= 2 * len(list_detectors()) + len(presets()) + 1
    assert set(list_detectors()) <= {word for line in shown.splitlines() for word in line.split()}


def test_the_list_is_json_for_machines(environment: dict[str, str]) -> None:
    listed = json.loads(realbench("detectors", "list", "--json", environment=environment).stdout)
    entries = {entry["name"]: entry for entry in listed["detectors"]}
    assert set(entries) == set(list_detectors())
    assert entries["trace-lite"]["missing"] is None
    assert "--weights npr=" in entries["npr"]["missing"]
    assert listed["ensembles"]["default"] == ["semantic-lite", "trace-lite"]
