"""What an arena's files hold, typed, and its ``run.json`` made, written and read.

Written as they are; read by :meth:`ArenaRun.read` alone, which checks them. Keys that a later
version adds are kept. ``docs/schemas`` publishes them as JSON Schema; the votes have their own
model, :class:`realbench.arena.votes.Vote`.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NotRequired, cast

from pydantic import ValidationError, with_config
from typing_extensions import TypedDict

from realbench.arena.contestants import Lineup
from realbench.arena.judges.judge import Judge
from realbench.arena.vote_log import OF_0_1_0, Seal
from realbench.errors import RealBenchError, UsageError
from realbench.prompts import Suite
from realbench.runs.files import json_bytes, write_atomically
from realbench.runs.folder import (
    MANIFEST_FILE,
    Open,
    installed_versions,
    package_versions,
    read_json,
    read_record,
)
from realbench.stats.record import Estimate
from realbench.text import printable


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
    anchor: NotRequired[str | None]
    nuisances: NotRequired[bool]


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
class JudgePair(TypedDict):
    """How far two judges agree on what both compared."""

    a: str
    b: str
    cohen_kappa: Estimate
    agreement: Estimate
    n: int


@with_config(Open)
class JudgeAgreement(TypedDict):
    """How far judges agree, with one another and with people."""

    krippendorff_alpha: Estimate
    pairs: list[JudgePair]
    with_human: dict[str, Estimate] | None


@with_config(Open)
class AnchoredRating(TypedDict):
    """A contestant's line on the anchor's scale, and by the anchor alone."""

    contestant: str
    rank: int | None
    rank_low: int | None
    rank_high: int | None
    bradley_terry: Estimate
    alone: Estimate


@with_config(Open)
class Anchored(TypedDict):
    """People's comparisons made to count by those of cheap judges.

    ``power`` is the weight of the cheap judges' correction, and ``worth`` how many comparisons of
    the anchor alone would give intervals as narrow.
    """

    anchor: str
    n_anchor: int
    n_cheap: int
    power: float | None
    worth: float | None
    ratings: list[AnchoredRating]


@with_config(Open)
class ControlledRating(TypedDict):
    """A contestant's Bradley-Terry rating with the nuisances held equal, and without."""

    contestant: str
    controlled: Estimate
    plain: Estimate


@with_config(Open)
class NuisanceEffect(TypedDict):
    """What one standard deviation more of a covariate is worth, in points of rating.

    None where it cannot be told from the contestants, or does not vary.
    """

    covariate: str
    deviation: float
    effect: Estimate


@with_config(Open)
class Nuisances(TypedDict):
    """Ratings of pictures that are alike in sharpness, size and the like."""

    n_comparisons: int
    ratings: list[ControlledRating]
    effects: list[NuisanceEffect]


@with_config(Open)
class Ratings(TypedDict):
    """``ratings.json``."""

    contestants: list[str]
    reference: str | None
    resamples: int
    seed: int
    judges: dict[str, Standing]
    combined: Standing | None
    agreement: JudgeAgreement | None
    anchored: NotRequired[Anchored | None]
    nuisances: NotRequired[Nuisances | None]
    notes: list[str]


MANIFEST_FORMAT: Final = 1
MISSING = "name a folder that arena wrote (--out)"
AGAIN = "run the arena again with the same --out"
_PACKAGES = ("evalica", "trueskill", "openai", "transformers")


