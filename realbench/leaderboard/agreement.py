"""Whether a board's two scores put its models into the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from realbench.arena import bradley_terry
from realbench.arena.tally import FloatArray, Tally, tally
from realbench.arena.votes import Comparison
from realbench.leaderboard.schema import DetectorScores, Estimate
from realbench.stats.bootstrap import draw_weights

_RESAMPLES = 1000
_FEWEST = 5  # models; the orders of fewer say nothing


@dataclass(frozen=True)
class RankAgreement:
    """Rank correlations of realism and arena rating, each in [-1, 1].

    Attributes:
        spearman, kendall: Spearman's rho and Kendall's tau-b with 95 % intervals; ``n`` is the
            number of models.
    """

    spearman: Estimate
    kendall: Estimate


def rank_agreement(
    scores: Mapping[str, DetectorScores], comparisons: Sequence[Comparison], seed: int
) -> RankAgreement | None:
    """Correlate the order by mean realism with that by Bradley–Terry rating.

    The intervals' bootstrap draws prompts and models, each with replacement and independently
    (the pigeonhole bootstrap of Owen 2007, Annals of Applied Statistics 1:386-411), and computes
    both scores again from the drawn prompts.

    Args:
        scores: of the models whose order counts.
        comparisons: also with contestants, such as photographs, that are not among them.

    Returns:
        None where fewer than five models have both scores.
    """
    met = {name for one in comparisons for name in (one.a, one.b)}
    names = [name for name in sorted(scores) if name in met]
    if len(names) < _FEWEST:
        return None
    counted = tally(comparisons, sorted(met))
    prompts = sorted({*counted.prompts, *(i[0] for name in names for i in scores[name].images)})
    rng = np.random.default_rng(seed)
    every = np.ones((1, len(prompts)))
    weights = np.vstack([every, draw_weights(rng, len(prompts), _RESAMPLES)])
    realism = _realism(scores, names, prompts, weights)
    ratings = _ratings(counted, prompts, weights)[:, [counted.contestants.index(n) for n in names]]
    drawn = rng.integers(0, len(names), (_RESAMPLES, len(names)))
    models = np.vstack([np.arange(len(names)), drawn])
    found = np.array(
        [_correlations(x[m], y[m]) for x, y, m in zip(realism, ratings, models, strict=True)]
    )
    several = len(prompts) > 1
    spearman, kendall = (_estimate(one, len(names), len(prompts), several) for one in found.T)
    if spearman is None or kendall is None:
        return None
    return RankAgreement(spearman, kendall)


def _realism(
    scores: Mapping[str, DetectorScores],
    names: Sequence[str],
    prompts: Sequence[str],
    weights: FloatArray,
) -> FloatArray:
    """Mean realism of each model over the drawn prompts, float64 (rows, k); nan for none."""
    place = {prompt: n for n, prompt in enumerate(prompts)}
    sums, counts = np.zeros((2, len(prompts), len(names)))
    for n, name in enumerate(names):
        for prompt, _, realism, _ in scores[name].images:
            sums[place[prompt], n] += realism
            counts[place[prompt], n] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray((weights @ sums) / (weights @ counts))


def _ratings(counted: Tally, prompts: Sequence[str], weights: FloatArray) -> FloatArray:
    """Bradley–Terry ratings over the drawn prompts, float64 (rows, contestants)."""
    own = weights[:, [prompts.index(prompt) for prompt in counted.prompts]]
    counts, scores = counted.by_prompt
    ties = bradley_terry.virtual_ties(counted)
    wins, totals = np.asarray(own @ scores) + ties / 2, np.asarray(own @ counts) + ties
    return bradley_terry.resampled(counted, bradley_terry.bradley_terry(counted), wins, totals)


def _correlations(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    from scipy import stats

    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known].round(9), y[known].round(9)
    if len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return float("nan"), float("nan")
    return float(stats.spearmanr(x, y).statistic), float(stats.kendalltau(x, y).statistic)


def _estimate(found: FloatArray, n: int, n_prompts: int, several: bool) -> Estimate | None:
    if not np.isfinite(found[0]):
        return None
    low, high = np.nanquantile(found[1:], [0.025, 0.975]) if several else (None, None)
    return Estimate(
        mean=round(float(found[0]), 3),
        low=None if low is None else round(float(low), 3),
        high=None if high is None else round(float(high), 3),
        n=n,
        n_prompts=n_prompts,
    )
