"""The manifest of a run, ``run.json``: all that is needed to repeat it and to judge it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

from realbench.detection.cards import Card
from realbench.prompts import Suite
from realbench.quality.cards import MeasureCard
from realbench.runs.versions import package_versions
from realbench.scoring.engine import Protocol
from realbench.scoring.pipeline import Timings
from realbench.scoring.records import ScoreManifest, SuiteUsed
from realbench.text import printable

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
    timings: Timings,
) -> ScoreManifest:
    """Return the manifest.

    Args:
        arguments: what was asked for, as JSON values.
        suite: of the prompts, where one was given.
        cards: of the detectors.
        protocol: what was done to images before the detectors saw them; it marks fingerprints.
        measures: of image quality and alignment.
        device: where they ran; None if every score was in the cache, or no image readable.
        seed: of the bootstrap.
        started: when, in UTC.
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
            "read_and_decode_thread_seconds": round(timings.read_and_decode, 3),
            "prepare_thread_seconds": round(timings.prepare, 3),
            "forward_thread_seconds": round(timings.forward, 3),
        },
    }
