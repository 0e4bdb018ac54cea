"""Pictures that training makes on the spot, and the degradations of generated ones."""

from __future__ import annotations

import numpy as np
import pytest

from realbench.detection.training import augment

SIZE = 96


def _deviations(strongest_noise: float, reduction: float) -> list[float]:
    """Return the standard deviations of one flat colour after many degradations."""
    flat = np.full((SIZE, SIZE, 3), 128, np.uint8)
    return [
        float(augment.degrade(flat, reduction, strongest_noise, np.random.default_rng(n)).std())
        for n in range(120)
    ]


def test_noise_is_as_strong_as_the_recipe_says_at_512_pixels() -> None:
    weak, strong = _deviations(4, 1), _deviations(45, 1)
    assert sum(deviation > 0.5 for deviation in strong) > 10  # a fifth and more have noise
    assert max(weak) < 15  # a noisy picture may be sharpened after it
    assert max(strong) > 30
    assert max(_deviations(45, 3)) < max(strong) / 2


def test_pictures_of_nothing_are_pictures_of_all_kinds() -> None:
    pictures = [augment.synthetic(SIZE, np.random.default_rng(n)) for n in range(200)]
    assert all(one.shape == (SIZE, SIZE, 3) and one.dtype == np.uint8 for one in pictures)
    flat = [one for one in pictures if one.std(axis=(0, 1)).max() == 0]
    busy = [one for one in pictures if one.std() > 40]
    assert len(flat) > 5
    assert len(busy) > 20


@pytest.mark.parametrize("seed", range(20))
def test_a_grid_repeats_its_cell(seed: int) -> None:
    """A cell's strength differs, its pattern does not: cells are multiples of one another."""
    picture = augment._grid(SIZE, np.random.default_rng(seed))
    color = np.median(picture, axis=(0, 1))
    best = 0.0
    for side in range(2, 17):
        count = SIZE // side
        cut = picture[: count * side, : count * side]
        cells = cut.reshape(count, side, count, side, -1).transpose(0, 2, 1, 3, 4)
        apart = cells.reshape(count**2, -1) - np.tile(color, side**2)
        values = np.linalg.svd(apart, compute_uv=False)
        best = max(best, values[:2].sum() / values.sum())  # two, for the colour is a guess
    assert best > 0.9
