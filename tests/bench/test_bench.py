"""The benchmark of detectors on real files, with detectors of known behaviour and tiny networks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realbench.bench import bench
from realbench.bench.labelled import score_labelled
from realbench.bench.measures import DEGRADATIONS, chains, correlations, measure
from realbench.detection import perturbations
from realbench.detection.ensembles import choose_cards
from realbench.detection.perturbations import crop, matched
from realbench.errors import RealBenchError, UsageError
from realbench.scoring.engine import Protocol
from realbench.scoring.scorer import Scorer
from realbench.scoring.shortcuts import Header, find_shortcuts, warning
from realbench.stats import auc
from tests.conftest import FolderMaker, PictureMaker
from tests.fakes import make_card


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def cards(tmp_path: Path) -> list[Path]:
    return [
        make_card(tmp_path / "cards", "whole", level="semantic", seed=1),
        make_card(tmp_path / "cards", "crops", level="feature", seed=2),
    ]


def test_the_figures_are_those_of_the_scores(
    cards: list[Path], make_folder: FolderMaker, tmp_path: Path
) -> None:
    real, a, b = make_folder("real", 6), make_folder("a", 5), make_folder("b", 4)
    (b / "0003.jpg").write_bytes(b"\xff\xd8\xff torn")
    run = bench(a, b, real=real, detectors=cards, out=tmp_path / "run", resamples=50)
    results = json.loads((tmp_path / "run" / "bench.json").read_text())
    assert results == run.results
    keys = [(one["detector"], one["generator"]) for one in results["results"]]
    assert keys == [(d, g) for d in ("whole", "crops", "ensemble") for g in ("a", "b", None)]
    assert [one["n_generated"] for one in results["results"][:3]] == [5, 3, 8]
    assert [(one["folder"], one["n_failed"]) for one in results["generated"]] == [
        ("a", 0),
        ("b", 1),
    ]
    assert [one["image"] for one in results["failures"]] == ["0003.jpg"]
    assert all(one["images_per_second"] > 0 for one in results["detectors"])

    with Image.open(real / "0000.jpg") as one:
        direct = Scorer(cards)([one]).detectors
    row = run.scores.iloc[0]
    assert row["whole"] == pytest.approx(direct["whole"][0], abs=1e-4)
    assert row["crops"] == pytest.approx(direct["crops"][0], abs=1e-4)
    ok = run.scores[run.scores["status"] == "ok"]
    for entry in results["results"]:
        fakes = ok[~ok["real"] & (ok["folder"].eq(entry["generator"]) | (not entry["generator"]))]
        found = auc(ok.loc[ok["real"], entry["detector"]], fakes[entry["detector"]])
        assert entry["auc"]["estimate"] == pytest.approx(found, abs=1e-6)
        assert entry["auc"]["low"] <= entry["auc"]["estimate"] <= entry["auc"]["high"]

    with (tmp_path / "run" / "bench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["generator"] for row in rows[:3]] == ["a", "b", "(all)"]
    assert float(rows[0]["auc"]) == round(results["results"][0]["auc"]["estimate"], 6)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "all generators" in page
    assert "0003.jpg" in page


def test_robustness_series_begin_with_the_same_images_undegraded(
    cards: list[Path], make_folder: FolderMaker
) -> None:
    real, fake = make_folder("real", 5), make_folder("fake", 5)
    run = bench(fake, real=real, detectors=cards[:1], perturb=True, sample=3, resamples=20)
    series = run.results["robustness"]
    measured = [*DEGRADATIONS, *chains(0)]
    assert len(series) == len(measured) + len({one.kind for one in measured})
    assert {(one["n_real"], one["n_generated"]) for one in series} == {(3, 3)}
    starts = [one for one in series if one["label"] == "none"]
    assert all(one["auc"] == starts[0]["auc"] for one in starts)
    assert set(run.table["perturbation"].dropna()) == {one.kind for one in measured}
    curve = run.table[run.table["perturbation"] == "chain"]
    assert curve["label"].tolist() == ["none", "1 step", *(f"{n} steps" for n in range(2, 6))]
    assert curve["auc"].between(0, 1).all()
    assert "TPR at 1 % FPR is coarse with 5 photographs" in " ".join(run.results["notes"])


def test_a_degraded_score_is_that_of_the_degraded_picture(
    cards: list[Path], make_folder: FolderMaker
) -> None:
    real, fake = make_folder("real", 2), make_folder("fake", 2, size=(300, 200), format="png")
    run = bench(fake, real=real, detectors=cards, matched=True, resamples=5)
    with Image.open(fake / "0000.png") as one:
        changed = matched(np.array(one))
    direct = Scorer(cards)([changed]).detectors
    row = run.scores[run.scores["folder"] == "fake"].iloc[0]
    assert row["crops"] == pytest.approx(direct["crops"][0], abs=1e-4)
    # Undegraded scores of the same file are kept apart from these.
    plain = bench(fake, real=real, detectors=cards, resamples=5).scores
    assert plain[plain["folder"] == "fake"].iloc[0]["crops"] != pytest.approx(
        row["crops"], abs=1e-6
    )


def test_degradations_are_stronger_further_on_and_repeatable(make_picture: PictureMaker) -> None:
    image = np.array(make_picture(120, 90))
    for kind in ("jpeg", "resize", "blur", "noise"):
        changed = [one(image) for one in DEGRADATIONS if one.kind == kind]
        away = [np.abs(one.astype(float) - image).mean() for one in changed]
        assert away == sorted(away), kind
        assert away[0] > 0, kind
        again = [one(image) for one in DEGRADATIONS if one.kind == kind]
        assert all(np.array_equal(a, b) for a, b in zip(changed, again, strict=True))
    assert crop(image, 0.5).shape == (45, 60, 3)
    assert np.array_equal(crop(image, 0.5), image[22:67, 30:90])
    assert np.array_equal(crop(image, 0.5, (1, 0)), image[45:, :60])
    assert crop(image[:1, :1], 0.25).shape == (1, 1, 3)


def test_chains_of_a_picture_begin_alike_and_take_each_step_once(
    make_picture: PictureMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.array(make_picture(120, 90))
    lengths = [one(image) for one in chains(0)]
    assert all(one.dtype == np.uint8 and one.ndim == 3 for one in lengths)
    assert all(np.array_equal(a, one(image)) for a, one in zip(lengths, chains(0), strict=True))
    assert not all(np.array_equal(a, one(image)) for a, one in zip(lengths, chains(1), strict=True))
    taken: list[tuple[int, float]] = []

    def step(n: int) -> Any:
        def take(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            taken.append((n, rng.random()))
            return image

        return take

    monkeypatch.setattr(perturbations, "_STEPS", [step(n) for n in range(7)])
    orders = set()
    for seed in range(5):
        ways = []
        for one in chains(seed):
            taken.clear()
            one(image)
            ways.append(list(taken))
        assert [len(way) for way in ways] == [1, 2, 3, 4, 5]
        assert all(ways[4][: len(way)] == way for way in ways)
        assert len({n for n, _ in ways[4]}) == 5
        orders.add(tuple(n for n, _ in ways[4]))
    assert len(orders) == 5


def test_a_chain_stays_within_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change is drawn from its range, and all seven come up."""
    drawn: dict[str, list[Any]] = {}
    for name in ("rescale", "crop", "jpeg", "webp", "blur", "noise", "recolor"):

        def seen(image: np.ndarray, *strength: Any, name: str = name) -> np.ndarray:
            drawn.setdefault(name, []).append(strength)
            return image

        monkeypatch.setattr(perturbations, name, seen)
    blank = np.zeros((4, 4, 3), np.uint8)
    for seed in range(60):
        perturbations.chain(blank, 5, np.random.default_rng(seed))
    assert sum(map(len, drawn.values())) == 300
    ranges = {"rescale": (0.5, 0.9), "crop": (0.6, 0.95), "jpeg": (40, 95), "webp": (40, 95)}
    for name, (low, high) in (ranges | {"blur": (0.3, 1.5), "noise": (1, 8)}).items():
        values = [strength[0] for strength in drawn[name]]
        assert low <= min(values) < max(values) <= high, name
    assert all(0.7 <= one <= 1.3 for strength in drawn["recolor"] for one in strength)


