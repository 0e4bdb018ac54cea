"""The window of trained steps."""

from __future__ import annotations

import numpy as np
import pytest

from realbench.errors import UsageError
from realbench.train.window import draw_window


def test_windows_cover_the_first_half_and_nothing_else() -> None:
    """600 draws of 12 places: each is met 50 times in the mean, and 19 to 85 times (5 sigma)."""
    rng = np.random.default_rng(0)
    windows = [draw_window(28, 3, rng=rng) for _ in range(600)]
    starts = [window.start for window in windows]
    assert {len(window) for window in windows} == {3}
    assert set(starts) == set(range(12))
    assert max(window.stop for window in windows) == 14
    assert all(19 < starts.count(start) < 85 for start in range(12))


def test_the_same_state_draws_the_same_window() -> None:
    draws = [draw_window(40, 2, rng=np.random.default_rng(3)) for _ in range(2)]
    assert draws[0] == draws[1]


@pytest.mark.parametrize(("steps", "size"), [(1, 1), (2, 1), (3, 1), (10, 5)])
def test_the_largest_window_fits(steps: int, size: int) -> None:
    assert draw_window(steps, size, rng=np.random.default_rng(0)) == range(size)


@pytest.mark.parametrize(("steps", "size"), [(10, 6), (10, 0), (3, 2)])
def test_a_window_that_does_not_fit_is_refused(steps: int, size: int) -> None:
    with pytest.raises(UsageError, match=f"a window of {size} steps does not fit"):
        draw_window(steps, size, rng=np.random.default_rng(0))
