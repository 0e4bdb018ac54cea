"""From votes to comparisons: the two orders of a pair become one result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from realbench.arena.votes import Vote


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of one pair on one prompt under one judge.

    Attributes:
        judge: The judge's name.
        prompt_id: The prompt.
        a: One contestant; ``a < b`` as text.
        b: The other one.
        score: 1.0 where a won, 0.0 where b won, 0.5 for a tie.
        consistent: Whether both orders said the same; None where only one order is asked.
    """

    judge: str
    prompt_id: str
    a: str
    b: str
    score: float
    consistent: bool | None


def compare(votes: Iterable[Vote], orders: dict[str, int]) -> list[Comparison]:
    """Turn valid votes into comparisons, in the order of judge, prompt and pair.

    Two orders that disagree make a tie, and so does a tie in either order against a win in
    the other. A pair of which an order is missing or invalid gives none, unless its judge is
    asked in one order only.

    Args:
        votes: Any votes; invalid ones are left out.
        orders: How many orders each judge is asked in (1 or 2), 2 where it is not named.
    """
    latest: dict[tuple[str, str, str, str], Vote] = {}
    for vote in votes:
        if vote.verdict != "invalid":
            latest[vote.judge, vote.prompt_id, vote.first, vote.second] = vote
    pairs = {(j, p, *sorted((one, two))) for j, p, one, two in latest}
    found = []
    for judge, prompt, a, b in sorted(pairs):
        forth = latest.get((judge, prompt, a, b))
        back = latest.get((judge, prompt, b, a))
        scores = [_score_of(vote, a) for vote in (forth, back) if vote is not None]
        if orders.get(judge, 2) == 1:
            found.append(Comparison(judge, prompt, a, b, scores[-1], None))
        elif len(scores) == 2:
            agree = scores[0] == scores[1]
            found.append(Comparison(judge, prompt, a, b, scores[0] if agree else 0.5, agree))
    return found


def _score_of(vote: Vote, contestant: str) -> float:
    if vote.verdict == "tie":
        return 0.5
    winner = vote.first if vote.verdict == "first" else vote.second
    return float(winner == contestant)
