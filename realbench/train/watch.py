"""The hacking watch: does the reward rise while judges outside of it see less realism?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from realbench.errors import RealBenchError, UsageError

_SMALLEST = 1e-6
"""Changes of a mean up to which nothing has changed: float32 scores differ by some 1e-7."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a mean over prompts has changed between two evaluations.

    Attributes:
        before, after: The two means.
        low, high: 95 % interval of their difference, paired over prompts.
    """

    before: float
    after: float
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"from {self.before:.3f} to {self.after:.3f} ({self.after - self.before:+.3f}, 95 % "
            f"interval {self.low:+.3f} to {self.high:+.3f})"
        )


class HackingWatch:
    """Warns when the reward rises while a held-out score falls.

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
        false_alarm: See above.

    Attributes:
        warnings: Those of the run so far, by step.
    """

    def __init__(self, *, false_alarm: float = 0.05) -> None:
        if not 0 < false_alarm < 1:
            raise UsageError(f"a share of false alarms lies between 0 and 1, not {false_alarm}")
        self._false_alarm = false_alarm
        self._steps: list[int] = []
        self._rewards: list[np.ndarray] = []
        self._heldout: list[np.ndarray] = []
        self.warnings: dict[int, str] = {}

    def observe(self, step: int, reward: npt.ArrayLike, heldout: npt.ArrayLike) -> str | None:
        """Take the figures of an evaluation; return a warning, one line, or None.

        After a run was resumed, an evaluation that is made again replaces the one there was, and
        those after it.

        Args:
            step: The iteration at which it was made.
            reward: Float (n,), the mean reward of each evaluation prompt's images.
            heldout: Float (n,), the same for the held-out detectors.

        Raises:
            UsageError: fewer than two prompts, or another number than before.
            RealBenchError: a figure is no number.
        """
        rewards, held = _checked(reward, "reward"), _checked(heldout, "held-out score")
        while self._steps and self._steps[-1] >= step:
            self.warnings.pop(self._steps.pop(), None)
            self._rewards.pop()
            self._heldout.pop()
        expected = len(self._rewards[0]) if self._steps else len(rewards)
        if not len(rewards) == len(held) == expected:
            raise UsageError(
                f"the watch has {expected} prompts, and now {len(rewards)} rewards and {len(held)} "
                "held-out scores: evaluate the same prompts every time"
            )
        warning = self._compare(step, rewards, held) if self._steps else None
        self._steps.append(step)
        self._rewards.append(rewards)
        self._heldout.append(held)
        if warning:
            self.warnings[step] = warning
        return warning

    def _compare(self, step: int, rewards: np.ndarray, held: np.ndarray) -> str | None:
        t = len(self._steps)
        level = self._false_alarm * 6 / (math.pi * t) ** 2 / t
        rises = _p_values(rewards - np.stack(self._rewards)) <= level
        falling = _p_values(np.stack(self._heldout) - held)
        both = np.flatnonzero(rises & (falling <= level))
        if not len(both):
            return None
        since = both[np.argmin(falling[both])]
        return (
            f"step {step}: the reward rises while the held-out score falls: since step "
            f"{self._steps[since]} the reward went {change(self._rewards[since], rewards)} and the "
            f"held-out score {change(self._heldout[since], held)}, over {len(held)} prompts; the "
            "model is learning to please the reward's detectors"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON values."""
        return {
            "steps": list(self._steps),
            "rewards": [one.tolist() for one in self._rewards],
            "heldout": [one.tolist() for one in self._heldout],
            "warnings": {str(step): text for step, text in self.warnings.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._steps = [int(step) for step in state["steps"]]
        self._rewards = [np.array(one, np.float64) for one in state["rewards"]]
        self._heldout = [np.array(one, np.float64) for one in state["heldout"]]
        self.warnings = {int(step): str(text) for step, text in state["warnings"].items()}


def change(before: Sequence[float] | np.ndarray, after: Sequence[float] | np.ndarray) -> Change:
    """Return how a mean changed, with its 95 % interval by Student's t, paired over prompts.

    Args:
        before, after: Float (n,), n at least 2, the same prompts.
    """
    from scipy import special

    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    difference = second - first
    n = len(difference)
    half = special.stdtrit(n - 1, 0.975) * difference.std(ddof=1) / math.sqrt(n)
    mean = difference.mean()
    return Change(float(first.mean()), float(second.mean()), float(mean - half), float(mean + half))


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


def _checked(values: npt.ArrayLike, what: str) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise UsageError(
            f"the watch needs the {what} of two evaluation prompts or more, not of shape "
            f"{array.shape}"
        )
    if not np.isfinite(array).all():
        raise RealBenchError(f"the {what} of a prompt is no number: nothing can be watched")
    return array
