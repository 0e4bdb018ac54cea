"""Few votes of people made to count by many cheap ones: prediction-powered Bradley–Terry ratings.

The cheap judges' comparisons on all pairs predict what people would say; on the pairs that people
judged, too, it shows how far they are off. With h the ratings by people alone, l those by the cheap
judges on the same pairs and c those by the cheap judges on all pairs, the anchored ratings are

    h + power * (c - l)

which have the expectation of h whatever the cheap judges prefer, since l and c estimate the same,
and less variance where their errors go with people's. This is prediction-powered inference
(Angelopoulos et al. 2023, arXiv:2301.09633) with the power tuning of PPI++ (arXiv:2311.01453): the
power that makes the summed variance least, from 0, where the cheap judges are no help and the
result is people's alone, to 1. The correction is made in the ratings and not in the likelihood's
gradient (Kluger et al. 2025, arXiv:2501.18577), so that a judge that favors some contestant costs
nothing.

All three are rated on the same resamples of the prompts, which give the power and the intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realbench.arena import bradley_terry, ranking
from realbench.arena.records import Anchored
from realbench.arena.tally import FloatArray, Tally, from_draws, tally
from realbench.arena.votes import Comparison
from realbench.stats.bootstrap import draw_weights, row_blocks
from realbench.stats.record import rounded


def anchored(
    people: Sequence[Comparison],
    cheap: Sequence[Comparison],
    contestants: Sequence[str],
    *,
    anchor: str,
    resamples: int,
    seed: int,
) -> Anchored | str:
    """Rate by people's comparisons and the cheap judges' on the same and on further pairs.

    The pairs that people judged must be as good as drawn from all of them, as they are where people
    stopped before the end of the arena's random order.

    Args:
        people: One comparison a pair and prompt.
        cheap: Likewise; those of people without one of these take no part.
        contestants: All names.
        anchor: Whose comparisons ``people`` are.
        resamples, seed: Of the bootstrap over prompts.

    Returns:
        What ``ratings.json`` holds, or why there is no such rating.
    """
    units = {(one.prompt_id, one.a, one.b) for one in cheap}
    both = [one for one in people if (one.prompt_id, one.a, one.b) in units]
    judged = {(one.prompt_id, one.a, one.b) for one in both}
    also = [one for one in cheap if (one.prompt_id, one.a, one.b) in judged]
    every, alone, same = (tally(part, contestants) for part in (cheap, both, also))
    if not both or len(alone.prompts) < 2:
        return f"{anchor}: fewer than two prompts with comparisons that other judges made, too"
    if (alone.components() != every.components()).any():
        return f"{anchor}: its comparisons do not link all that the other judges' link"
    fitted = (alone, same, every)
    points = [bradley_terry.bradley_terry(one) for one in fitted]
    draws = _draws(fitted, points, resamples, seed)
    gap = draws[2] - draws[1]
    spread = float(np.nansum(np.nanvar(gap, axis=0)))
    shared = np.nansum(np.nanmean((draws[0] - points[0]) * (gap - np.nanmean(gap, axis=0)), axis=0))
    power = float(np.clip(-shared / spread, 0.0, 1.0)) if spread > 0 else 0.0
    rating = points[0] + power * (points[2] - points[1])
    drawn = draws[0] + power * gap
    worth = float(np.nansum(np.nanvar(draws[0], axis=0)) / np.nansum(np.nanvar(drawn, axis=0)))
    components = every.components()
    order = ranking.order_of(rating, components)
    # Of the pairs, only what people compared counts as comparisons, and their prompts as groups.
    ranks = ranking.ranks(
        rating,
        order,
        components,
        ranking.pair_differences(alone, rating, drawn, order, components),
    )
    counts, prompts = alone.contestant_counts, ranking.contestant_prompts(alone)
    return {
        "anchor": anchor,
        "n_anchor": alone.n,
        "n_cheap": every.n,
        "power": rounded(power),
        "worth": rounded(alone.n * worth),
        "ratings": [
            {
                "contestant": contestants[n],
                "rank": ranks[n][0],
                "rank_low": ranks[n][1],
                "rank_high": ranks[n][2],
                "bradley_terry": from_draws(
                    float(rating[n]), drawn[:, n], int(counts[n]), int(prompts[n])
                ),
                "alone": from_draws(
                    float(points[0][n]), draws[0][:, n], int(counts[n]), int(prompts[n])
                ),
            }
            for n in order
        ],
    }


def _draws(
    fitted: Sequence[Tally], points: Sequence[FloatArray], resamples: int, seed: int
) -> list[FloatArray]:
    """Ratings of each tally on the same resamples of the prompts, float64 (resamples, k) each."""
    rng = np.random.default_rng(seed)
    prompts = sorted({prompt for one in fitted for prompt in one.prompts})
    place = {prompt: n for n, prompt in enumerate(prompts)}
    columns = [[place[prompt] for prompt in one.prompts] for one in fitted]
    found: list[list[FloatArray]] = [[] for _ in fitted]
    for rows in row_blocks(resamples, max(len(prompts), len(fitted[-1].first))):
        weights = draw_weights(rng, len(prompts), rows)
        virtual = int(rng.integers(2**32))  # the same virtual results, so that they cancel
        for one, ratings, own, blocks in zip(fitted, points, columns, found, strict=True):
            counts, scores = one.by_prompt
            played = bradley_terry.with_virtual_results(
                one,
                np.asarray(weights[:, own] @ scores),
                np.asarray(weights[:, own] @ counts),
                np.random.default_rng(virtual),
            )
            blocks.append(bradley_terry.resampled(one, ratings, *played))
    return [np.concatenate(blocks) for blocks in found]
