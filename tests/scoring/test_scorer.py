"""The scorer on images in memory, and that it agrees with the pipeline on files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import realbench
from realbench.detection.ensemble import combine, disagreement, probability, weights
from realbench.errors import RealBenchError, UsageError
from realbench.reward.components import DetectorsComponent
from realbench.reward.config import DetectorsConfig
from realbench.scoring.folders import display_names
from realbench.scoring.scorer import rgb_arrays
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
    assert run.folders.loc["images", "n"] == 5  # the twin counts once


def test_every_way_to_hold_an_image_is_the_same_image() -> None:
    image = pictures(1)[0]  # (70, 90, 3)
    tensor = torch.from_numpy(image)
    for same in (
        Image.fromarray(image),
        [image],
        [image.transpose(2, 0, 1)],
        [tensor],
        [tensor.permute(2, 0, 1)],
        tensor.permute(2, 0, 1)[None],
        image[None],
        image.transpose(2, 0, 1)[None],
        [image.astype(np.int64)],
        [image.astype(np.uint16)],
        [image / 255],
        [image.astype(np.float32) / 255],
        [tensor.float().div(255).requires_grad_()],
        [tensor.to(torch.int32)],
        (one for one in [image]),
        [image[:, ::-1][:, ::-1]],
    ):
        (found,) = rgb_arrays(same)
        assert (found.dtype, found.shape) == (np.uint8, (70, 90, 3))
        np.testing.assert_array_equal(found, image)
    (half,) = rgb_arrays([(tensor.float() / 255).half()])
    assert np.abs(half.astype(int) - image).max() <= 1
    (coarse,) = rgb_arrays([(tensor.float() / 255).bfloat16()])
    assert np.abs(coarse.astype(int) - image).max() <= 1
    (mask,) = rgb_arrays([image > 127])
    np.testing.assert_array_equal(mask, np.where(image > 127, 255, 0))
    square = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    np.testing.assert_array_equal(rgb_arrays([square])[0], square)
    np.testing.assert_array_equal(
        rgb_arrays([torch.from_numpy(square)])[0], square.transpose(1, 2, 0)
    )
    assert rgb_arrays([]) == []


def test_what_is_no_image_is_refused_with_its_position_and_a_remedy() -> None:
    good = np.zeros((8, 8, 3), np.uint8)
    for bad, message in (
        (good[..., 0], r"image 1 has shape \(8, 8\): give RGB"),
        (np.zeros((8, 8, 4), np.uint8), "put transparency on white"),
        (np.zeros((0, 8, 3), np.uint8), "image 1 has shape"),
        (torch.zeros(1, 3, 8, 8), "image 1 has shape"),
        (good.astype(np.float32) - 1, r"from -1 to -1: .*x / 2 \+ 0\.5"),
        (good + 200.0, "from 200 to 200: .*x / 255"),
        (np.full((8, 8, 3), np.nan), r"from nan .*floats in \[0, 1\]"),
        (good.astype(np.int16) - 1, r"give \[0, 255\]"),
        (good.astype(np.uint16) + 65535, "of 16 bits: // 257"),
        (good.astype(complex), "complex128"),
        (torch.zeros(3, 8, 8).to_sparse(), "cannot be read"),
        ("a.png", r"image 1 is a str: .*PIL\.Image\.open"),
        (None, "image 1 is a NoneType"),
    ):
        with pytest.raises(UsageError, match=message):
            rgb_arrays([good, bad])
    for images, message in (
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), r"shape \(n, 3, H, W\).*permute"),
        (torch.zeros(3, 8, 8), r"give a list of images, not one tensor .*\[image\]"),
        (good, "give a list of images, not one array"),
        ("photos", r"images are a str: .*realbench\.score takes folders"),
        (Path("photos"), "give a list of PIL images"),
        (None, "images are a NoneType"),
        (7, "images are a int"),
    ):
        with pytest.raises(UsageError, match=message):
            rgb_arrays(images)


def test_a_scorer_takes_a_torch_device_and_goes_to_other_processes(cards: list[Path]) -> None:
    scorer = realbench.Scorer(cards, device=torch.device("cpu"), batch_size=2)
    images = pictures(3)
    again = pickle.loads(pickle.dumps(scorer))
    assert repr(again) == repr(scorer)
    np.testing.assert_array_equal(again(images).realism, scorer(images).realism)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(scorer.reward))(images), scorer(images).realism
    )
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        realbench.Scorer(cards, batch_size=0)


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


def test_a_scorer_takes_files_of_ones_own_and_a_precision(cards: list[Path]) -> None:
    own = {"whole": {"weights": cards[0] / "weights.safetensors"}}
    expected = realbench.Scorer(cards[:1], device="cpu")(pictures(2)).logits["whole"]
    scorer = pickle.loads(pickle.dumps(realbench.Scorer(cards[:1], device="cpu", weights=own)))
    np.testing.assert_array_equal(scorer(pictures(2)).logits["whole"], expected)
    other = {"whole": {"weights": cards[1] / "weights.safetensors"}}
    with pytest.raises(RealBenchError, match="but its card says"):
        realbench.Scorer(cards[:1], device="cpu", weights=other)
    with pytest.raises(UsageError, match="'mine', which is no detector of this run"):
        realbench.Scorer(cards, weights={"mine": {"weights": cards[0]}})
    with pytest.raises(UsageError, match="no precision 'float8'"):
        realbench.Scorer(cards, precision="float8")  # type: ignore[arg-type]


def test_detectors_of_a_reward_take_them_too(cards: list[Path]) -> None:
    table = {"detectors": [str(cards[0])], "weights": {"whole": str(cards[0] / "card.toml")}}
    with pytest.raises(RealBenchError, match=r"card\.toml has sha256"):
        DetectorsComponent(DetectorsConfig.model_validate(table), "cpu")
    plain = DetectorsConfig(name="realism").model_dump()  # as runs of before have it
    assert set(plain) == {"name", "weight", "kind", "detectors", "batch_size"}
