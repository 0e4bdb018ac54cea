"""Writes the networks of a training's folds as detectors, to score what they never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from realbench.detection.calibration import calibrated
from realbench.detection.cards import CalibrationSpec
from realbench.detection.training.publish import publish_card
from realbench.detection.training.record import fold_calibrations
from realbench.detection.training.run import Job, held_out

FOLDS_FILE = "folds.toml"


def publish_folds(folder: Path, jobs: Mapping[str, Sequence[Job]]) -> Path:
    """Write ``fold-N/<detector>/`` with a card and weights, and ``folds.toml``.

    A fold's networks learned from no image of the generators that it holds out. They are
    calibrated on the other folds' held-out images, as for the figures of the record, and then
    shifted to one level (:func:`level`).

    Args:
        folder: receives them.
        jobs: the done jobs of each detector; all have the same folds.

    Returns:
        ``folds.toml``, which ``realbench arena --cross-fit`` takes: each fold's detectors, and
        the generators that it holds out as contestants.
    """
    held: dict[int, list[str]] = {}
    for name, own in jobs.items():
        table = held_out(own)
        calibrations = level(fold_calibrations(table), table)
        for job in own:
            if job.fold is not None:
                publish_card(
                    folder / f"fold-{job.fold}" / name,
                    name=name,
                    recipe=job.recipe,
                    weights=job.weights,
                    calibration=calibrations[job.fold],
                )
                held[job.fold] = _held_out_generators(job)
    parts = [
        "# Each fold's detectors, and the generators from which they did not learn.\n"
        "# Made by realbench detectors train --keep-folds."
    ]
    for fold, generators in sorted(held.items()):
        cards = [f"fold-{fold}/{name}" for name in jobs]
        parts.append(f"[[fold]]\ndetectors = {_listed(cards)}\ncontestants = {_listed(generators)}")
    path = folder / FOLDS_FILE
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def level(
    calibrations: Mapping[int, CalibrationSpec], table: pd.DataFrame
) -> dict[int, CalibrationSpec]:
    """Shift each fold's calibration so that the photographs it held out have one mean logit.

    Scores of different folds stand beside each other, and their networks differ. Photographs are
    held out at random, so that their level should be the same; no generated image is needed.

    Args:
        calibrations: of each fold.
        table: held-out scores, as for :func:`fold_calibrations`.
    """
    photographs = table[table["real"] & (table["change"] == "unchanged")]
    means = {
        fold: float(calibrated(photographs["logit"][photographs["fold"] == fold], spec).mean())
        for fold, spec in calibrations.items()
    }
    common = sum(means.values()) / len(means)
    shifted = {}
    for fold, spec in calibrations.items():
        bias = spec.bias + spec.temperature * (common - means[fold])
        shifted[fold] = spec.model_copy(update={"bias": round(bias, 4)})
    return shifted


def _held_out_generators(job: Job) -> list[str]:
    made = [image for image in job.images if not image.real and not image.round_trip]
    return sorted({image.source for image in made if image.source_fold == job.fold})


def _listed(names: Sequence[str]) -> str:
    import json

    lines = "".join(f"  {json.dumps(name, ensure_ascii=False)},\n" for name in names)
    return f"[\n{lines}]" if names else "[]"
