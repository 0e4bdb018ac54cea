"""Elo ratings that depend neither on the order of the votes nor on where they start.

A run of Elo is ``evalica.elo`` (K = 4, start 1000, Elo 1978) over comparisons in random order: a
stretch of the endlessly reshuffled comparisons, so long that the contestant with the fewest plays
about :data:`GAMES` of them. Fewer leave every rating near its start, whatever the votes say; more
add nothing but time. Among them are the virtual results of :mod:`realbench.arena.bradley_terry`,
so that one comparison, played again and again, does not make a champion. The rating is the mean
over :data:`RUNS` runs.

A single run wanders around its mean by some 20 points, which would drown the effect of other
prompts in a bootstrap. So resamples follow the expected course of a run instead: the mean change
per comparison, taken in small steps. What is left of the wandering in the mean over runs is
added to each resample.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from realbench.arena.bradley_terry import virtual_ties
from realbench.arena.tally import FloatArray, Tally

START = 1000.0
K_FACTOR = 4.0
SCALE = 400.0
GAMES = 2000
RUNS = 100

# Of the expected course: the most that a step takes of the distance to the mean.
_LONGEST_STEP = 0.5
# Where some play ten times as often as others, the seldom ones settle for fewer games.
_LONGEST = 10 * GAMES


def elo(tally: Tally, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Elo ratings, and the standard error that the random orders leave; float64 (k,) each.

    nan for contestants without a comparison.
    """
    import evalica
    import pandas as pd

    length, virtual = run_length(tally), virtual_share(tally)
    index = pd.RangeIndex(len(tally.contestants))
    order = np.empty(0, dtype=np.intp)
    runs = np.empty((RUNS, len(index)))
    for row in runs:
        while len(order) < length:
            order = np.concatenate([order, rng.permutation(tally.n)])
        games, order = order[:length], order[length:]
        found = evalica.elo(
            tally.first[tally.pair[games]].tolist(),
            tally.second[tally.pair[games]].tolist(),
            outcomes(tally.score[games], rng, virtual).tolist(),
            index=index,
            initial=START,
            k=K_FACTOR,
            scale=SCALE,
        )
        row[:] = found.scores.reindex(index).to_numpy(float)
    played = tally.contestant_counts > 0
    error = runs.std(axis=0, ddof=1) / np.sqrt(RUNS)
    return np.where(played, runs.mean(axis=0), np.nan), np.where(played, error, np.nan)


def outcomes(
    score: FloatArray, rng: np.random.Generator, virtual: float = 0.0
) -> npt.NDArray[np.int64]:
    """evalica's codes of the scores' results: 1 a win, 2 a loss, 0 a tie; int64 (n,).

    A score between them (several judges) is drawn as a win or a loss with its odds; a share
    ``virtual`` of the results is drawn with even odds.
    """
    whole = np.isin(score, (0.0, 0.5, 1.0))
    chance = np.where(rng.random(len(score)) < virtual, 0.5, score)
    drawn = np.where(whole & (chance == score), score, rng.random(len(score)) < chance)
    return np.where(drawn == 0.5, 0, np.where(drawn > 0.5, 1, 2))


def virtual_share(tally: Tally) -> float:
    """The share of virtual results when they are added to the comparisons."""
    virtual = float(virtual_ties(tally).sum())
    return virtual / (virtual + tally.n)


def run_length(tally: Tally) -> int:
    """How many comparisons a run takes."""
    counts = tally.contestant_counts[tally.contestant_counts > 0]
    share = max(counts.min() / tally.n, counts.max() / tally.n * GAMES / _LONGEST)
    return int(np.ceil(GAMES / share))


def expected(tally: Tally, scores: FloatArray, counts: FloatArray) -> FloatArray:
    """The ratings to which a run leads on average, float64 (rows, k).

    Args:
        scores, counts: Of each pair (rows, Q), virtual results included.
    """
    from scipy import special

    total = counts.sum(axis=1, keepdims=True)
    most = run_length(tally) * tally.contestant_counts.max() / tally.n
    slope = np.log(10) / SCALE
    steps = int(np.ceil(most * K_FACTOR * slope / 4 / _LONGEST_STEP))
    gain = K_FACTOR * run_length(tally) / steps / np.maximum(total, 1.0)
    ratings = np.full((len(scores), len(tally.contestants)), START)
    for _ in range(steps):
        gap = ratings[:, tally.first] - ratings[:, tally.second]
        surprise = scores - counts * special.expit(gap * slope)
        ratings += gain * (surprise @ tally.incidence)
    return ratings
