"""The scorer on images in memory, and that it agrees with the pipeline on files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import realbench
from realbench.detection.ensemble import combine, disagreement, probability, weights
from realbench.errors import UsageError
from realbench.scoring.folders import display_names
from tests.fakes import make_card


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("cards")
    return [
        make_card(folder, "whole", level="semantic", seed=1),
        make_card(folder, "crops", level="feature", seed=2),
    ]


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (70 + n, 90, 3), np.uint8) for n in range(count)]


def test_pil_images_arrays_and_tensors_score_alike(cards: list[Path]) -> None:
    scorer = realbench.Scorer(cards, device="cpu")
    arrays = [image[:70] for image in pictures(3)]
    expected = scorer(arrays)
    assert expected.realism.dtype == np.float32
    assert set(expected.detectors) == {"whole", "crops"}
    tensor = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    for images in ([Image.fromarray(a) for a in arrays], tensor):
        np.testing.assert_allclose(scorer(images).realism, expected.realism, atol=1e-5)
    np.testing.assert_array_equal(scorer.reward(arrays, ["a", "b", "c"]), expected.realism)


def test_scores_do_not_depend_on_the_batch(cards: list[Path]) -> None:
    images = pictures(7)
    whole = realbench.Scorer(cards, device="cpu", batch_size=7)(images)
    parts = realbench.Scorer(cards, device="cpu", batch_size=2)(images)
    np.testing.assert_allclose(whole.realism, parts.realism, atol=1e-4)


def test_files_score_as_the_same_pictures_in_memory(
    cards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    images = pictures(5)
    for n, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{n}.png")
    (folder / "twin-of-0.png").write_bytes((folder / "0.png").read_bytes())
    run = realbench.score(folder, detectors=cards)
    expected = realbench.Scorer(cards, device="cpu")(images)
    np.testing.assert_allclose(run["realism"][:5], expected.realism, atol=1e-4)
    assert run["realism"].iloc[5] == run["realism"].iloc[0]
    assert len(run) == run.n_scored == 6
    assert run.folders.loc["images", "n"] == 6


def test_wrong_images_are_refused_with_their_position(cards: list[Path]) -> None:
    scorer = realbench.Scorer(cards[:1], device="cpu")
    good = np.zeros((8, 8, 3), np.uint8)
    for bad, message in (
        (good.astype(np.float32), "image 1 .*float32"),
        (good[..., 0], "image 1 .*shape"),
        ("a.png", "image 1 is a str"),
    ):
        with pytest.raises(UsageError, match=message):
            scorer([good, bad])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="shape"):
        scorer(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))


def test_levels_weigh_half_each_whatever_their_number() -> None:
    levels = {"a": "semantic", "b": "feature", "c": "feature"}
    assert weights(levels) == {"a": 0.5, "b": 0.25, "c": 0.25}
    logits = {"a": np.array([2.0]), "b": np.array([0.0]), "c": np.array([4.0])}
    assert combine(logits, levels)[0] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert weights({"b": "feature"}) == {"b": 1.0}


def test_probabilities_stay_in_range_for_extreme_logits() -> None:
    p = probability(np.array([-1e4, 0.0, 1e4]))
    np.testing.assert_allclose(p, [0.0, 0.5, 1.0])
    assert disagreement(np.array([[0.2, 0.9], [0.5, 0.5]])).tolist() == pytest.approx([0.7, 0.0])


def test_folders_are_named_by_the_shortest_distinguishing_tail(tmp_path: Path) -> None:
    names = display_names([tmp_path / "x" / "run", tmp_path / "y" / "run", tmp_path / "z"])
    assert names == ["x/run", "y/run", "z"]
    with pytest.raises(UsageError, match="given twice"):
        display_names([tmp_path / "z", tmp_path / "z"])
