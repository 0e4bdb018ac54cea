"""Verdicts with a bound on their errors: photograph, generated or unsure.

Split conformal prediction, for each class by itself. Let a new photograph and n held-out ones be
exchangeable. Its rank among them is then uniform, so that the p-value

    p = (1 + number of held-out photographs that score no higher) / (n + 1)

is at most a with probability at most a, whatever the distribution of the scores (Vovk, Gammerman
and Shafer 2005, Algorithmic Learning in a Random World; Angelopoulos and Bates 2021, arXiv
2107.07511, equation 1 and theorem 1; their section 4.2 on each class by itself, 4.4 on tests of
one class). The same holds for generated images and the scores that are no lower. An image is
called generated where it is not taken for a photograph (p at most a) and may be generated, a
photograph where it is the other way round, and else nothing is claimed.

The bound holds on average over samples. That of one sample is distributed as Beta(k, n + 1 - k)
with k = floor(a (n + 1)) (section 3.2 there), and says nothing of photographs of a kind of which
the sample has none: :func:`errors_by_source` measures that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from realbench.stats.bootstrap import FloatArray, finite

PHOTOGRAPH, GENERATED, UNSURE = "photograph", "generated", "unsure"
VERDICTS = (PHOTOGRAPH, UNSURE, GENERATED)

# Scores are compared as scores.csv has them, so that its column can be checked against it.
_DECIMALS = 6

BySource = Mapping[str, npt.ArrayLike]


@dataclass(frozen=True)
class VerdictRule:
    """Which scores are called what.

    Attributes:
        low: a photograph scores below it with probability at most ``max_false_alarm``.
        high: a generated image scores above it with probability at most ``max_false_alarm``.
        low_level, high_level: the probabilities that they were fitted to, no higher.
        max_false_alarm: the bound, above 0 and at most 0.5.
        n_photographs, n_generated: the held-out images that the rule was fitted on.
    """

    low: float
    high: float
    low_level: float
    high_level: float
    max_false_alarm: float
    n_photographs: int
    n_generated: int

    def verdicts(self, realism: npt.ArrayLike) -> npt.NDArray[np.str_]:
        """Return what each image is called, text (n,): one of :data:`VERDICTS`.

        Args:
            realism: (n,), in [0, 1]; nothing is called for nan, whose text is empty.
        """
        scores = np.round(np.asarray(realism, np.float64), _DECIMALS)
        no_photograph, not_generated = scores < self.low, scores > self.high
        claims = [np.isnan(scores), no_photograph & ~not_generated, not_generated & ~no_photograph]
        return np.select(claims, ["", GENERATED, PHOTOGRAPH], UNSURE)


def fit_verdicts(
    photographs: BySource, generated: BySource, max_false_alarm: float = 0.05
) -> VerdictRule:
    """Fit the rule on held-out scores, of images that no detector learned from.

    Where a class has several sources its level is lowered until, each source judged by a rule
    fitted on the others, no more than ``max_false_alarm`` of all its images are called wrongly:
    new images come from new sources, which scatter more than images of known ones.

    With fewer than ``1 / max_false_alarm - 1`` photographs none can be called generated, and with
    as few generated images none a photograph.

    Args:
        photographs: realism by source, each (n,), in [0, 1].
        generated: realism by generator, each (m,).
        max_false_alarm: the share of photographs that may be called generated, and of generated
            images that may be called photographs.

    Raises:
        ValueError: ``max_false_alarm`` is not above 0 and at most 0.5.
    """
    if not 0 < max_false_alarm <= 0.5:
        raise ValueError(f"max_false_alarm must be above 0 and at most 0.5, not {max_false_alarm}")
    real, made = _rounded(photographs), _rounded(generated, sign=-1)
    low_level, high_level = _level(real, max_false_alarm), _level(made, max_false_alarm)
    every_real, every_made = (np.sort(np.concatenate(list(one.values()))) for one in (real, made))
    return VerdictRule(
        low=_threshold(every_real, low_level),
        high=-_threshold(every_made, high_level),
        low_level=low_level,
        high_level=high_level,
        max_false_alarm=max_false_alarm,
        n_photographs=len(every_real),
        n_generated=len(every_made),
    )


def _rounded(scores: BySource, sign: int = 1) -> dict[str, FloatArray]:
    return {name: sign * np.round(finite(one, name), _DECIMALS) for name, one in scores.items()}


def _level(scores: Mapping[str, FloatArray], bound: float) -> float:
    """Return k / (n + 1): the largest level within the bound, also for sources left out."""
    n = sum(map(len, scores.values()))
    rests = _rests(scores)
    most = math.floor(bound * (n + 1) + 1e-9)  # the product may lack a rounding error
    for k in range(most, 0, -1):
        low = {name: _threshold(rest, k / (n + 1)) for name, rest in rests.items()}
        if sum(np.sum(scores[name] < low[name]) for name in low) <= bound * n:
            return k / (n + 1)
    return 0.0


def _rests(scores: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return by source the sorted scores of all others; nothing where there is one source."""
    if len(scores) < 2:
        return {}
    return {
        name: np.sort(np.concatenate([one for other, one in scores.items() if other != name]))
        for name in scores
    }


