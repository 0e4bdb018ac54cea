"""How far the judges of a run agree, with each other and with people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from realbench import stats
from realbench.arena.estimates import estimate
from realbench.arena.verdicts import Comparison
from realbench.stats import Interval

HUMAN = "human"


def judge_agreement(
    comparisons: Sequence[Comparison], *, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Agreement on the pairs and prompts that judges have in common; None for a single judge.

    Returns:
        ``krippendorff_alpha`` of all judges; for each two of them ``cohen_kappa`` and
        ``agreement``, the share of their common pairs with the same result, a tie being one; and
        under ``with_human`` that share for each other judge, None without human votes.
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
                "cohen_kappa": _estimate(kappa),
                "agreement": _estimate(same),
                "n": int(common.sum()),
            }
        )
    with_human = {
        pair["b"] if pair["a"] == HUMAN else pair["a"]: pair["agreement"]
        for pair in pairs
        if HUMAN in (pair["a"], pair["b"])
    }
    return {
        "krippendorff_alpha": _estimate(alpha),
        "pairs": pairs,
        "with_human": with_human or None,
    }


def _estimate(found: Interval) -> dict[str, Any]:
    return estimate(found.estimate, found.low, found.high, found.n)
