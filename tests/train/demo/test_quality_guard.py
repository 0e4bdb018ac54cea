"""The quality guard: measures that are right in cases one can see, and verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from realbench.content import content_path
from realbench.errors import RealBenchError
from realbench.train.demo import quality
from realbench.train.demo.quality import MEASURES, REWARDED, QualityGuard, diversity, usual_contrast


@pytest.fixture
def pictures(make_picture: Any) -> np.ndarray:
    """Twenty different pictures, uint8 (20, 3, 32, 32)."""
    made = [np.asarray(make_picture(32, 32, seed=seed)) for seed in range(20)]
    return np.stack(made).transpose(0, 3, 1, 2)


def _blurred(pictures: np.ndarray) -> np.ndarray:
    images = [Image.fromarray(one.transpose(1, 2, 0)) for one in pictures]
    blurred = [np.asarray(one.filter(ImageFilter.GaussianBlur(1.5))) for one in images]
    return np.stack(blurred).transpose(0, 3, 1, 2)


def test_blur_lowers_sharpness_by_what_it_takes_of_the_laplacian(pictures: np.ndarray) -> None:
    sharp, soft = (quality.sharpness(p / 255) for p in (pictures, _blurred(pictures)))
    assert (soft < sharp - 0.3).all()


def test_sharpness_of_a_checkerboard_is_known() -> None:
    board = (np.indices((8, 8)).sum(0) % 2).astype(float)
    # Each inner pixel differs by 1 from its four neighbours: |4 · (0 - 1)| = 4.
    expected = np.log10(4 + 1e-4)
    assert quality.sharpness(np.stack([board] * 3)[None])[0] == pytest.approx(expected)


def test_grey_has_no_colour_and_flat_no_contrast() -> None:
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 16), (1, 3, 16, 16))
    assert quality.colourfulness(ramp)[0] == pytest.approx(0)
    assert quality.contrast(ramp)[0] == pytest.approx(np.linspace(0.2, 0.8, 16).std())
    assert quality.contrast(np.full((1, 3, 16, 16), 0.3))[0] == pytest.approx(0)


def test_colourfulness_of_one_colour_is_its_distance_from_grey() -> None:
    red = np.zeros((1, 3, 8, 8))
    red[:, 0] = 1
    assert quality.colourfulness(red)[0] == pytest.approx(0.3 * np.hypot(1, 0.5))


def test_clipped_counts_values_at_both_ends() -> None:
    picture = np.full((1, 3, 4, 4), 0.5)
    picture[0, 0, 0, :2] = 0
    picture[0, 1, 0, :4] = 1
    assert quality.clipped(picture)[0] == pytest.approx(6 / 48)


def test_diversity_is_the_mean_distance_of_pairs(pictures: np.ndarray) -> None:
    values = pictures[:6] / 255
    small = values.reshape(6, 3, 8, 4, 8, 4).mean((3, 5)).reshape(6, -1)
    distances = [
        np.sqrt(np.mean((small[a] - small[b]) ** 2)) for a in range(6) for b in range(a + 1, 6)
    ]
    assert diversity(values) == pytest.approx(np.mean(distances))
    assert diversity(np.repeat(values[:1], 4, axis=0)) == pytest.approx(0, abs=1e-6)


def test_bounds_hold_ninety_five_percent_and_survive_their_file(
    pictures: np.ndarray, tmp_path: Path
) -> None:
    guard = QualityGuard.of_photographs(np.concatenate([pictures] * 5))
    guard.write(tmp_path / "guard.json")
    assert QualityGuard.read(tmp_path / "guard.json") == guard
    assert guard.usual(pictures).mean() == pytest.approx(0.95, abs=0.06)
    assert guard.usual(_blurred(_blurred(pictures))).mean() < 0.8


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "guard.json").write_text('{"ranges": 3}')
    with pytest.raises(RealBenchError, match=r"guard\.json: no quality guard"):
        QualityGuard.read(tmp_path / "guard.json")


def _evaluated(guard: QualityGuard, pictures: np.ndarray) -> dict[str, dict[str, float]]:
    found = {name: probe(pictures, []) for name, probe in guard.probes().items()}
    return {name: {"estimate": float(np.mean(value))} for name, value in found.items()}


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        (lambda p: p, set()),
        (lambda p: _blurred(_blurred(p)), {"sharpness"}),
        (lambda p: np.repeat(p[:2], 10, axis=0), {"diversity"}),
        (lambda p: np.broadcast_to(p.mean(1, keepdims=True), p.shape), {"colourfulness"}),
    ],
)
def test_the_verdict_names_what_got_worse(
    pictures: np.ndarray, change: Any, fails: set[str]
) -> None:
    guard = QualityGuard.of_photographs(pictures)
    changed = np.asarray(change(pictures)).astype(np.uint8)
    verdict = guard.verdict(_evaluated(guard, pictures), _evaluated(guard, changed))
    failed = {name for name, one in verdict["measures"].items() if not one["passed"]}
    assert fails <= failed
    assert verdict["passed"] == (not failed)
    assert bool(failed) == bool(fails)


def test_the_shipped_bounds_are_of_the_model_s_size() -> None:
    guard = QualityGuard.read(content_path("models") / "small-photo" / "photographs.json")
    assert guard.size == 32
    assert guard.n > 1000
    assert set(guard.ranges) == set(MEASURES)


def _halves(dark: int, light: int) -> np.ndarray:
    picture = np.full((32, 32, 3), dark, np.uint8)
    picture[:16] = light
    return picture


def test_a_picture_of_a_photographs_contrast_has_all_of_it() -> None:
    # Half 60 and half 190: a standard deviation of 65/255 = 0.255, above the photographs' middle.
    assert usual_contrast([_halves(60, 190)], [""])[0] == pytest.approx(1)


def test_the_flatter_the_less() -> None:
    pictures = [_halves(128 - d, 128 + d) for d in (0, 15, 30, 45)]
    found = usual_contrast(pictures, [""] * 4)
    assert found.dtype == np.float32
    assert (np.diff(found) > 0.02).all()
    bounds = QualityGuard.read(content_path("models") / "small-photo" / "photographs.json").ranges
    low, high = bounds["contrast"]
    expected = np.exp(-(((low + high) / 2) ** 2) / (2 * ((high - low) / 4) ** 2))
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_the_guard_keeps_measures_that_no_reward_looks_at() -> None:
    guard = QualityGuard.read(content_path("models") / "small-photo" / "photographs.json")
    assert set(REWARDED) < set(guard.ranges)
    assert {"sharpness", "colourfulness", "clipped"} <= set(guard.ranges) - set(REWARDED)