def describe_arena(
    lineup: Lineup,
    judges: Mapping[str, JudgeUsed],
    *,
    arguments: Mapping[str, Any],
    suite: Suite | None,
    schedule: str,
    seed: int,
    resamples: int,
    started: str,
    notes: Sequence[str],
    votes_log: Seal,
) -> ArenaManifest:
    """Return the manifest of a run that begins: it counts as interrupted until it has ended."""
    return {
        "arena_format": MANIFEST_FORMAT,
        "versions": package_versions() | installed_versions(_PACKAGES),
        "platform": platform.platform(),
        "arguments": dict(arguments),
        "argv": [without_credentials(printable(part)) for part in sys.argv],
        "suite": None if suite is None else suite.describe(),
        "schedule": schedule,
        "seed": seed,
        "resamples": resamples,
        "contestants": _contestants(lineup),
        "reference": lineup.reference,
        "prompts": {
            "shared": len(lineup.prompts),
            "dropped": {name: ids for name, ids in lineup.dropped.items() if ids},
            "missing": {name: ids for name, ids in lineup.missing.items() if ids},
            "texts": lineup.prompts,
        },
        "judges": dict(judges),
        "notes": list(notes),
        "started": started,
        "finished": None,
        "stop_reason": "interrupted",
        "counts": {},
        "votes_log": votes_log.model_dump(),
    }


def describe_judge(judge: Judge, stop_reason: str | None = None) -> JudgeUsed:
    """Return what the manifest says of a judge, and of how its turn ended, if it has."""
    about: JudgeUsed = {
        "fingerprint": judge.fingerprint,
        "orders": judge.orders,
        "is_vlm": judge.is_vlm,
    }
    if stop_reason is not None:
        about["stop_reason"] = stop_reason
    return cast(JudgeUsed, {**judge.describe(), **about})


def write_manifest(run: Path, manifest: ArenaManifest) -> None:
    """Write a run's ``run.json``.

    Raises:
        RealBenchError: it cannot be written.
    """
    write_atomically(run / MANIFEST_FILE, json_bytes(manifest))


def read_manifest(run: Path) -> ArenaManifest:
    """Read a run's ``run.json``.

    Raises:
        UsageError: the folder is missing, or no arena ran in it.
        RealBenchError: the file is damaged, or cannot be read.
    """
    path = run / MANIFEST_FILE
    if not run.is_dir():
        raise UsageError(f"no such folder: {printable(run)}; {MISSING}")
    found = read_json(path, AGAIN)
    if found is not None and found.get("arena_format") != MANIFEST_FORMAT:
        raise UsageError(
            f"{printable(path)} is not of an arena that this version of RealBench can read: "
            f"{MISSING}"
        )
    return read_record(path, ArenaManifest, missing=MISSING, mend=AGAIN)


def seal_of(manifest: ArenaManifest) -> Seal:
    """Return what a manifest says of the votes: nothing, and no digests, if 0.1.0 wrote it.

    Raises:
        RealBenchError: it is damaged.
    """
    try:
        return Seal.model_validate(manifest["votes_log"]) if "votes_log" in manifest else OF_0_1_0
    except ValidationError as error:
        raise RealBenchError(
            f"{MANIFEST_FILE} is damaged (votes_log): bring it back as it was"
        ) from error


def without_credentials(text: str) -> str:
    """Return an argument without what an address in it may carry: user, password and query."""
    text = re.sub(r"(\w://)[^/\s@]*@", r"\1", text)
    return re.sub(r"(\w://[^\s?#]*)[?#]\S*", r"\1", text)


def _contestants(lineup: Lineup) -> list[ContestantUsed]:
    # Each prompt's drawn photograph, by its path in the reference's folder.
    stands_in = {
        prompt: printable(picture.path.relative_to(lineup.folders[name]).as_posix())
        for (name, prompt), picture in lineup.pictures.items()
        if lineup.stand_ins and name == lineup.reference
    }
    return [
        {
            "name": name,
            "folder": printable(lineup.folders[name]),
            "path": printable(lineup.folders[name].absolute()),
            "n_images": lineup.n_images[name],
            "is_reference": name == lineup.reference,
            "unreadable": lineup.unreadable[name],
            "doubles": lineup.doubles[name],
            "copies": lineup.copies.get(name, 0),
            "stands_in": stands_in if name == lineup.reference else {},
        }
        for name in lineup.contestants
    ]
