"""Bradley–Terry ratings, a tie counted as half a win for each side.

The model says that a's expected score against b is ``1 / (1 + 10 ** ((b - a) / 400))`` (Bradley
and Terry 1952, Biometrika 39:324-345). With ties as half wins the estimate solves the model's
score equations for the mean score, whatever the law of ties: a quasi-likelihood (Papke and
Wooldridge 1996, J. Appl. Econometrics 11:619-632). So it agrees with the win rate and with Elo,
which count a tie half as well, and a judge whose two orders disagree at random is rated as its
single votes would be. Models with a tie parameter (Davidson 1970, JASA 65:317-328; Newman 2023,
JMLR 24(238)) rate decisive results only, which would double the distances for such a judge.

An undefeated or winless contestant has no finite maximum-likelihood rating. Therefore virtual ties
are added: as many as the model has free parameters (contestants less one), spread over the pairs
as the comparisons are. This is Firth's correction (1993, Biometrika 80:27-38) with equal
leverages, for two contestants exactly: it keeps ratings finite, takes away the first-order bias
of the log-odds, and vanishes as comparisons come in.
"""

from __future__ import annotations

import numpy as np

from realbench.arena.tally import FloatArray, Tally

POINTS = 400 / np.log(10)
"""Elo points of one unit of log-odds."""

MEAN = 1000.0

_TOLERANCE = 1e-9
_STEPS = 100
# A step longer than this in log-odds overshoots where results are nearly certain.
_LONGEST_STEP = 2.0
_ENTRIES = 1 << 22  # of the Hessians that are solved at once


def virtual_ties(tally: Tally) -> FloatArray:
    """Virtual ties of each pair, float64 (Q,); each is half a win for both."""
    played = tally.contestant_counts > 0
    free = int(played.sum()) - len(np.unique(tally.components()[played]))
    return tally.pair_counts * (free / max(1, tally.n))


def bradley_terry(tally: Tally) -> FloatArray:
    """Ratings in Elo points, float64 (k,), of mean 1000 in each component.

    nan for contestants without a comparison.
    """
    import evalica
    import pandas as pd

    ties = virtual_ties(tally) / 2
    wins = tally.pair_scores + ties
    losses = tally.pair_counts - tally.pair_scores + ties
    pairs = len(tally.first)
    k = len(tally.contestants)
    found = evalica.bradley_terry(
        [*tally.first.tolist(), *tally.first.tolist()],
        [*tally.second.tolist(), *tally.second.tolist()],
        [evalica.Winner.X] * pairs + [evalica.Winner.Y] * pairs,
        index=pd.RangeIndex(k),
        weights=[*wins.tolist(), *losses.tolist()],
        tolerance=1e-10,
        limit=10_000,
    )
    strengths = found.scores.reindex(range(k)).to_numpy(float)
    start = np.log(np.maximum(strengths, 1e-300))
    solved = solve(tally, wins[None], (wins + losses)[None], start)
    return _points(solved, tally)[0]


def with_virtual_results(
    tally: Tally, scores: FloatArray, counts: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Scores and counts (rows, Q) of resamples with virtual results drawn anew for each.

    They come from a gamma law with the mean of the virtual ties. Without this an undefeated
    contestant, who is undefeated in every resample, would seem to be known exactly; with it a
    single pair whose comparisons all agree gets the interval of Jeffreys' prior.

    Args:
        scores, counts: A block from :meth:`Tally.resamples`.
    """
    shape = np.broadcast_to(virtual_ties(tally) / 2, scores.shape)
    wins = np.maximum(rng.standard_gamma(shape), 1e-12)
    losses = np.maximum(rng.standard_gamma(shape), 1e-12)
    return scores + wins, counts + wins + losses


def resampled(
    tally: Tally, ratings: FloatArray, wins: FloatArray, totals: FloatArray
) -> FloatArray:
    """Ratings in Elo points of resampled comparisons, float64 (rows, k).

    Args:
        ratings: The ratings of all the comparisons, from :func:`bradley_terry`.
        wins, totals: From :func:`with_virtual_results`.
    """
    start = np.nan_to_num(ratings, nan=MEAN) / POINTS
    rows = max(1, _ENTRIES // (len(tally.contestants) ** 2 + len(tally.first)))
    parts = [
        solve(tally, wins[at : at + rows], totals[at : at + rows], start)
        for at in range(0, len(wins), rows)
    ]
    return _points(np.concatenate(parts), tally)


def solve(tally: Tally, wins: FloatArray, totals: FloatArray, start: FloatArray) -> FloatArray:
    """Maximise the Bradley–Terry likelihood of each row by Newton's method.

    Args:
        wins: The score of each pair's first contestant, float64 (rows, Q), above 0.
        totals: Comparisons of each pair (rows, Q), above the wins.
        start: Log-strengths to start from (k,).

    Returns:
        Log-strengths, float64 (rows, k), each component's of mean 0.
    """
    from scipy import special

    labels = tally.components()
    same = (labels[:, None] == labels[None, :]).astype(np.float64)  # fixes each component's mean
    values = np.tile(start, (len(wins), 1))
    for _ in range(_STEPS):
        chance = special.expit(values[:, tally.first] - values[:, tally.second])
        gradient = (wins - totals * chance) @ tally.incidence
        step = np.linalg.solve(
            _laplacian(totals * chance * (1 - chance), tally) + same, gradient[..., None]
        )[..., 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        values = values + step * np.minimum(1.0, _LONGEST_STEP / np.maximum(longest, 1e-300))
        if longest.max() < _TOLERANCE:
            break
    return values - (values @ same) / same.sum(axis=0)


def _laplacian(weights: FloatArray, tally: Tally) -> FloatArray:
    """Fisher information of the log-strengths, float64 (rows, k, k)."""
    k = len(tally.contestants)
    matrix = np.zeros((len(weights), k, k))
    matrix[:, tally.first, tally.second] = -weights
    matrix[:, tally.second, tally.first] = -weights
    matrix[:, np.arange(k), np.arange(k)] = -matrix.sum(axis=2)
    return matrix


def _points(values: FloatArray, tally: Tally) -> FloatArray:
    played = tally.contestant_counts > 0
    return np.where(played, values * POINTS + MEAN, np.nan)
