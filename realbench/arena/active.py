"""Schedule ``active``: judge next what tells most about the order of contestants close in rank.

First every contestant meets a few random others, in rounds that link all of them. From then on
the next pair is the one that lowers the expected cost of wrong orders most. With a Bradley–Terry
fit to what is known, the distance d of two contestants has a standard error s; putting them in the
order of the estimate costs, in points of rating, ``s phi(d / s) - |d| Phi(-|d| / s)`` on average
(the expected loss of a wrong choice: Chick and Inoue 2001, Operations Research 49:732-743), and
less variance lowers that by ``phi(d / s) / (2 s)`` a unit. A comparison with expected score p adds
p (1 - p) to the Fisher information, which narrows not only the distance of its own two. So neither
foregone results are asked for, nor neighbours that are apart already.

It goes on until all neighbours are apart, as :func:`realbench.arena.ratings.rate` finds after
correction for all pairs, or until no pair is left. Which pairs are judged then depends on results.
Estimates stay consistent, but bootstrap intervals take the choice as given, and to look again after
every batch makes "apart" a little too easy; neither is corrected for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from realbench.arena import bradley_terry, ranking
from realbench.arena.tally import FloatArray, IndexArray, Tally, tally
from realbench.arena.votes import Comparison

OPENING_ROUNDS = 2
"""Rounds of the opening; each links everybody in a random circle."""

RESAMPLES = 200
"""Resamples of the prompts in the check whether neighbours are apart."""

# Distances whose order counts, and pairs that are considered, in places of the ranking.
_CLOSE = 4
_IN_REACH = 8

# Information on each log-strength before any comparison: keeps unlinked contestants' variance
# finite, and matters to nothing else.
_PRIOR_INFORMATION = 1e-2

Pair = tuple[int, int]


class ActiveSchedule:
    """Chooses which pair is judged next on which prompt.

    Attributes:
        stop_reason: After :meth:`next_batch` returned nothing: ``"separated"`` where all neighbours
            are apart, ``"complete"`` where no pair is left; else None.
    """

    stop_reason: Literal["separated", "complete"] | None

    def __init__(
        self,
        contestants: Sequence[str],
        prompts_of_pair: Mapping[tuple[str, str], Sequence[str]],
        seed: int = 0,
    ) -> None:
        """Prepare; ``prompts_of_pair`` names the prompts that two contestants share.

        Its keys are pairs in either order. Equal arguments give equal choices.

        Raises:
            ValueError: a pair names somebody who is not among the contestants.
        """
        self.stop_reason = None
        self._contestants = list(contestants)
        self._place = {name: n for n, name in enumerate(self._contestants)}
        rng = np.random.default_rng(seed)
        self._open: dict[Pair, list[str]] = {}
        for (a, b), prompts in sorted(prompts_of_pair.items()):
            if a not in self._place or b not in self._place or a == b:
                raise ValueError(f"{a} and {b} are no pair of the contestants")
            self._open[self._pair(a, b)] = rng.permutation(sorted(set(prompts))).tolist()
        self._opening = opening(len(self._contestants), self._open, rng)
        self._seen: set[tuple[str, Pair]] = set()

    def next_batch(self, comparisons: Sequence[Comparison], n: int) -> list[tuple[str, str, str]]:
        """Choose up to ``n`` pairs, most informative first: (prompt id, a, b) with a < b as text.

        Args:
            comparisons: All results so far. What is among them, or was chosen before (and may
                have come to nothing), is not chosen.
            n: How many at most.

        Returns:
            Nothing where all neighbours are apart or no pair is left; see ``stop_reason``.
        """
        self.stop_reason = None
        self._seen.update((one.prompt_id, self._pair(one.a, one.b)) for one in comparisons)
        batch = self._rest_of_opening(n)
        if not batch and comparisons:
            counted = tally(comparisons, self._contestants)
            knowledge = Knowledge(counted)
            if knowledge.seems_separated() and separated(counted):
                self.stop_reason = "separated"
                return []
            batch = self._informative(knowledge, n)
        if not batch:
            batch = [self._take(pair) for pair in self._pairs_left()[:n]]
        if not batch:
            self.stop_reason = "complete"
        return [(prompt, *self._names(pair)) for prompt, pair in batch]

    def _pair(self, a: str, b: str) -> Pair:
        one, other = self._place[a], self._place[b]
        return min(one, other), max(one, other)

    def _names(self, pair: Pair) -> tuple[str, str]:
        a, b = sorted((self._contestants[pair[0]], self._contestants[pair[1]]))
        return a, b

    def _is_left(self, pair: Pair) -> bool:
        prompts = self._open[pair]
        while prompts and (prompts[-1], pair) in self._seen:
            prompts.pop()
        return bool(prompts)

    def _pairs_left(self) -> list[Pair]:
        return [pair for pair in self._open if self._is_left(pair)]

    def _take(self, pair: Pair) -> tuple[str, Pair]:
        chosen = (self._open[pair].pop(), pair)
        self._seen.add(chosen)
        return chosen

    def _rest_of_opening(self, n: int) -> list[tuple[str, Pair]]:
        """Pairs of the opening that have not been chosen yet, also in an earlier run."""
        chosen = Counter(pair for _, pair in self._seen)
        batch: list[tuple[str, Pair]] = []
        for pair in self._opening:
            if chosen[pair]:
                chosen[pair] -= 1
            elif len(batch) < n and self._is_left(pair):
                batch.append(self._take(pair))
        return batch

    def _informative(self, knowledge: Knowledge, n: int) -> list[tuple[str, Pair]]:
        batch: list[tuple[str, Pair]] = []
        pairs = self._pairs_left()
        while len(batch) < n and pairs:
            pair = pairs[knowledge.most_informative(np.array(pairs))]
            knowledge.expect(pair)
            batch.append(self._take(pair))
            if not self._is_left(pair):
                pairs.remove(pair)
        return batch


def opening(
    contestants: int, pairs: Mapping[Pair, Sequence[str]], rng: np.random.Generator
) -> list[Pair]:
    """Random circles through all contestants, as far as their pairs share prompts; then, where
    circles had to be broken, pairs that link what can be linked.

    Args:
        pairs: The prompts of each pair that can be judged.
    """
    chosen: list[Pair] = []
    for _ in range(OPENING_ROUNDS):
        circle = rng.permutation(contestants).tolist()
        around = zip(circle, [*circle[1:], circle[0]], strict=True)
        chosen += [(min(a, b), max(a, b)) for a, b in around]
    chosen = [pair for pair in chosen if pairs.get(pair)]
    part = list(range(contestants))
    others = [pair for pair in pairs if pairs[pair]]
    for a, b in [*chosen, *(others[n] for n in rng.permutation(len(others)))]:
        if part[a] != part[b]:
            part = [part[a] if one == part[b] else one for one in part]
            if (a, b) not in chosen:
                chosen.append((a, b))
    counts: Counter[Pair] = Counter()
    kept = []
    for pair in chosen:  # two contestants, or three, go round in fewer pairs than a circle has
        if counts[pair] < len(pairs[pair]):
            kept.append(pair)
            counts[pair] += 1
    return kept


class Knowledge:
    """A Bradley–Terry fit and its covariance, updated by what chosen comparisons will add."""

    def __init__(self, counted: Tally) -> None:
        ratings = np.nan_to_num(bradley_terry.bradley_terry(counted), nan=bradley_terry.MEAN)
        self.values: FloatArray = np.asarray(ratings / bradley_terry.POINTS, dtype=np.float64)
        totals = counted.pair_counts + bradley_terry.virtual_ties(counted)
        chance = self._chance(counted.first, counted.second)
        information = counted.incidence.T * (totals * chance * (1 - chance)) @ counted.incidence
        k = len(self.values)
        self.covariance: FloatArray = np.asarray(
            np.linalg.inv(information + _PRIOR_INFORMATION * np.eye(k)), dtype=np.float64
        )
        order = np.argsort(-self.values, kind="stable")
        self.rank: IndexArray = np.empty(k, dtype=np.intp)
        self.rank[order] = np.arange(k)
        lags = [(order[:-lag], order[lag:]) for lag in range(1, min(_CLOSE, k - 1) + 1)]
        self.above: IndexArray = np.concatenate([above for above, _ in lags])
        self.below: IndexArray = np.concatenate([below for _, below in lags])

    def _chance(self, a: IndexArray, b: IndexArray) -> FloatArray:
        from scipy import special

        return np.asarray(special.expit(self.values[a] - self.values[b]))

    def _variance(self, a: IndexArray, b: IndexArray) -> FloatArray:
        own = np.diag(self.covariance)
        return np.asarray(own[a] + own[b] - 2 * self.covariance[a, b])

    def seems_separated(self) -> bool:
        """Whether all neighbours are two standard errors apart if prompts do not matter."""
        k = len(self.values)
        above, below = self.above[: k - 1], self.below[: k - 1]
        errors = np.sqrt(self._variance(above, below))
        return bool((self.values[above] - self.values[below] > 2 * errors).all())

    def most_informative(self, pairs: IndexArray) -> int:
        """Which of the pairs (n, 2) lowers the expected cost of wrong orders most."""
        near = np.flatnonzero(np.abs(self.rank[pairs[:, 0]] - self.rank[pairs[:, 1]]) <= _IN_REACH)
        reach = near if len(near) else np.arange(len(pairs))
        a, b = pairs[reach].T
        chance = self._chance(a, b)
        weight = chance * (1 - chance)
        above, below = self.above[:, None], self.below[:, None]
        shared = (
            self.covariance[above, a]
            - self.covariance[above, b]
            - self.covariance[below, a]
            + self.covariance[below, b]
        )
        error = np.sqrt(self._variance(self.above, self.below))
        gap = (self.values[self.above] - self.values[self.below]) / error
        value = np.exp(-0.5 * gap * gap) / error
        gain = (value @ shared**2) * weight / (1 + weight * self._variance(a, b))
        return int(reach[np.argmax(gain)])

    def expect(self, pair: Pair) -> None:
        """Add the information of one comparison of the pair."""
        a, b = pair
        chance = float(self._chance(np.array([a]), np.array([b]))[0])
        weight = chance * (1 - chance)
        column = self.covariance[:, a] - self.covariance[:, b]
        self.covariance = self.covariance - np.outer(column, column) * (
            weight / (1 + weight * (column[a] - column[b]))
        )


def separated(counted: Tally) -> bool:
    """Whether all neighbours in the ranking are apart, as the ratings will say."""
    components = counted.components()
    if components.max(initial=0) > 0:
        return False
    rng = np.random.default_rng(0)
    ratings = bradley_terry.bradley_terry(counted)
    draws = np.concatenate(
        [
            bradley_terry.resampled(
                counted, ratings, *bradley_terry.with_virtual_results(counted, scores, counts, rng)
            )
            for scores, counts in counted.resamples(rng, RESAMPLES)
        ]
    )
    order = ranking.order_of(ratings, components)
    pairs = ranking.pair_differences(counted, ratings, draws, order, components)
    apart = {(pair["a"], pair["b"]) for pair in pairs if not pair["tied"]}
    names = [counted.contestants[n] for n in order]
    return all(neighbours in apart for neighbours in pairwise(names))