def test_protocols_keep_their_scores_apart() -> None:
    kinds = [None, *DEGRADATIONS, *chains(0), *chains(1)]
    marks = [
        Protocol(matched=flag, then=one and (one.name, one)).fingerprint("f")
        for flag in (False, True)
        for one in kinds
    ]
    assert len(set(marks)) == 2 * len(kinds)
    assert marks[0] == "f"


def test_a_difference_in_format_or_size_is_told() -> None:
    photos = [Header("JPEG", 640, 480)] * 8
    fakes = [Header("PNG", 1024, 1024)] * 8
    found = find_shortcuts(photos, fakes)
    assert {name: one["accuracy"] for name, one in found.items()} == dict.fromkeys(found, 1.0)
    told = warning(found)
    assert told is not None
    assert "JPEG against PNG" in told
    assert "640 × 480 against 1024 × 1024" in told
    assert "--matched" in told
    rng = np.random.default_rng(0)
    alike = [Header("JPEG", int(w), int(h)) for w, h in rng.integers(400, 900, (80, 2))]
    assert warning(find_shortcuts(alike[:40], alike[40:])) is None


def test_matched_needs_no_warning(cards: list[Path], make_folder: FolderMaker) -> None:
    real = make_folder("real", 5, format="jpg")
    fake = make_folder("fake", 5, size=(90, 90), format="png")
    shown = bench(fake, real=real, detectors=cards[:1], resamples=5).results["warnings"]
    assert len(shown) == 1
    assert not bench(fake, real=real, detectors=cards[:1], matched=True, resamples=5).results[
        "warnings"
    ]


