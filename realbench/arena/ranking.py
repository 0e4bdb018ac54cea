"""What ratings allow to say: which contestants differ, their possible ranks, cycles, and power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import special

from realbench import stats
from realbench.arena.records import RatedPair, WinMatrix
from realbench.arena.tally import (
    CONFIDENCE,
    FloatArray,
    IndexArray,
    Tally,
    from_draws,
    without_interval,
)
from realbench.stats.record import rounded

SIGNIFICANCE = 1 - CONFIDENCE
POWER = 0.8


def order_of(ratings: FloatArray, components: IndexArray) -> list[int]:
    """Contestants best first: by component, then rating; those without a rating last."""
    value = np.nan_to_num(ratings, nan=-np.inf)
    return [int(n) for n in np.lexsort((np.arange(len(value)), -value, components))]


def contestant_prompts(tally: Tally) -> IndexArray:
    """How many prompts each contestant was compared on, (k,)."""
    k = len(tally.contestants)
    both = np.concatenate([tally.first[tally.pair], tally.second[tally.pair]])
    seen = np.unique(np.concatenate([tally.prompt, tally.prompt]) * k + both)
    return np.bincount(seen % max(k, 1), minlength=k)


def pair_differences(
    tally: Tally,
    ratings: FloatArray,
    draws: FloatArray,
    order: Sequence[int],
    components: IndexArray,
) -> list[RatedPair]:
    """Every pair's difference in rating, better one first, and whether the data support it.

    The p-values are two-sided, of a t-test over prompts on the bootstrap's standard error, and
    adjusted for all pairs (Holm 1979). The percentiles of a bootstrap give no p-value below one
    over the number of resamples, which the adjustment would lift above any level.

    Args:
        ratings: Bradley–Terry ratings (k,).
        draws: Those of the resamples (rows, k).
        order: The contestants best first.
        components: Which of them are linked (k,); the others' differences are unknown.
    """
    prompts = contestant_prompts(tally)
    direct = np.zeros((len(ratings), len(ratings)))
    direct[tally.first, tally.second] = direct[tally.second, tally.first] = tally.pair_counts
    rows: list[RatedPair] = []
    p_values: list[float] = []
    errors: list[float] = []
    for a, b in combinations(order, 2):
        n = int(direct[a, b])
        groups = int(min(prompts[a], prompts[b]))
        linked = components[a] == components[b] and groups > 0
        difference = float(ratings[a] - ratings[b]) if linked else float("nan")
        gaps = draws[:, a] - draws[:, b]
        error = _error_towards_zero(gaps, groups) if linked and groups > 1 else float("nan")
        errors.append(error)
        p_values.append(_p_value(float(np.median(gaps)), error, groups))
        known = (
            from_draws(difference, gaps, n, groups)
            if linked
            else without_interval(math.nan, n, groups)
        )
        rows.append(
            {
                "a": tally.contestants[a],
                "b": tally.contestants[b],
                "difference": known,
                "p": None,
                "tied": True,
                "comparisons_needed": None,
            }
        )
    adjusted = stats.holm(p_values)
    tied = [bool(not p < SIGNIFICANCE) for p in adjusted]  # an undefined one is a tie too
    counts = tally.contestant_counts
    for at, (a, b) in enumerate(combinations(order, 2)):
        involved = counts[a] + counts[b] - direct[a, b]
        rows[at]["p"], rows[at]["tied"] = rounded(adjusted[at]), tied[at]
        if tied[at] and np.isfinite(errors[at]):
            rows[at]["comparisons_needed"] = comparisons_needed(
                float(ratings[a] - ratings[b]), errors[at], involved, sum(tied)
            )
    return rows


def _error_towards_zero(gaps: FloatArray, groups: int) -> float:
    """Standard error of a difference, from the half of its resamples that lies nearer to zero.

    Where one side never loses, the other half is long and says how far apart the two may be, not
    whether they are; for symmetric resamples the halves are the same. It is measured from the
    median, as is the difference that it is set against.
    """
    centre = float(np.median(gaps))
    near = np.minimum((gaps - centre) * (1 if centre >= 0 else -1), 0.0)
    return float(np.sqrt(2 * np.mean(near**2) * groups / (groups - 1)))


def _p_value(difference: float, error: float, groups: int) -> float:
    if not np.isfinite(error):
        return float("nan")
    if error <= 0:
        return 1.0
    return float(2 * special.stdtr(groups - 1, -abs(difference) / error))


def comparisons_needed(difference: float, error: float, n: float, tests: int) -> int | None:
    """Comparisons still needed for a difference to come out as significant.

    How many more comparisons that involve one of the two, spread as those so far, it takes until
    a difference of the present size is significant at the level that Holm's adjustment asks of
    the smallest of ``tests`` p-values, with a probability of 80 %. The variance falls with the
    number of comparisons, on new prompts; None without any difference, or beyond a billion.
    """
    if difference == 0 or error <= 0:
        return None
    reach = special.ndtri(1 - SIGNIFICANCE / 2 / max(1, tests)) + special.ndtri(POWER)
    needed = n * ((reach * error / difference) ** 2 - 1)
    return None if needed > 1e9 else max(1, int(np.ceil(needed)))


def ranks(
    ratings: FloatArray, order: Sequence[int], components: IndexArray, pairs: Sequence[RatedPair]
) -> dict[int, tuple[int | None, int | None, int | None]]:
    """Rank, best and worst rank of each contestant within its component; None if never compared.

    Args:
        pairs: From :func:`pair_differences`, for the same order.
    """
    found: dict[int, tuple[int | None, int | None, int | None]] = {}
    apart = [
        pair
        for pair, row in zip(combinations(order, 2), pairs, strict=True)
        if not row["tied"] and row["difference"]["estimate"] != 0
    ]
    for label in np.unique(components):
        members = [n for n in order if components[n] == label]
        place = {n: at for at, n in enumerate(members)}
        sets = stats.rank_sets(
            [ratings[n] for n in members],
            [(place[a], place[b]) for a, b in apart if a in place and b in place],
        )
        for at, n in enumerate(members):
            known = np.isfinite(ratings[n])
            found[n] = (at + 1, *sets[at]) if known else (None, None, None)
    return found


def win_matrix(tally: Tally, order: Sequence[int]) -> WinMatrix:
    """Share of its comparisons that the row's contestant wins against the column's, ties half."""
    scores, counts = _matrices(tally)
    scores, counts = scores[np.ix_(order, order)], counts[np.ix_(order, order)]
    return {
        "contestants": [tally.contestants[n] for n in order],
        "win_rate": [
            [rounded(score / count) if count else None for score, count in zip(*rows, strict=True)]
            for rows in zip(scores, counts, strict=True)
        ],
        "n": counts.astype(int).tolist(),
    }


def intransitive(tally: Tally) -> dict[str, float | None]:
    """Triples that all met, and those that go round in a circle: a beats b beats c beats a.

    To beat is to win more than half of the comparisons, ties half.
    """
    scores, counts = _matrices(tally)
    beats = (scores > counts / 2 + 1e-9).astype(np.float64)
    met = (counts > 0).astype(np.float64)
    triples = round(float(np.trace(met @ met @ met)) / 6)
    cyclic = round(float(np.trace(beats @ beats @ beats)) / 3)
    return {
        "triples": triples,
        "cyclic": cyclic,
        "share": rounded(cyclic / triples) if triples else None,
    }


def _matrices(tally: Tally) -> tuple[FloatArray, FloatArray]:
    """Scores of the row against the column, and counts; float64 (k, k) each."""
    k = len(tally.contestants)
    scores, counts = np.zeros((k, k)), np.zeros((k, k))
    scores[tally.first, tally.second] = tally.pair_scores
    scores[tally.second, tally.first] = tally.pair_counts - tally.pair_scores
    counts[tally.first, tally.second] = counts[tally.second, tally.first] = tally.pair_counts
    return scores, counts
