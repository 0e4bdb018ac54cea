"""Votes, a line of ``votes.jsonl`` each, and the comparisons that the two orders of a pair make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from realbench.arena.judges.judge import Verdict

VOTE_FORMAT: Literal[1] = 1


class Vote(BaseModel):
    """One line of ``votes.jsonl``: who judged which two pictures in which order, and how.

    The names are those of the folders in the run; the digests tell which files they were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = VOTE_FORMAT
    id: str = Field(min_length=1, description="Unique to this vote.")
    judge: str
    judge_fingerprint: str
    prompt_id: str
    first: str
    second: str
    first_sha256: str
    second_sha256: str
    verdict: Verdict
    probability: float | None = Field(default=None, ge=0, le=1)
    reason: str | None = None
    raw: str | None = None
    attempts: int = Field(default=1, ge=1)
    seconds: float = Field(default=0.0, ge=0)
    usage: dict[str, float] = Field(default_factory=dict)
    time: datetime

    @property
    def key(self) -> str:
        """What is one entry, however often a log has it."""
        return self.id

    @property
    def showing(self) -> tuple[str, str, str, str]:
        """Who was shown which two in which order: judge, prompt, first and second contestant."""
        return self.judge, self.prompt_id, self.first, self.second


class Retraction(BaseModel):
    """A line that takes an earlier vote back, as a person's undo does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = VOTE_FORMAT
    retracts: str = Field(min_length=1, description="The id of the vote.")
    time: datetime

    @property
    def key(self) -> str:
        """What is one entry, however often a log has it."""
        return f"retracts {self.retracts}"


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


_SCORES = {"first": 1.0, "tie": 0.5, "second": 0.0}


CROWD = 0
"""Of a judge that stands for many people: a pair has no orders, and every vote is a comparison."""


def compare(votes: Iterable[Vote], orders: dict[str, int]) -> list[Comparison]:
    """Turn valid votes into comparisons, in the order of judge, prompt and pair.

    Two orders that disagree make a tie, and so does a tie in either order against a win in
    the other. A pair of which an order is missing or invalid gives none, unless its judge is
    asked in one order only. Each vote of a crowd is a comparison of its own.

    Args:
        votes: Any votes; invalid ones are left out.
        orders: How many orders each judge is asked in (1 or 2, or :data:`CROWD`), 2 where it is
            not named.
    """
    valid = [vote for vote in votes if vote.verdict != "invalid"]
    latest = {vote.showing: vote for vote in valid if orders.get(vote.judge, 2) != CROWD}
    found = [_alone(vote) for vote in valid if orders.get(vote.judge, 2) == CROWD]
    for judge, prompt, a, b in {(j, p, *sorted((one, two))) for j, p, one, two in latest}:
        forth, back = latest.get((judge, prompt, a, b)), latest.get((judge, prompt, b, a))
        both = [_alone(vote) for vote in (forth, back) if vote is not None]
        scores = [one.score for one in both]
        if orders.get(judge, 2) == 1:
            found.append(both[-1])
        elif len(both) == 2:
            agree = scores[0] == scores[1]
            found.append(Comparison(judge, prompt, a, b, scores[0] if agree else 0.5, agree))
    return sorted(found, key=lambda one: (one.judge, one.prompt_id, one.a, one.b))


def _alone(vote: Vote) -> Comparison:
    """Return what a vote says by itself."""
    a, b = sorted((vote.first, vote.second))
    score = _SCORES[vote.verdict]
    score = score if vote.first == a else 1 - score
    return Comparison(vote.judge, vote.prompt_id, a, b, score, None)