def test_measures_of_known_scores() -> None:
    n = 40
    table = pd.DataFrame(
        {
            "folder": ["real"] * n + ["good"] * n + ["bad"] * n,
            "prompt_id": [f"{i}" for i in range(3 * n)],
            "real": [True] * n + [False] * 2 * n,
            "sees": [0.9] * n + [0.95] * n + [0.1] * n,
            "blind": [0.5, 0.6] * (3 * n // 2),
        }
    )
    found = {
        (one["detector"], one["generator"]): one
        for one in measure(table, ["sees", "blind"], ["good", "bad"], resamples=20, seed=0)
    }
    assert found["sees", "good"]["auc"]["estimate"] == 0
    assert found["sees", "bad"]["auc"]["estimate"] == 1
    assert found["sees", None]["auc"]["estimate"] == 0.5
    assert found["blind", "bad"]["auc"]["estimate"] == 0.5
    assert found["sees", "bad"]["best_threshold"] == pytest.approx(0.5)
    (pair,) = correlations(table, ["sees", "blind"], resamples=20, seed=0)
    assert pair["n"] == 3 * n
    assert abs(pair["correlation"]["estimate"]) < 0.5


def test_what_cannot_be_measured_is_refused(
    cards: list[Path], make_folder: FolderMaker, tmp_path: Path
) -> None:
    real = make_folder("real", 2)
    with pytest.raises(UsageError, match="no folder of generated"):
        bench(real=real, detectors=cards)
    with pytest.raises(UsageError, match="given twice"):
        bench(real, real=real, detectors=cards)
    empty = tmp_path / "torn"
    empty.mkdir()
    (empty / "a.png").write_bytes(b"no image")
    with pytest.raises(RealBenchError, match=r"none of the 1 images of torn .* a\.png"):
        bench(empty, real=real, detectors=cards)
    mine = make_card(tmp_path / "other", "ensemble")
    with pytest.raises(UsageError, match="named 'ensemble'"):
        bench(make_folder("fake", 2), real=real, detectors=[mine])


def test_a_picture_counts_once_and_a_photograph_is_no_generated_image(
    cards: list[Path], make_folder: FolderMaker
) -> None:
    real, fake = make_folder("real", 4), make_folder("fake", 3)
    alone = bench(fake, real=real, detectors=cards[:1], resamples=5)
    shutil.copy(real / "0000.jpg", real / "twin.jpg")
    shutil.copy(fake / "0001.jpg", fake / "twin.jpg")
    (fake / "photo.jpg").hardlink_to(real / "0002.jpg")
    run = bench(fake, real=real, detectors=cards[:1], resamples=5)
    assert run.results["results"] == alone.results["results"]
    for one in (run.results["real"], *run.results["generated"]):
        assert (one["n"], one["n_copies"], one["n_failed"]) in ((4, 1, 0), (3, 2, 0))
    assert len([note for note in run.results["notes"] if "cop" in note]) == 3
    labelled = score_labelled(choose_cards(cards[:1]), [real], [fake])
    assert (labelled.real.sum(), (~labelled.real).sum()) == (4, 3)
    assert len([note for note in labelled.notes if "cop" in note]) == 3
