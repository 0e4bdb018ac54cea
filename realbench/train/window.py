"""The steps of a schedule that are sampled with noise and trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np


def draw_window(steps: int, size: int, *, rng: np.random.Generator) -> range:
    """Draw a window of consecutive steps within the first half of the schedule, uniformly.

    Outside the window a sampler takes ODE steps, so that only ``size`` steps of each image need
    gradients: Flow-GRPO-Fast (arXiv 2505.05470, section on training acceleration; also
    arXiv 2507.21802). The first half is where noise still decides what the image becomes.

    Args:
        steps: of the whole schedule.
        size: of the window.
        rng: the same state gives the same window, so processes that share a seed agree.

    Raises:
        UsageError: the window does not fit into the first half.
    """
    half = max(steps // 2, 1)
    if not 1 <= size <= half:
        raise UsageError(
            f"a window of {size} steps does not fit: give 1 to {half}, half of the {steps} steps"
        )
    start = int(rng.integers(half - size + 1))
    return range(start, start + size)
