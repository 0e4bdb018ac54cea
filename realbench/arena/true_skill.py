"""TrueSkill ratings (Herbrich, Minka and Graepel 2006, NIPS 19), on their own scale.

Everybody starts at mu = 25, sigma = 25 / 3, and the mean of all stays at 25. The contestants do
not change during an arena, so the skills do not drift (tau = 0), and the probability of a draw is
the share of ties in the comparisons. The ratings come from the ``trueskill`` package, one
comparison after the other in a random order. That is slow in Python: from more than :data:`GAMES`
comparisons, as many are drawn at random.

Intervals are over prompts, as those of the other ratings: up to :data:`RESAMPLES` resamples are
rated, all at a time, with the closed form that the package's message passing has for two players.
As each resample has its own order and its own draw of comparisons, the interval holds for these,
too. Resamples contain virtual results (see :mod:`realbench.arena.bradley_terry`), so that even an
undefeated contestant's skill has an interval.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from realbench.arena.elo import outcomes, virtual_share
from realbench.arena.tally import FloatArray, Tally
from realbench.stats.bootstrap import draw_weights

GAMES = 10_000
RESAMPLES = 200

_LEAST_DRAWS, _MOST_DRAWS = 0.001, 0.95


def true_skill(tally: Tally, rng: np.random.Generator) -> FloatArray:
    """The skills' means mu, float64 (k,); nan for contestants without a comparison."""
    import trueskill

    world = environment(tally)
    ratings = [world.create_rating() for _ in tally.contestants]
    games = rng.permutation(tally.n)[:GAMES]
    for pair, result in zip(tally.pair[games], outcomes(tally.score[games], rng), strict=True):
        one, other = int(tally.first[pair]), int(tally.second[pair])
        if result == 2:
            one, other = other, one
        try:
            ratings[one], ratings[other] = trueskill.rate_1vs1(
                ratings[one], ratings[other], drawn=bool(result == 0), env=world
            )
        except FloatingPointError:  # a result so certain that it changes nothing measurable
            continue
    mu = np.array([[rating.mu for rating in ratings]])
    return np.where(tally.contestant_counts > 0, _centred(mu, tally)[0], np.nan)


def _centred(mu: FloatArray, tally: Tally) -> FloatArray:
    """Move each row's means so that every linked part has the starting mean on average.

    Comparisons say nothing of the common level, which drifts with the order.
    """
    import trueskill

    labels = tally.components()
    same = (labels[:, None] == labels[None, :]).astype(np.float64)
    return mu - (mu @ same) / same.sum(axis=0) + trueskill.MU


def environment(tally: Tally) -> Any:
    """The package's settings for these comparisons."""
    import trueskill

    ties = float(np.mean(tally.score == 0.5)) if tally.n else 0.0
    draws = min(max(ties, _LEAST_DRAWS), _MOST_DRAWS)
    return trueskill.TrueSkill(tau=0.0, draw_probability=draws)


def resampled(tally: Tally, resamples: int, rng: np.random.Generator) -> FloatArray:
    """The means mu of resamples of the prompts, float64 (rows, k); at most RESAMPLES rows."""
    rows = min(resamples, RESAMPLES)
    length = min(tally.n, GAMES)
    games = np.empty((rows, length), dtype=np.intp)
    for row in games:
        times = draw_weights(rng, len(tally.prompts), 1)[0].astype(np.intp)
        drawn = np.repeat(np.arange(tally.n), times[tally.prompt])
        if len(drawn) > 4 * length:
            row[:] = drawn[rng.integers(len(drawn), size=length)]
        else:
            order = rng.permutation(drawn)[:length]
            row[: len(order)] = order
            row[len(order) :] = -1  # prompts differ in size; no game
    return play(tally, games, rng, virtual=virtual_share(tally))


def play(
    tally: Tally, games: npt.NDArray[np.intp], rng: np.random.Generator, *, virtual: float
) -> FloatArray:
    """The means mu (rows, k) after each row's games in their order.

    Args:
        games: Positions of comparisons (rows, length); -1 is no game.
        virtual: The share of results that are drawn with even odds instead.
    """
    import trueskill

    world = environment(tally)
    margin = float(trueskill.calc_draw_margin(world.draw_probability, 2, world))
    rows = np.arange(len(games))
    mu = np.full((len(games), len(tally.contestants)), world.mu)
    variance = np.full_like(mu, world.sigma**2)
    results = outcomes(tally.score[games.ravel()], rng, virtual).reshape(games.shape)
    for game, result in zip(games.T, results.T, strict=True):
        pair = tally.pair[game]
        swapped = result == 2
        winner = np.where(swapped, tally.second[pair], tally.first[pair])
        loser = np.where(swapped, tally.first[pair], tally.second[pair])
        spread = 2 * world.beta**2 + variance[rows, winner] + variance[rows, loser]
        scale = np.sqrt(spread)
        gap = (mu[rows, winner] - mu[rows, loser]) / scale
        v, w = _moments(gap, margin / scale, result == 0)
        real = game >= 0
        v, w = np.where(real, v, 0.0), np.where(real, w, 0.0)
        for who, sign in ((winner, 1.0), (loser, -1.0)):
            own = variance[rows, who]
            mu[rows, who] += sign * own / scale * v
            variance[rows, who] = own * (1 - own / spread * w)
    return _centred(mu, tally)


def _moments(
    gap: FloatArray, margin: FloatArray, drawn: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """What a result does to mean and variance: V and W of Herbrich et al., section 3."""
    from scipy import special

    def density(x: FloatArray) -> FloatArray:
        return np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)

    x = gap - margin
    won = density(x) / np.maximum(special.ndtr(x), 1e-300)
    won = np.where(x < -30, -x, won)
    upper, lower = margin - gap, -margin - gap
    inside = np.maximum(special.ndtr(upper) - special.ndtr(lower), 1e-300)
    tied = (density(lower) - density(upper)) / inside
    shrink = tied**2 + (upper * density(upper) - lower * density(lower)) / inside
    v, w = np.where(drawn, tied, won), np.where(drawn, shrink, won * (won + x))
    return v, np.clip(w, 0.0, 1.0)
