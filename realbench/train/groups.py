"""Which images an iteration makes, and which process makes them.

Everything here is a function of the seed and the iteration, so that a run that goes on after a
kill, or on another number of processes, makes the same images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from realbench.errors import UsageError
from realbench.train.config import ImageTrainingConfig

if TYPE_CHECKING:
    import torch

# What a random choice is for; each has a stream of its own.
_ORDER, _WINDOW, _SHARES, _GLOBAL = range(4)


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """The images of an iteration, over all processes.

    Image ``i`` is member ``i % group_size`` of group ``i // group_size``. Groups are numbered by
    their place in the iteration, not by their prompt: an iteration that needs more groups than
    there are prompts has several groups of one prompt.

    Attributes:
        prompts: of each group, its prompt's position, (groups,).
        group_size: images of a group.
        parts: for each pass and each optimiser step the images it trains on, in
            ascending order within a process: int (passes * updates, world_size, share).
    """

    prompts: np.ndarray
    group_size: int
    parts: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """Each image's group, int (n,)."""
        return np.repeat(np.arange(len(self.prompts)), self.group_size)

    def of_process(self, rank: int) -> np.ndarray:
        """Return the images that a process makes, rewards and trains on, ascending."""
        return np.unique(self.parts[:, rank])


def plan_images(
    training: ImageTrainingConfig, *, seed: int, iteration: int, n_prompts: int, world_size: int
) -> ImagePlan:
    """Draw an iteration's prompts and share its images out.

    Prompts come in shuffled rounds: none a second time before all have had their turn. Which
    images train together is drawn for each iteration; a process trains on the images it made.

    Raises:
        UsageError: the images cannot be shared out evenly, as collective operations need it.
    """
    groups, images = training.prompts_per_iteration, training.images
    updates = training.updates_per_iteration
    if images % (updates * world_size):
        raise UsageError(
            f"{images} images an iteration cannot be shared evenly by {world_size} processes and "
            f"{updates} updates: make prompts_per_iteration × group_size a multiple of "
            f"{updates * world_size}"
        )
    places = iteration * groups + np.arange(groups)
    rounds = {
        number: _random(seed, _ORDER, number).permutation(n_prompts)
        for number in np.unique(places // n_prompts).tolist()
    }
    prompts = np.array([rounds[place // n_prompts][place % n_prompts] for place in places.tolist()])
    generator = _random(seed, _SHARES, iteration)
    # Which images train together does not depend on the number of processes.
    together = generator.permutation(images).reshape(updates, -1)
    shares = np.stack([together[:, rank::world_size] for rank in range(world_size)], axis=1)
    shares.sort(axis=2)
    parts = [shares[generator.permutation(updates)] for _ in range(training.passes)]
    return ImagePlan(prompts, training.group_size, np.concatenate(parts))


def draw_window(steps: int, size: int, *, seed: int, iteration: int) -> range:
    """Draw an iteration's window of trained steps within the schedule's first half, uniformly.

    Outside the window a sampler takes ODE steps, so that only ``size`` steps of each image need
    gradients: Flow-GRPO-Fast (arXiv 2505.05470, section on training acceleration; also
    arXiv 2507.21802). The first half is where noise still decides what the image becomes.

    Args:
        size: of the window, at most half of ``steps``.
    """
    starts = max(steps // 2, 1) - size + 1
    start = int(_random(seed, _WINDOW, iteration).integers(starts))
    return range(start, start + size)


def global_seed(seed: int, iteration: int) -> int:
    """Return the seed of the global generators in an iteration.

    Nothing here draws from them; a user's reward or network that does goes on alike after a kill.
    """
    return int(_random(seed, _GLOBAL, iteration).integers(2**31))


def image_generator(seed: int, *place: int | str) -> torch.Generator:
    """Return the CPU generator of one image's noise.

    Args:
        place: what tells the image from all others, such as iteration, group and member.
    """
    import torch

    text = "/".join(map(str, (seed, *place)))
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _random(seed: int, purpose: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, number])
