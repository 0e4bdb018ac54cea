"""The hacking watch: does the reward rise while judges outside of it see less realism?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from realbench.errors import RealBenchError

_SMALLEST = 1e-6
"""Changes of a mean up to which nothing has changed: float32 scores differ by some 1e-7."""


def hacking_warning(
    evaluations: Mapping[int, Mapping[str, Sequence[float]]], *, false_alarm: float = 0.05
) -> str | None:
    """Return a warning, one line, where the reward rises while a held-out score falls; else None.

    Both are measured at every evaluation, on the same prompts. An evaluation is compared with each
    earlier one: the reward *rises* if its mean change over prompts is above 0 by Student's t-test,
    paired and one-sided, and the held-out score *falls* if its change is below 0 by the same test.
    It is a warning when both hold since one and the same earlier evaluation, so that a held-out
    score which first rises with the reward and then turns is found as well.

    The level of a test leaves room for all the others of a run: evaluation t (1 is the first that
    has an earlier one) may spend 6 / (π² t²) of ``false_alarm``, which adds up to the whole over
    any number of evaluations, and shares it evenly among its t comparisons (Bonferroni). So a run
    whose held-out score does not truly fall is warned of in at most ``false_alarm`` of all cases,
    however long it is. The price is that a fall must be clear: over 64 prompts whose changes
    spread by 0.1, it is found at evaluation 20 when it reaches 0.06; with half as many
    prompts, 0.10.

    Args:
        evaluations: by iteration, in their order, the last being the one that is asked about:
            ``"reward"`` and ``"heldout"`` of the same two prompts or more, each the mean of the
            prompt's images.
        false_alarm: see above.

    Raises:
        RealBenchError: a figure is no number.
    """
    steps = list(evaluations)
    rewards, heldout = (
        np.array([one[name] for one in evaluations.values()], np.float64)
        for name in ("reward", "heldout")
    )
    for values, what in ((rewards, "reward"), (heldout, "held-out score")):
        if not np.isfinite(values).all():
            raise RealBenchError(f"the {what} of a prompt is no number: nothing can be watched")
    t = len(steps) - 1
    if not t:
        return None
    level = false_alarm * 6 / (math.pi * t) ** 2 / t
    rises = _p_values(rewards[-1] - rewards[:-1]) <= level
    falling = _p_values(heldout[:-1] - heldout[-1])
    both = np.flatnonzero(rises & (falling <= level))
    if not len(both):
        return None
    since = both[np.argmin(falling[both])]
    return (
        f"step {steps[-1]}: the reward rises while the held-out score falls: since step "
        f"{steps[since]} the reward went {_change(rewards[since], rewards[-1])} and the held-out "
        f"score {_change(heldout[since], heldout[-1])}, over {rewards.shape[1]} prompts; the model "
        "is learning to please the reward's detectors"
    )


def _change(before: np.ndarray, after: np.ndarray) -> str:
    """Say how a mean changed, with its 95 % interval by Student's t, paired over prompts."""
    from scipy import special

    difference = after - before
    n = len(difference)
    half = special.stdtrit(n - 1, 0.975) * difference.std(ddof=1) / math.sqrt(n)
    mean = difference.mean()
    return (
        f"from {before.mean():.3f} to {after.mean():.3f} ({mean:+.3f}, 95 % interval "
        f"{mean - half:+.3f} to {mean + half:+.3f})"
    )


def _p_values(changes: np.ndarray) -> np.ndarray:
    """Return the one-sided p-value of "the mean is not above 0" for each row, float64 (t,)."""
    from scipy import special

    n = changes.shape[1]
    means = changes.mean(axis=1)
    errors = changes.std(axis=1, ddof=1) / math.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(np.abs(means) > _SMALLEST, means / errors, 0.0)
    p: np.ndarray = special.stdtr(n - 1, -statistic)
    return p
