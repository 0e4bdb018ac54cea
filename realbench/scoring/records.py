"""What a score run's files hold, typed: ``run.json``, ``summary.json`` and ``scores.csv``.

Written as they are; read by :meth:`realbench.ScoreRun.read` alone, which checks them. Keys that a
later version adds are kept. ``docs/schemas`` publishes them as JSON Schema.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NotRequired, cast

import numpy as np
from pydantic import with_config
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from typing_extensions import TypedDict

from realbench.detection.cards import Card
from realbench.detection.specs import Level
from realbench.distances.compare import Distances
from realbench.errors import RealBenchError, UsageError
from realbench.prompts import Suite
from realbench.quality.cards import MeasureCard
from realbench.runs.files import read_table as table_of
from realbench.runs.folder import MANIFEST_FILE, SUMMARY_FILE, Open, package_versions, read_record
from realbench.scoring.engine import Protocol
from realbench.stats.record import Estimate
from realbench.text import printable

if TYPE_CHECKING:
    import pandas as pd

TABLE_FILE = "scores.csv"
FEATURES_FILE = "features.safetensors"
AGAIN = "run realbench score again"
_FIRST = ("folder", "image", "prompt_id", "sha256", "status", "reason")
TEXTS = (*_FIRST, "verdict", "nearest_photograph")
"""The columns of the table that are texts; P(real), and measures, are numbers or empty."""

_MISSING = "name a folder that realbench score wrote"


@with_config(Open)
class Fused(TypedDict):
    """A detector's part of a fused ensemble: weight · its logit + offset."""

    weight: float
    offset: float


@with_config(Open)
class DetectorUsed(TypedDict):
    """A detector of a run."""

    name: str
    level: Level
    fingerprint: str
    weights_sha256: NotRequired[str | None]
    fused: NotRequired[Fused | None]


@with_config(Open)
class MeasureUsed(TypedDict):
    """A quality measure of a run."""

    name: str
    title: str
    fingerprint: str
    weights_sha256: NotRequired[str | None]


@with_config(Open)
class SuiteUsed(TypedDict):
    """The prompts of a run."""

    name: str
    version: NotRequired[str | None]
    sha256: str
    n_prompts: NotRequired[int]


@with_config(Open)
class ScoreManifest(TypedDict):
    """``run.json``: all that is needed to repeat a run and to judge it."""

    schema_version: Literal[1]
    versions: dict[str, str]
    platform: str
    device: str
    detectors: list[DetectorUsed]
    quality: NotRequired[list[MeasureUsed]]
    suite: SuiteUsed | None
    arguments: dict[str, Any]
    argv: list[str]
    seed: int
    started: str
    finished: str
    n_scored: int
    n_cached: int
    n_failed: int
    timings: dict[str, float]


@with_config(Open)
class FolderSummary(TypedDict):
    """A folder's figures; each over the images that have a score."""

    folder: str
    path: str
    n: int
    n_failed: int
    n_copies: NotRequired[int]
    n_prompts: int
    realism: Estimate
    escape_rate: Estimate
    detectors: dict[str, Estimate]
    disagreement: dict[str, float | None]
    verdicts: NotRequired[dict[str, Estimate] | None]
    auc: Estimate | None
    rank: NotRequired[int | None]
    rank_low: NotRequired[int | None]
    rank_high: NotRequired[int | None]
    categories: NotRequired[dict[str, Estimate]]
    quality: NotRequired[dict[str, Estimate]]


@with_config(Open)
class FolderPair(TypedDict):
    """The difference of two folders' mean realism."""

    a: str
    b: str
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None
    tied: bool
    paired: bool
    n_shared: int


@with_config(Open)
class Summary(TypedDict):
    """``summary.json``: what a run says of each folder, and of each two."""

    schema_version: Literal[1]
    folders: list[FolderSummary]
    pairs: list[FolderPair]
    reference: FolderSummary | None
    verdict: NotRequired[dict[str, Any] | None]
    distances: NotRequired[Distances | None]
    confidence: float
    notes: list[str]


def read_manifest(folder: Path) -> ScoreManifest:
    """Read a run's ``run.json``.

    Raises:
        UsageError: it is not there.
        RealBenchError: it is damaged.
    """
    return read_record(folder / MANIFEST_FILE, ScoreManifest, missing=_MISSING, mend=AGAIN)


