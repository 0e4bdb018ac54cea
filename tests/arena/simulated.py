"""Comparisons simulated from models of known strength."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from realbench.arena import bradley_terry
from realbench.arena.tally import Tally
from realbench.arena.votes import Comparison

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)


def names_of(models: int) -> list[str]:
    return [f"m{n:02}" for n in range(models)]


def simulate(
    strengths: np.ndarray,
    prompts: int,
    *,
    seed: int,
    effect: float = 0.0,
    tie: float = 0.0,
    judge: str = "judge",
) -> list[Comparison]:
    """All pairs on all prompts under the Bradley–Terry model in Davidson's version with ties.

    Args:
        strengths: In log-odds (k,).
        effect: Standard deviation of a model's effect on a prompt, which ties the prompt's votes
            together.
        tie: Davidson's tie parameter; 0 gives no ties.
    """
    rng = np.random.default_rng(seed)
    names = names_of(len(strengths))
    found = []
    for prompt in range(prompts):
        own = strengths + rng.normal(0, effect, len(strengths))
        for a, b in combinations(range(len(strengths)), 2):
            odds = np.exp((own[a] - own[b]) / 2)
            drawn = rng.random() * (odds + 1 / odds + tie)
            score = 1.0 if drawn < odds else 0.5 if drawn < odds + tie else 0.0
            found.append(Comparison(judge, f"p{prompt:04}", names[a], names[b], score, None))
    return found


def endless_ratings(strengths: np.ndarray, *, effect: float = 0.0, tie: float = 0.0) -> np.ndarray:
    """The ratings that endless votes of :func:`simulate` lead to, by quadrature: the truth."""
    k = len(strengths)
    first, second = np.triu_indices(k, 1)
    gaps = (strengths[first] - strengths[second])[:, None] + np.sqrt(2) * effect * NODES
    odds = np.exp(gaps / 2)
    scores = ((odds + tie / 2) / (odds + 1 / odds + tie)) @ WEIGHTS / WEIGHTS.sum()
    pairs = np.arange(len(first))
    endless = Tally(names_of(k), ["all"], first, second, 0 * pairs, pairs, scores)
    solved = bradley_terry.solve(endless, scores[None], np.ones((1, len(first))), np.zeros(k))
    return solved[0] * bradley_terry.POINTS + bradley_terry.MEAN
