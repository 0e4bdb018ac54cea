"""The reward's second term: flat pictures have less of it than photographs."""

from __future__ import annotations

import numpy as np
import pytest

from realbench.content import content_path
from realbench.train.demo.contrast import REWARDED, usual_contrast
from realbench.train.demo.quality import QualityGuard


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
    assert (np.diff(found) > 0.02).all()
    bounds = QualityGuard.read(content_path("models") / "small-photo" / "photographs.json").ranges
    low, high = bounds["contrast"]
    expected = np.exp(-(((low + high) / 2) ** 2) / (2 * ((high - low) / 4) ** 2))
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_values_are_float32_within_bounds() -> None:
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (9, 32, 32, 3), np.uint8))
    found = usual_contrast(pictures, [""] * 9)
    assert found.dtype == np.float32
    assert found.shape == (9,)
    assert ((found >= 0) & (found <= 1)).all()


def test_the_guard_keeps_measures_that_no_reward_looks_at() -> None:
    guard = QualityGuard.read(content_path("models") / "small-photo" / "photographs.json")
    assert set(REWARDED) < set(guard.ranges)
    assert {"sharpness", "colourfulness", "clipped"} <= set(guard.ranges) - set(REWARDED)
