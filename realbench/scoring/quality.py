"""Quality measures of a run's images, as columns of its table: no other column is touched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from realbench.errors import UsageError
from realbench.prompts import Suite
from realbench.quality.cards import MeasureCard
from realbench.scoring.cache import ScoreCache
from realbench.scoring.engine import FileScores, Networks
from realbench.scoring.pipeline import cut_key


def check_measures(
    measures: Sequence[MeasureCard], detectors: Sequence[str], suite: Suite | None
) -> None:
    """Refuse what could not be measured, before any image is scored."""
    for card in measures:
        if card.name in detectors:
            raise UsageError(
                f"{card.name!r} names a detector and a quality measure of this run: rename a card"
            )
        if card.needs_prompt and suite is None:
            raise UsageError(
                f"--quality {card.name} compares images with their prompts: give --prompts"
            )
        _ = card.fingerprint  # its weights must be here, or be fetched now


def add_quality(
    table: pd.DataFrame,
    scores: FileScores,
    networks: Networks,
    prompts: Sequence[str | None],
    cache: ScoreCache,
    reference: str | None,
) -> list[str]:
    """Add a column for each measure at the table's end; return what the user should know.

    A copy has no score, unless the measure reads a prompt and the copy has one of its own.

    Args:
        table: a row per file, copies marked.
        scores: of these files.
        networks: has the measures.
        prompts: each file's.
        cache: knows which prompts were too long.
        reference: the photographs' folder.
    """
    content = table[["folder", "prompt_id"]].assign(pixels=scores.pixels)
    photographs = set(content.loc[content["folder"] == reference, "pixels"])
    foreign = (content["folder"] != reference) & content["pixels"].isin(photographs)
    again = content.duplicated()
    notes = []
    for card in networks.measures.values():
        copies = (foreign | again) if card.needs_prompt else table["status"] == "copy"
        table[card.name] = np.where(copies, np.nan, scores.of(card.name))
        if card.needs_prompt:
            notes += _prompt_notes(card, table, prompts, networks, cache)
    return notes


def _prompt_notes(
    card: MeasureCard,
    table: pd.DataFrame,
    prompts: Sequence[str | None],
    networks: Networks,
    cache: ScoreCache,
) -> list[str]:
    """Say in a line each what has no score, and what was not read whole."""
    rows = zip(table["status"], table["sha256"], prompts, strict=True)
    used = [(sha256, prompt) for status, sha256, prompt in rows if status != "unreadable"]
    without = sum(prompt is None for _, prompt in used)
    cut = set()
    for sha256, prompt in dict.fromkeys(used):
        if prompt is not None:
            told = networks.cuts(card.name, prompt)
            if told or (told is None and cache.logits(sha256, [cut_key(card, prompt)])):
                cut.add(prompt)
    notes = []
    if without:
        images = "image has" if without == 1 else "images have"
        notes.append(f"{card.name}: no score for {without}, which {images} no prompt")
    if cut:
        longer = "prompt is" if len(cut) == 1 else "prompts are"
        notes.append(
            f"{card.name}: {len(cut)} {longer} longer than it reads; it saw their beginning"
        )
    return notes
