"""Comparisons as arrays, counted by prompt and pair: all that ratings and intervals need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from realbench.arena.votes import Comparison
from realbench.stats import Interval
from realbench.stats.bootstrap import (
    clustered_wilson,
    draw_weights,
    expanded_percentiles,
    row_blocks,
)
from realbench.stats.record import Estimate, estimate

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Tally:
    """Comparisons between k contestants on P prompts over the Q pairs that met.

    The comparisons stand in the order of prompt, pair and score, so that nothing computed from
    them depends on the order in which the votes came.

    Attributes:
        contestants: Their names (k,); pairs and ratings refer to them by position.
        prompts: The prompts' ids (P,), sorted.
        first, second: The two contestants of each pair (Q,), first < second.
        prompt: The prompt of each comparison (n,), as a position in ``prompts``.
        pair: The pair of each comparison (n,), as a position in ``first`` and ``second``.
        score: What the pair's first contestant got of each comparison (n,): 1 for a win, 0.5 for
            a tie, 0 for a loss; anything between where several judges are combined.
    """

    contestants: list[str]
    prompts: list[str]
    first: IndexArray
    second: IndexArray
    prompt: IndexArray
    pair: IndexArray
    score: FloatArray

    @property
    def n(self) -> int:
        """The number of comparisons."""
        return len(self.score)

    @cached_property
    def incidence(self) -> FloatArray:
        """float64 (Q, k): +1 for the pair's first contestant, -1 for its second."""
        matrix = np.zeros((len(self.first), len(self.contestants)))
        rows = np.arange(len(self.first))
        matrix[rows, self.first] = 1.0
        matrix[rows, self.second] = -1.0
        return matrix

    @cached_property
    def pair_counts(self) -> FloatArray:
        """float64 (Q,): comparisons of each pair."""
        return np.bincount(self.pair, minlength=len(self.first)).astype(np.float64)

    @cached_property
    def pair_scores(self) -> FloatArray:
        """float64 (Q,): the sum of the scores of each pair's first contestant."""
        sums = np.bincount(self.pair, weights=self.score, minlength=len(self.first))
        return sums.astype(np.float64, copy=False)

    @cached_property
    def contestant_counts(self) -> FloatArray:
        """float64 (k,): comparisons of each contestant."""
        return self.pair_counts @ np.abs(self.incidence)

    def resamples(
        self, rng: np.random.Generator, resamples: int
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Draw the prompts with replacement, each with all its comparisons.

        Yields:
            Blocks of resamples: scores and counts of the pairs, float64 (rows, Q) each.
        """
        counts, scores = self.by_prompt
        for rows in row_blocks(resamples, max(len(self.prompts), len(self.first))):
            weights = draw_weights(rng, len(self.prompts), rows)
            yield np.asarray(weights @ scores), np.asarray(weights @ counts)

    @cached_property
    def by_prompt(self) -> tuple[Any, Any]:
        """Counts and scores, sparse (P, Q)."""
        from scipy import sparse

        shape = (len(self.prompts), len(self.first))
        cells = (self.prompt, self.pair)
        ones = np.ones_like(self.score)
        return (
            sparse.coo_array((ones, cells), shape=shape).tocsr(),
            sparse.coo_array((self.score, cells), shape=shape).tocsr(),
        )

    def components(self) -> IndexArray:
        """Which contestants are linked by comparisons, however indirectly: a label each (k,).

        Labels go from 0 for the component with the most contestants.
        """
        return self._components

    @cached_property
    def _components(self) -> IndexArray:
        from scipy import sparse

        k = len(self.contestants)
        links = sparse.coo_array((self.pair_counts, (self.first, self.second)), shape=(k, k))
        _, labels = sparse.csgraph.connected_components(links, directed=False)
        sizes = np.bincount(labels, minlength=1)
        rank = np.empty(len(sizes), dtype=np.intp)
        rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
        return rank[labels]


def tally(comparisons: Sequence[Comparison], contestants: Sequence[str]) -> Tally:
    """Count comparisons of one judge; see :class:`Tally`.

    Raises:
        ValueError: a comparison names somebody who is not among the contestants.
    """
    place = {name: n for n, name in enumerate(contestants)}
    try:
        a = np.fromiter((place[one.a] for one in comparisons), np.intp, len(comparisons))
        b = np.fromiter((place[one.b] for one in comparisons), np.intp, len(comparisons))
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is not among the contestants") from error
    score = np.fromiter((one.score for one in comparisons), np.float64, len(comparisons))
    prompts = sorted({one.prompt_id for one in comparisons})
    number = {name: n for n, name in enumerate(prompts)}
    prompt = np.fromiter((number[one.prompt_id] for one in comparisons), np.intp, len(comparisons))
    score = np.where(a < b, score, 1 - score)
    low, high = np.minimum(a, b), np.maximum(a, b)
    codes, pair = np.unique(low * len(place) + high, return_inverse=True)
    order = np.lexsort((score, pair, prompt))
    first, second = np.divmod(codes, max(1, len(place)))
    return Tally(
        list(contestants), prompts, first, second, prompt[order], pair[order], score[order]
    )


CONFIDENCE = 0.95


def without_interval(value: float, n: int, prompts: int) -> Estimate:
    """Return an estimate over too few prompts for an interval."""
    return estimate(Interval(value, math.nan, math.nan, n, prompts))


def from_draws(value: float, draws: FloatArray, n: int, prompts: int) -> Estimate:
    """An estimate with the expanded percentile interval of its resamples; none under 2 prompts."""
    if prompts < 2 or not math.isfinite(value):
        return without_interval(value, n, prompts)
    low, high = expanded_percentiles(draws, prompts, CONFIDENCE)
    # Rounding must not part an estimate from its interval.
    return estimate(Interval(value, min(low, value), max(high, value), n, prompts))


def share_from_draws(share: float, draws: FloatArray, n: int, prompts: int) -> Estimate:
    """A mean score in [0, 1] with Wilson's interval, see :func:`stats.bootstrap_share`."""
    if prompts < 2 or not math.isfinite(share):
        return without_interval(share, n, prompts)
    deviation = float(np.nanstd(draws))
    low, high = clustered_wilson(share, deviation, n, prompts, CONFIDENCE)
    return estimate(Interval(share, low, high, n, prompts))