def read_summary(folder: Path) -> Summary:
    """Read a run's ``summary.json``; one of 0.1.0 has no verdicts.

    Raises:
        UsageError: it is not there.
        RealBenchError: it is damaged.
    """
    summary = read_record(folder / SUMMARY_FILE, Summary, missing=_MISSING, mend=AGAIN)
    summary.setdefault("verdict", None)
    for entry in [*summary["folders"], *([summary["reference"]] if summary["reference"] else [])]:
        entry.setdefault("verdicts", None)
    return summary


def read_table(folder: Path) -> pd.DataFrame:
    """Read a run's ``scores.csv``: texts as they are, all else numbers, NaN where empty.

    Raises:
        UsageError: it is not there.
        RealBenchError: it is damaged.
    """
    path = folder / TABLE_FILE
    try:
        table = table_of(path.read_bytes(), TEXTS)
        _ = table[["realism", "disagreement", *_FIRST]]
    except FileNotFoundError as error:
        raise UsageError(f"{printable(folder)} has no {path.name}: {_MISSING}") from error
    except (OSError, KeyError, ValueError) as error:
        reason = printable(f"{type(error).__name__}: {error}".splitlines()[0])
        raise RealBenchError(f"{printable(path)} is damaged ({reason}): {AGAIN}") from error
    if "verdict" not in table:  # as before there were verdicts
        table["verdict"] = ""
    return table


def features_bytes(features: Mapping[str, np.ndarray]) -> bytes:
    """Return ``features.safetensors``: float16 (rows of the table, d) by network."""
    return save({name: values.astype(np.float16) for name, values in features.items()})


def read_features(folder: Path, rows: int) -> dict[str, np.ndarray]:
    """Read a run's features, float32 (rows, d) by network; empty where it has none.

    Raises:
        RealBenchError: it is damaged.
    """
    path = folder / FEATURES_FILE
    try:
        found = {name: one.astype(np.float32) for name, one in load_file(path).items()}
        if any(one.ndim != 2 or len(one) != rows for one in found.values()):
            raise ValueError("it is of another table")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, SafetensorError) as error:
        reason = printable(f"{error}".splitlines()[0])
        raise RealBenchError(f"{printable(path)} is damaged ({reason}): {AGAIN}") from error
    return found


SCHEMA_VERSION: Final = 1


def describe_run(
    *,
    arguments: Mapping[str, Any],
    suite: Suite | None,
    cards: Sequence[Card],
    protocol: Protocol,
    measures: Sequence[MeasureCard] = (),
    device: str | None,
    seed: int,
    started: datetime,
    seconds: float,
    counts: Mapping[str, int],
    timings: Mapping[str, float],
) -> ScoreManifest:
    """Return the manifest.

    Args:
        arguments: what was asked for, as JSON values.
        protocol: what was done to images before the detectors saw them; it marks fingerprints.
        device: where they ran; None if every score was in the cache, or no image readable.
        seconds: that scoring took, from the first file to the last.
        counts: ``n_scored`` (images with scores), ``n_cached`` of them, ``n_failed``.
        timings: summed over threads.
    """
    images = counts["n_scored"] + counts["n_failed"]
    idle = "all scores were cached" if counts["n_scored"] else "no image could be scored"
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": package_versions(),
        "platform": platform.platform(),
        "device": device or f"none ({idle})",
        "detectors": [
            {
                "name": card.name,
                "level": card.level,
                "fingerprint": protocol.fingerprint(card.fingerprint),
                "weights_sha256": card.digests.get("weights"),
                "fused": None
                if card.fused is None
                else {"weight": card.fused.weight, "offset": card.fused.offset},
            }
            for card in cards
        ],
        "quality": [
            {
                "name": card.name,
                "title": card.title,
                "fingerprint": card.fingerprint,
                "weights_sha256": card.digests.get("weights"),
            }
            for card in measures
        ],
        "suite": None if suite is None else cast(SuiteUsed, suite.describe()),
        "arguments": dict(arguments),
        "argv": [printable(part) for part in sys.argv],
        "seed": seed,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_scored": counts["n_scored"],
        "n_cached": counts["n_cached"],
        "n_failed": counts["n_failed"],
        "timings": {
            "total_seconds": round(seconds, 3),
            "images_per_second": round(images / max(seconds, 1e-9), 2),
            **{f"{name}_thread_seconds": round(value, 3) for name, value in timings.items()},
        },
    }