def _threshold(scores: FloatArray, level: float) -> float:
    """Return the score below which an image's p-value among sorted ones is at most ``level``.

    The p-value is at most a where at most k - 1 scores are below the image's or equal it, with
    k = floor(a (n + 1)): where it is below the k-th. Without a k-th it is below none.
    """
    k = math.floor(level * (len(scores) + 1) + 1e-9)
    return float(scores[k - 1]) if k else -math.inf


def errors_by_source(
    photographs: BySource, generated: BySource, max_false_alarm: float = 0.05
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure the rule on sources that it was not fitted on, at the levels of the one of all.

    Args:
        photographs: realism by source, each (n,), in [0, 1].
        generated: realism by generator, each (m,).
        max_false_alarm: as for :func:`fit_verdicts`.

    Returns:
        by source, the share of its photographs that are called generated by a rule fitted on all
        other sources; by generator, the share of its images that are called photographs likewise.
        A class of one source has none.
    """
    rule = fit_verdicts(photographs, generated, max_false_alarm)
    real, made = _rounded(photographs), _rounded(generated, sign=-1)

    def share(without: VerdictRule, scores: npt.ArrayLike, wrong: str) -> float:
        return float(np.mean(without.verdicts(scores) == wrong))

    return {
        name: share(replace(rule, low=_threshold(rest, rule.low_level)), real[name], GENERATED)
        for name, rest in _rests(real).items()
    }, {
        name: share(replace(rule, high=-_threshold(rest, rule.high_level)), -made[name], PHOTOGRAPH)
        for name, rest in _rests(made).items()
    }


@dataclass(frozen=True)
class Spread:
    """How an error differs among sources: the median, the largest, and whose of n images it is."""

    median: float
    largest: float
    of: str
    n: int
    n_sources: int

    @classmethod
    def over(cls, errors: Mapping[str, float], scores: BySource) -> Spread:
        """Sum up the errors by source, one at least, which were made on ``scores``."""
        worst = max(errors, key=lambda name: errors[name])
        median = float(np.median(list(errors.values())))
        return cls(median, errors[worst], worst, len(np.asarray(scores[worst])), len(errors))


@dataclass(frozen=True)
class Stability:
    """How many of n verdicts a change of the images changes.

    Attributes:
        changed: the share that becomes another verdict.
        reversed: the share that goes from photograph to generated or back.
        n: how many images.
    """

    changed: float
    reversed: float
    n: int


def verdict_stability(rule: VerdictRule, before: npt.ArrayLike, after: npt.ArrayLike) -> Stability:
    """Compare the verdicts of the same images before and after a change, such as re-encoding.

    Args:
        before, after: realism of the images in the same order, (n,) each, in [0, 1].
    """
    first, second = (rule.verdicts(finite(one, "realism")) for one in (before, after))
    changed = first != second
    claims = (first != UNSURE) & (second != UNSURE)
    return Stability(float(changed.mean()), float((changed & claims).mean()), len(first))
