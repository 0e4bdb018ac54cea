"""Whether a judge prefers a place: the picture that it is shown first, or second."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from realbench import stats
from realbench.arena.verdicts import Comparison
from realbench.arena.votes import Vote
from realbench.stats.record import Estimate, estimate


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
