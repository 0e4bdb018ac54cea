"""Votes: one judgment of one showing, as a line of ``votes.jsonl``."""

from __future__ import annotations

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


class Retraction(BaseModel):
    """A line that takes an earlier vote back, as a person's undo does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = VOTE_FORMAT
    retracts: str = Field(min_length=1, description="The id of the vote.")
    time: datetime
