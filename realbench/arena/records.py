"""What an arena's files hold, typed: ``run.json`` and ``ratings.json``.

Written as they are; read by :meth:`ArenaRun.read` alone, which checks them. Keys that a later
version adds are kept. ``docs/schemas`` publishes them as JSON Schema; the votes have their own
model, :class:`realbench.arena.votes.Vote`.
"""

from __future__ import annotations

from typing import (
    Any,
    Literal,
    NotRequired,  # pydantic takes typing's from Python 3.12
)

from pydantic import with_config
from typing_extensions import TypedDict

from realbench.runs.folder import Open
from realbench.stats.record import Estimate


@with_config(Open)
class ContestantUsed(TypedDict):
    """A folder of images that took part."""

    name: str
    folder: str
    path: str
    n_images: int
    is_reference: bool
    unreadable: dict[str, str]
    doubles: list[str]
    copies: NotRequired[int]
    stands_in: dict[str, str]


@with_config(Open)
class PromptsUsed(TypedDict):
    """The prompts that were compared on, and those that some contestant lacks."""

    shared: int
    dropped: dict[str, list[str]]
    missing: dict[str, list[str]]
    texts: dict[str, str | None]


@with_config(Open)
class JudgeUsed(TypedDict):
    """A judge, with whatever its kind says of itself."""

    fingerprint: str
    orders: int
    is_vlm: NotRequired[bool]
    stop_reason: NotRequired[str]


@with_config(Open)
class ArenaManifest(TypedDict):
    """``run.json``: what ran, with whom, and how far it came."""

    arena_format: Literal[1]
    versions: dict[str, str]
    platform: str
    arguments: dict[str, Any]
    argv: list[str]
    suite: dict[str, Any] | None
    schedule: str
    seed: int
    resamples: int
    contestants: list[ContestantUsed]
    reference: str | None
    prompts: PromptsUsed
    judges: dict[str, JudgeUsed]
    notes: list[str]
    started: str
    finished: str | None
    stop_reason: str | None
    counts: dict[str, int]
    votes_log: NotRequired[dict[str, Any]]


@with_config(Open)
class Rating(TypedDict):
    """A contestant's line of a standing."""

    contestant: str
    rank: int | None
    rank_low: int | None
    rank_high: int | None
    n_comparisons: int
    n_prompts: int
    wins: int
    ties: int
    losses: int
    win_rate: Estimate
    bradley_terry: Estimate
    elo: Estimate
    trueskill: Estimate
    win_rate_vs_reference: Estimate | None


@with_config(Open)
class RatedPair(TypedDict):
    """Two contestants' difference on the Bradley-Terry scale."""

    a: str
    b: str
    difference: Estimate
    p: float | None
    tied: bool
    comparisons_needed: int | None


@with_config(Open)
class WinMatrix(TypedDict):
    """The row's share of wins against the column's, ties half, and of how many comparisons."""

    contestants: list[str]
    win_rate: list[list[float | None]]
    n: list[list[int]]


@with_config(Open)
class Standing(TypedDict):
    """What one judge's comparisons, or all judges' together, give."""

    n_comparisons: int
    n_prompts: int
    position_bias: dict[str, Estimate]
    n_invalid: int
    usage: dict[str, float | None]
    ratings: list[Rating]
    win_matrix: WinMatrix
    pairs: list[RatedPair]
    intransitive: dict[str, float | None]


@with_config(Open)
class Ratings(TypedDict):
    """``ratings.json``."""

    contestants: list[str]
    reference: str | None
    resamples: int
    seed: int
    judges: dict[str, Standing]
    combined: Standing | None
    agreement: dict[str, Any] | None
    notes: list[str]
