"""How far judges agree, with each other and with people, and whether they prefer a place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from realbench import stats
from realbench.arena.tally import FloatArray, IndexArray
from realbench.arena.votes import Comparison, Vote
from realbench.stats import Interval
from realbench.stats.record import Estimate, estimate

HUMAN = "human"
"""The judge that is a person; several are told apart as ``human:NAME``."""


def judge_agreement(
    comparisons: Sequence[Comparison], *, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Agreement on the pairs and prompts that judges have in common; None for a single judge.

    Returns:
        ``krippendorff_alpha`` of all judges; for each two of them ``cohen_kappa`` and
        ``agreement``, the share of their common pairs with the same result, a tie being one; and
        under ``with_human`` that share for each other judge, with what most people said (as many
        for one side as for the other, or most for a tie, is a tie); None without human votes.
    """
    judges = sorted({one.judge for one in comparisons})
    if len(judges) < 2:
        return None
    units = sorted({(one.prompt_id, one.a, one.b) for one in comparisons})
    column = {unit: n for n, unit in enumerate(units)}
    row = {judge: n for n, judge in enumerate(judges)}
    table = np.full((len(judges), len(units)), np.nan)
    for one in comparisons:
        table[row[one.judge], column[one.prompt_id, one.a, one.b]] = one.score
    _, prompts = np.unique([prompt for prompt, _, _ in units], return_inverse=True)
    alpha = stats.krippendorff_alpha(table, prompts, resamples=resamples, seed=seed)
    pairs = []
    for a, b in combinations(judges, 2):
        common = ~np.isnan(table[row[a]] + table[row[b]])
        one, other, groups = table[row[a], common], table[row[b], common], prompts[common]
        kappa = stats.cohen_kappa(one, other, groups, resamples=resamples, seed=seed)
        same = stats.bootstrap_share(one == other, groups, resamples=resamples, seed=seed)
        pairs.append(
            {
                "a": a,
                "b": b,
                "cohen_kappa": estimate(kappa),
                "agreement": estimate(same),
                "n": int(common.sum()),
            }
        )
    people = np.array([is_human(judge) for judge in judges])
    with_human = {
        judge: estimate(_share_of_same(table[row[judge]], table[people], prompts, resamples, seed))
        for judge in judges
        if people.any() and not is_human(judge)
    }
    return {"krippendorff_alpha": estimate(alpha), "pairs": pairs, "with_human": with_human or None}


def is_human(judge: str) -> bool:
    """Whether a judge of this name is a person."""
    return judge.partition(":")[0] == HUMAN


def _share_of_same(
    scores: FloatArray, people: FloatArray, prompts: IndexArray, resamples: int, seed: int
) -> Interval:
    """Share of pairs on which a judge says what most people say.

    Args:
        scores: The judge's, (units,), nan where it said nothing.
        people: Each person's, (persons, units).
        prompts: Of each unit.
    """
    said = ~np.isnan(people)
    balance = np.where(said, people - 0.5, 0.0).sum(axis=0)
    for_ties = (people == 0.5).sum(axis=0) * 2 > said.sum(axis=0)
    most = np.where(for_ties, 0.5, (np.sign(balance) + 1) / 2)
    common = said.any(axis=0) & ~np.isnan(scores)
    return stats.bootstrap_share(
        scores[common] == most[common], prompts[common], resamples=resamples, seed=seed
    )


def position_bias(
    votes: Iterable[Vote], comparisons: Iterable[Comparison], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Return ``first_share`` and ``inconsistent_share`` with intervals over prompts.

    ``first_share`` is the share of decisive votes for the picture shown first, 0.5 without bias;
    ``inconsistent_share`` that of the pairs, among those asked in both orders, on which the two
    orders did not say the same. Where both orders are asked for, they balance each other, and the
    interval of ``first_share``, which takes no credit for that, is wider than it need be.
    """
    decisive = [vote for vote in votes if vote.verdict in ("first", "second")]
    double = [one for one in comparisons if one.consistent is not None]
    return {
        "first_share": _share(
            [vote.verdict == "first" for vote in decisive],
            [vote.prompt_id for vote in decisive],
            resamples,
            seed,
        ),
        "inconsistent_share": _share(
            [not one.consistent for one in double],
            [one.prompt_id for one in double],
            resamples,
            seed,
        ),
    }


def _share(values: Sequence[bool], prompts: Sequence[str], resamples: int, seed: int) -> Estimate:
    if not values:
        return estimate(None)
    return estimate(
        stats.bootstrap_share(np.array(values), prompts, resamples=resamples, seed=seed)
    )
