"""Adds the columns of quality measures to a run's table; no other column is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realbench.errors import UsageError
from realbench.prompts import Suite
from realbench.quality.cards import MeasureCard
from realbench.scoring.cache import ScoreCache
from realbench.scoring.progress import Progress


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
    measures: Sequence[MeasureCard],
    table: pd.DataFrame,
    paths: Sequence[Path],
    suite: Suite | None,
    store: ScoreCache,
    *,
    progress: Callable[[Progress], None] | None,
    **options: Any,
) -> list[str]:
    """Add a column for each measure at the table's end; return what the user should know."""
    if not measures:
        return []
    from realbench.quality.run import Item, measure_images

    prompts = {} if suite is None else suite.prompts
    rows = table.index[table["status"] == "ok"]
    own = [prompts.get(str(table.at[row, "prompt_id"])) for row in rows]
    items = [
        Item(paths[row], str(table.at[row, "sha256"]), None if one is None else one.prompt)
        for row, one in zip(rows, own, strict=True)
    ]

    def told(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(done, total, 0, 0, stage))

    measured = measure_images(measures, items, store, progress=told, **options)
    for name, scores in measured.scores.items():
        table[name] = np.nan
        table.loc[rows, name] = scores
    return measured.notes
