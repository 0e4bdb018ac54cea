"""Group-relative advantages: how much better than its prompt's other images an image is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from realbench.errors import RealBenchError, UsageError
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
        zero_by_component: The same count for each component alone; one that is at its end (all
            rewards 1, say) shows here before the whole does.
    """

    values: np.ndarray
    zero_groups: int
    groups: int
    zero_by_component: dict[str, int] = field(default_factory=dict)


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
        weights: By component, at least 0; only their ratios count. Of weight 0, a component is
            counted in ``zero_by_component`` and nothing else.
        groups: Int (n,), the group of each image, in any order; all images of all processes.
        mode: See above.
        clip: The values are cut to ±clip.
        global_std: Divide by the deviation over all images of the batch instead of the group's
            (Flow-GRPO's option of that name); groups without variance stay at 0 all the same.

    Raises:
        UsageError: no components, no weight above 0, or shapes that do not fit.
        RealBenchError: a reward is NaN or infinite; the message names component and image.
    """
    groups = np.asarray(groups)
    rewards = _checked(components, weights, groups)
    if mode not in ("per-component", "sum"):
        raise UsageError(f"no mode {mode!r} of advantages: per-component or sum")
    if not clip > 0:
        raise UsageError(f"advantages are clipped to a number above 0, not {clip}")
    _, of_image, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    flat = {name: _without_variance(one, of_image, sizes) for name, one in rewards.items()}
    total = sum(weights[name] for name in rewards)
    share = {name: weights[name] / total for name in rewards if weights[name] > 0}
    if mode == "sum":
        mean = np.sum([weight * rewards[name] for name, weight in share.items()], axis=0)
        terms = [(1.0, mean, _without_variance(mean, of_image, sizes))]
    else:
        terms = [(weight, rewards[name], flat[name]) for name, weight in share.items()]
    values = np.zeros(len(groups))
    for weight, term, empty in terms:
        values += weight * _normalised(term, empty, of_image, sizes, global_std)
    nothing = np.logical_and.reduce([empty for _, _, empty in terms])
    return Advantages(
        values=np.clip(values, -clip, clip).astype(np.float32),
        zero_groups=int(nothing.sum()),
        groups=len(sizes),
        zero_by_component={name: int(one.sum()) for name, one in flat.items()},
    )


def _checked(
    components: Mapping[str, np.ndarray], weights: Mapping[str, float], groups: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the rewards as float64 (n,) by component, or say what is wrong with them."""
    if not components:
        raise UsageError("advantages need the rewards of at least one component")
    missing = [name for name in components if name not in weights]
    if missing:
        raise UsageError(f"component {missing[0]!r} has no weight")
    given = [weights[name] for name in components]
    if not all(np.isfinite(w) and w >= 0 for w in given) or not sum(given) > 0:
        raise UsageError(f"weights must be 0 or more, and one above 0, not {given}")
    if groups.ndim != 1:
        raise UsageError(f"groups must have shape (n,), not {groups.shape}")
    rewards = {}
    for name, values in components.items():
        array = np.asarray(values, np.float64)
        if array.shape != groups.shape:
            raise UsageError(f"{array.shape} rewards of {name!r} for {groups.shape} groups")
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            raise RealBenchError(
                f"component {name!r} gave {array[bad[0]]} for image {bad[0]} "
                f"({len(bad)} of {len(array)} rewards are no numbers): nothing is learnt from them"
            )
        rewards[name] = array
    return rewards


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
        deviation = np.std(values) if len(values) else 0.0
    else:
        deviation = np.sqrt(np.bincount(of_image, centered**2, len(sizes)) / sizes)[of_image]
    return np.where(empty[of_image], 0.0, centered / (deviation + EPSILON))
