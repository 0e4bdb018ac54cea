"""Which images an iteration makes, and which process makes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realbench.errors import UsageError
from realbench.train.config import ImageTrainingConfig
from realbench.train.groups import draw_window, image_generator, plan_images

TRAINING = ImageTrainingConfig(prompts_per_iteration=4, group_size=6, updates_per_iteration=2)


@settings(max_examples=60, deadline=None)
@given(
    iteration=st.integers(0, 10_000),
    n_prompts=st.integers(1, 40),
    world_size=st.sampled_from([1, 2, 3, 4, 6, 12]),
    passes=st.integers(1, 3),
)
def test_every_image_is_made_once_and_trained_on_in_every_pass(
    iteration: int, n_prompts: int, world_size: int, passes: int
) -> None:
    plan = plan_images(
        TRAINING.model_copy(update={"passes": passes}),
        seed=3,
        iteration=iteration,
        n_prompts=n_prompts,
        world_size=world_size,
    )
    made = [plan.of_process(rank) for rank in range(world_size)]
    assert {len(one) for one in made} == {24 // world_size}
    assert sorted(np.concatenate(made).tolist()) == list(range(24))
    assert plan.parts.shape == (2 * passes, world_size, 12 // world_size)
    for start in range(0, 2 * passes, 2):
        assert sorted(plan.parts[start : start + 2].ravel().tolist()) == list(range(24))
    assert np.bincount(plan.groups).tolist() == [6] * 4
    assert plan.prompts.max() < n_prompts


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_what_trains_together_does_not_depend_on_the_number_of_processes(world_size: int) -> None:
    alone, shared = (
        plan_images(TRAINING, seed=3, iteration=7, n_prompts=9, world_size=count)
        for count in (1, world_size)
    )
    assert alone.prompts.tolist() == shared.prompts.tolist()
    for one, other in zip(alone.parts, shared.parts, strict=True):
        assert sorted(one.ravel().tolist()) == sorted(other.ravel().tolist())


def test_no_prompt_comes_twice_before_all_had_their_turn() -> None:
    plans = [
        plan_images(TRAINING, seed=3, iteration=n, n_prompts=6, world_size=1) for n in range(6)
    ]
    drawn = np.concatenate([plan.prompts for plan in plans])
    for start in range(0, 24, 6):
        assert sorted(drawn[start : start + 6].tolist()) == list(range(6))
    assert drawn[:6].tolist() != drawn[6:12].tolist()


def test_images_that_cannot_be_shared_evenly_are_refused_with_what_would_do() -> None:
    with pytest.raises(UsageError, match="a multiple of 10"):
        plan_images(TRAINING, seed=3, iteration=0, n_prompts=6, world_size=5)


def test_an_image_has_noise_of_its_own_always_the_same() -> None:
    import torch

    def noise(*place: int | str) -> list[float]:
        return torch.randn(4, generator=image_generator(*place)).tolist()

    assert noise(0, 1, 2, 3) == noise(0, 1, 2, 3)
    places = [(0, 1, 2, 3), (1, 1, 2, 3), (0, 2, 2, 3), (0, 1, 3, 3), (0, 1, 2, 4), (0, 12, 3)]
    assert len({tuple(noise(*one)) for one in places}) == len(places)


def test_windows_cover_the_first_half_and_nothing_else() -> None:
    """600 draws of 12 places: each is met 50 times in the mean, and 19 to 85 times (5 sigma)."""
    windows = [draw_window(28, 3, seed=0, iteration=n) for n in range(600)]
    starts = [window.start for window in windows]
    assert {len(window) for window in windows} == {3}
    assert set(starts) == set(range(12))
    assert max(window.stop for window in windows) == 14
    assert all(19 < starts.count(start) < 85 for start in range(12))
    assert windows[7] == draw_window(28, 3, seed=0, iteration=7)


@pytest.mark.parametrize(("steps", "size"), [(2, 1), (3, 1), (10, 5)])
def test_the_largest_window_fits(steps: int, size: int) -> None:
    assert draw_window(steps, size, seed=0, iteration=0) == range(size)
