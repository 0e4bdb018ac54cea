"""Writes the networks of a training's folds as detectors, to score what they never saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pandas as pd

from realbench.detection.calibration import calibrated
from realbench.detection.specs import CalibrationSpec
from realbench.detection.training.data import TrainingImage, series
from realbench.detection.training.publish import publish_card
from realbench.detection.training.recipe import Recipe
from realbench.detection.training.record import fold_calibrations
from realbench.detection.training.run import Job, held_out
from realbench.errors import UsageError

FOLDS_FILE = "folds.toml"


def hold_out_generators(
    images: Sequence[TrainingImage], recipe: Recipe, folds: int
) -> list[TrainingImage]:
    """Return the images in folds that hold out families of generators, but not their prompts.

    A fold then learns from nearly all other images, where one that holds out prompts as well
    learns from few. Families are dealt out so that folds hold out about as many images, and so
    are the photographs of each subset, each with its series. A round trip is of its photograph's
    fold.

    Raises:
        UsageError: there are fewer families than folds.
    """
    families = Counter(recipe.family(i.source) for i in images if not (i.real or i.round_trip))
    if len(families) < folds:
        raise UsageError(
            f"{folds} folds need as many generators, and there are {len(families)} (variants of "
            "one model are one): ask for fewer folds"
        )
    of_family = _dealt(families, folds)
    of_series: dict[str, int] = {}
    for subset in sorted({image.subset for image in images if image.real}):
        own = Counter(
            _series(image, recipe) for image in images if image.real and image.subset == subset
        )
        of_series |= _dealt(Counter({k: n for k, n in own.items() if k not in of_series}), folds)
    of_photograph = [of_series[_series(image, recipe)] for image in images if image.real]
    of_twin = iter(of_photograph)  # there is one of each photograph, in their order, or none
    found = []
    for image in images:
        if image.real:
            fold = of_series[_series(image, recipe)]
        else:
            fold = next(of_twin) if image.round_trip else of_family[recipe.family(image.source)]
        found.append(replace(image, source_fold=fold, prompt_fold=fold))
    return found


def _series(image: TrainingImage, recipe: Recipe) -> str:
    return series(image.path.stem, recipe.photo_series)


def _dealt(sizes: Counter[str], folds: int) -> dict[str, int]:
    """Deal names out to folds, the largest first and each to the fold that has least so far.

    Those of one size come in an order that says nothing of them.
    """
    loads = [0] * folds
    found = {}
    for name in sorted(sizes, key=lambda one: (-sizes[one], sha256(one.encode()).digest())):
        found[name] = loads.index(min(loads))
        loads[found[name]] += sizes[name]
    return found


def generator_jobs(final: Job, folds: int) -> list[Job]:
    """Return a detector's fits that hold out generators, from its final one.

    Raises:
        UsageError: see :func:`hold_out_generators`.
    """
    images = tuple(hold_out_generators(final.images, final.recipe, folds))
    folder = final.folder.with_name(f"{final.folder.name}-{folds}-generator-folds")
    return [
        replace(final, images=images, fold=fold, folder=folder, calibrates_only=True)
        for fold in range(folds)
    ]


def publish_folds(folder: Path, jobs: Mapping[str, Sequence[Job]]) -> Path:
    """Write ``fold-N/<detector>/`` with a card and weights, and ``folds.toml``.

    A fold's networks learned from no image of the generators that it holds out. They are
    calibrated on the other folds' held-out images, as for the figures of the record, and then
    shifted to one level (:func:`level`). Folds of :func:`generator_jobs` are not: they are nearly
    one network, whose level differs less than the mean of the photographs that each held out
    does by chance; nor are folds that hold out whole sources, whose photographs differ.

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
        calibrations = fold_calibrations(table)
        if not any(job.calibrates_only or job.recipe.hold_out_sources for job in own):
            calibrations = level(calibrations, table)
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
