"""Trains detectors from recipes: data, round trips, folds, final fits, calibration, records."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from realbench.detection.cards import check_name
from realbench.detection.training import run
from realbench.detection.training.data import (
    TrainingImage,
    data_digest,
    from_folders,
    read_manifest,
    round_trips,
)
from realbench.detection.training.publish import publish_detector, publish_record
from realbench.detection.training.recipe import Recipe
from realbench.detection.training.statistics import compute_statistics
from realbench.errors import UsageError

# Generated subset -> the photographs that share its subjects; the content-matched one first.
MATCHED_SUBSETS = {"ordinary/generated": "ordinary/photos", "generated": "*"}


def train_detectors(
    recipes: Mapping[str, Recipe],
    *,
    out: Path,
    work: Path,
    data: Path | None = None,
    photos: Sequence[Path] = (),
    generated: Sequence[Path] = (),
    autoencoder: Path | None = None,
    workers: int | None = None,
    keep_folds: Path | None = None,
    command: str = "",
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train, calibrate and write one detector folder per recipe under ``out``.

    Args:
        recipes: detector name to recipe.
        out: receives ``<name>/`` with weights, card, record and README.
        work: holds what is done so far; run again with the same one to go on.
        data: a folder with a ``manifest.csv``; or else give ``photos`` and ``generated``.
        autoencoder: folder of the TAEF2 weights; without it no round trips are made.
        workers: fits at a time, one thread each; by default one per core.
        keep_folds: receives the folds' networks as detectors (:func:`publish_folds`).
        command: what the model cards name as the command that made them.
        report: receives a line per finished step.

    Returns:
        the figures of each detector, and with several of their ``"ensemble"``.

    Raises:
        UsageError: no data, or data without one of the classes.
    """
    from realbench.detection.training.folds import publish_folds
    from realbench.detection.training.record import calibrate, ensemble_table, figures

    start = time.monotonic()
    for name in recipes:
        check_name(name)
    if data is None:  # shares of subsets are those of the project's own data
        recipes = {name: _without_subsets(recipe) for name, recipe in recipes.items()}
    first = next(iter(recipes.values()))
    images = _images(first, data, photos, generated)
    digest = data_digest(images)
    report(f"{len(images)} images, digest {digest[:12]}")
    count = workers or os.cpu_count() or 1
    if autoencoder is not None:
        folder = work / "round-trips"
        images = [*images, *round_trips(images, autoencoder, folder, first.seed, count)]
        report(f"round trips ready after {time.monotonic() - start:.0f} s")
    jobs = {}
    for name, recipe in recipes.items():
        statistics = compute_statistics(images, recipe, work / "statistics", count)
        report(f"{name}: statistics of views ready after {time.monotonic() - start:.0f} s")
        folder = run.job_folder(work, name, recipe, images, digest)
        jobs[name] = [
            run.Job(recipe, tuple(images), fold, folder, statistics)
            for fold in (None, *range(recipe.folds))
        ]
    run.train([job for some in jobs.values() for job in some], count, report)

    tables, results = {}, {}
    matched = _matched_subsets(images)
    for name, recipe in recipes.items():
        calibration, tables[name] = calibrate(run.held_out(jobs[name]))
        results[name] = figures(tables[name], matched)
        record = {
            "name": name,
            "command": command,
            "figures": results[name],
            "training": _training(recipe, images, digest),
        }
        final = next(job for job in jobs[name] if job.fold is None)
        publish_detector(
            out / name,
            name=name,
            recipe=recipe,
            weights=final.weights,
            calibration=calibration,
            record=record,
        )
    if len(tables) > 1:
        levels = {n: "semantic" if r.kind == "semantic" else "feature" for n, r in recipes.items()}
        results["ensemble"] = figures(ensemble_table(tables, levels), matched)
        record = {
            "command": command,
            "figures": results["ensemble"],
            "training": {"detectors": ", ".join(tables), "data digest (SHA-256)": digest},
        }
        publish_record(out / "README.md", "# The embedded detectors", record)
        run.save_json(out / "record.json", record)
    if keep_folds is not None:
        report(f"folds kept: {publish_folds(keep_folds, jobs)}")
    report(f"done after {time.monotonic() - start:.0f} s")
    return results


def _images(
    recipe: Recipe, data: Path | None, photos: Sequence[Path], generated: Sequence[Path]
) -> list[TrainingImage]:
    if data is not None:
        return read_manifest(data, recipe)
    if not photos or not generated:
        raise UsageError("give --data with a manifest.csv, or both --photos and --generated")
    return from_folders(photos, generated, recipe)


def _without_subsets(recipe: Recipe) -> Recipe:
    whole = recipe.shares.model_copy(
        update={"generated": {"*": sum(recipe.shares.generated.values())}}
    )
    return recipe.model_copy(update={"shares": whole, "unscored_subsets": (), "never_train": ()})


def _matched_subsets(images: Sequence[TrainingImage]) -> dict[str, str]:
    found = {image.subset for image in images if not image.real}
    known = {k: v for k, v in MATCHED_SUBSETS.items() if k in found}
    return known or dict.fromkeys(sorted(found), "*")


def _training(recipe: Recipe, images: Sequence[TrainingImage], digest: str) -> dict[str, Any]:
    generators: dict[int, list[str]] = {}
    for source in sorted({i.source for i in images if not i.real and not i.round_trip}):
        generators.setdefault(recipe.source_fold(source), []).append(source)
    return {
        "network": (
            f"the first {max(recipe.blocks) + 1} blocks of timm {recipe.architecture}, frozen, "
            f"and a linear layer on patch statistics after blocks {_listed(recipe.blocks)}"
        ),
        "photographs": sum(i.real for i in images),
        "generated images": sum(not i.real and not i.round_trip for i in images),
        "round trips of photographs": sum(i.round_trip for i in images),
        "data digest (SHA-256)": digest,
        "views": f"{recipe.training_views} of each image, seed {recipe.seed}",
        "recipe": "`recipe.toml` beside this file",
        **{
            f"generators held out by fold {fold}": ", ".join(names)
            for fold, names in sorted(generators.items())
        },
    }


def _listed(blocks: Sequence[int]) -> str:
    return ", ".join(str(block + 1) for block in sorted(blocks))
