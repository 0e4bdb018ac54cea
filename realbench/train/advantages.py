"""Group-relative advantages: how much better than its prompt's other images an image is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from realbench.errors import RealBenchError
from realbench.reward.config import Mode

EPSILON = 1e-4
"""Added to the standard deviation, as in Flow-GRPO: differences far below it are left small."""

NO_VARIANCE = 1e-6
"""Largest minus smallest reward of a group up to which all its images count as equally good.

Rewards lie in [0, 1]; passes of other batch sizes differ by some 1e-7 in float32."""


@dataclass(frozen=True)
class Advantages:
    """Advantages of n images.

    Attributes:
        values: float32 (n,), within ±clip; 0 for every image of a group without variance.
        zero_groups: Groups from which nothing is learnt: of one image, or without variance in
            what the advantages are made of (with ``"per-component"``, in every component).
        groups: Groups in all.
    """

    values: np.ndarray
    zero_groups: int
    groups: int


def advantages(
    components: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    groups: np.ndarray,
    *,
    mode: Mode = "per-component",
    clip: float = 5.0,
    global_std: bool = False,
) -> Advantages:
    """Normalise rewards within the group of each prompt (GRPO, arXiv 2402.03300, section 4.1).

    With r the rewards of a group, A = (r - mean(r)) / (std(r) + 1e-4), std over the population.
    ``"sum"`` takes r as the weighted mean of the components. ``"per-component"`` normalises each
    component and takes the weighted mean of the results, so that one whose rewards differ little
    within a group weighs as much as one that spreads them widely.

    Args:
        components: Rewards by component, each float (n,) in [0, 1].
        weights: By component, at least 0; only their ratios count.
        groups: Int (n,), the group of each image, in any order; all images of all processes.
        mode: See above.
        clip: The values are cut to ±clip.
        global_std: Divide by the deviation over all images of the batch instead of the group's
            (Flow-GRPO's option of that name); groups without variance stay at 0 all the same.

    Raises:
        RealBenchError: a reward is NaN or infinite; the message names component and image.
    """
    rewards = {name: _finite(name, values) for name, values in components.items()}
    _, of_image, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    total = sum(weights[name] for name in rewards)
    share = {name: weights[name] / total for name in rewards if weights[name] > 0}
    terms = [(weight, rewards[name]) for name, weight in share.items()]
    if mode == "sum":
        terms = [(1.0, np.sum([weight * term for weight, term in terms], axis=0))]
    values = np.zeros(len(groups))
    nothing = np.ones(len(sizes), bool)
    for weight, term in terms:
        empty = _without_variance(term, of_image, sizes)
        values += weight * _normalised(term, empty, of_image, sizes, global_std)
        nothing &= empty
    return Advantages(
        values=np.clip(values, -clip, clip).astype(np.float32),
        zero_groups=int(nothing.sum()),
        groups=len(sizes),
    )


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    """Return a component's rewards as float64 (n,), or say which is no number."""
    array = np.asarray(values, np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise RealBenchError(
            f"component {name!r} gave {array[bad[0]]} for image {bad[0]} "
            f"({len(bad)} of {len(array)} rewards are no numbers): nothing is learnt from them"
        )
    return array


def _without_variance(values: np.ndarray, of_image: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return for each group whether its rewards are all the same, bool (groups,)."""
    low, high = np.full(len(sizes), np.inf), np.full(len(sizes), -np.inf)
    np.minimum.at(low, of_image, values)
    np.maximum.at(high, of_image, values)
    return high - low <= NO_VARIANCE


def _normalised(
    values: np.ndarray,
    empty: np.ndarray,
    of_image: np.ndarray,
    sizes: np.ndarray,
    global_std: bool,
) -> np.ndarray:
    centered = values - (np.bincount(of_image, values, len(sizes)) / sizes)[of_image]
    if global_std:
        deviation = np.std(values)
    else:
        deviation = np.sqrt(np.bincount(of_image, centered**2, len(sizes)) / sizes)[of_image]
    return np.where(empty[of_image], 0.0, centered / (deviation + EPSILON))
