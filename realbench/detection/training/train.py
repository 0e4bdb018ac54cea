"""Trains detectors from recipes: data, round trips, folds, final fits, calibration, records."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from realbench.detection.cards import check_name
from realbench.detection.ensembles import presets
from realbench.detection.registry import EMBEDDED_DETECTORS, find_card
from realbench.detection.training import run
from realbench.detection.training.data import (
    TrainingImage,
    data_digest,
    read_manifest,
    round_trips,
)
from realbench.detection.training.folders import (
    OWN_GENERATED,
    OWN_PHOTOGRAPHS,
    OwnImages,
    read_folders,
)
from realbench.detection.training.network import check_start, pretrained_network
from realbench.detection.training.publish import publish_detector, publish_record
from realbench.detection.training.recipe import Recipe
from realbench.detection.training.statistics import compute_statistics
from realbench.detection.training.tuning import Squares
from realbench.errors import UsageError

# Generated subset -> the photographs that share its subjects; the content-matched one first.
MATCHED_SUBSETS = {
    OWN_GENERATED: OWN_PHOTOGRAPHS,
    "ordinary/generated": "ordinary/photos",
    "web/generated": "web/photos",
    "generated": "*",
}
_FEW = 50  # held-out images of a class, below which a figure is a rough guess


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
    start_from: Mapping[str, str | Path] | None = None,
    keep_folds: Path | None = None,
    generator_folds: int | None = None,
    command: str = "",
    report: Callable[[str], None] = print,
    watch: run.Watch | None = None,
) -> dict[str, Any]:
    """Train, calibrate and write one detector folder per recipe under ``out``.

    Args:
        recipes: detector name to recipe.
        out: receives ``<name>/`` with weights, card, record and README.
        work: holds what is done so far; run again with the same one to go on.
        data: a folder with a ``manifest.csv``.
        photos, generated: the user's own folders (see :func:`read_folders`), instead of ``data``
            or beside it.
        autoencoder: folder of the TAEF2 weights; without it no round trips are made.
        start_from: detector name to the trained detector (name or folder) that is adapted to the
            images, rather than a network trained on them alone.
        workers: fits at a time, one thread each; by default one per core.
        keep_folds: receives the folds' networks as detectors (:func:`publish_folds`).
        generator_folds: keep that many folds instead, which hold out generators alone and learn
            from the rest (:func:`generator_jobs`).
        command: what the model cards name as the command that made them.
        report: receives a line per finished step.
        watch: see :func:`realbench.detection.training.run.train`.

    Returns:
        the figures of each detector, and with several of their ``"ensemble"``.

    Raises:
        UsageError: no data, or too little of a class; a recipe whose network cannot be built.
    """
    from realbench.detection.training.folds import generator_jobs, publish_folds
    from realbench.detection.training.record import (
        calibrate,
        conformal_sample,
        ensemble_table,
        figures,
        verdicts,
    )

    begun = time.monotonic()
    starts = {name: find_card(one) for name, one in (start_from or {}).items()}
    for name in recipes:
        check_name(name)
        _check_network(name, recipes[name])
        if name in starts:
            check_start(starts[name], recipes[name])
    if data is None and not (photos and generated):
        raise UsageError(
            "give --reference and --generated, or --data with a manifest.csv, or all three"
        )
    if bool(photos) != bool(generated):
        raise UsageError("--reference and --generated go together: give both")
    first = next(iter(recipes.values()))
    own = read_folders(photos, generated, first.folds, others=data is not None) if photos else None
    images = [] if data is None else read_manifest(data, first)
    if own is not None:
        images += own.images
        for note in own.notes:
            report(f"note: {note}")
        recipes = {
            name: _for_own_images(recipe, own, alone=data is None)
            for name, recipe in recipes.items()
        }
        first = next(iter(recipes.values()))
    digest = data_digest(images)
    report(f"{len(images)} images, digest {digest[:12]}")
    count = workers or os.cpu_count() or 1
    if autoencoder is not None:
        folder = work / "round-trips"
        images = [*images, *round_trips(images, autoencoder, folder, first.seed, count)]
        report(f"round trips ready after {time.monotonic() - begun:.0f} s")
    jobs = {}
    for name, recipe in recipes.items():
        start = starts.get(name)
        folder = run.job_folder(work, name, recipe, images, digest, start)
        squares = None
        if recipe.tuned is not None and start is None:
            squares = work / f"squares-{recipe.matched_size}-{digest[:12]}-{len(images)}"
        jobs[name] = [
            run.Job(recipe, tuple(images), fold, folder, (), squares, start)
            for fold in (None, *range(recipe.folds))
        ]
        if generator_folds is None and all(job.done for job in jobs[name]):
            continue
        if squares is not None:
            Squares.write(squares, images, recipe.matched_size)
        statistics = compute_statistics(images, recipe, work / "statistics", count, start)
        jobs[name] = [replace(job, statistics=statistics) for job in jobs[name]]
        report(f"{name}: statistics of views ready after {time.monotonic() - begun:.0f} s")
    kept = jobs
    if keep_folds is not None and generator_folds is not None:
        kept = {name: generator_jobs(some[0], generator_folds) for name, some in jobs.items()}
    fits = {job.weights: job for some in (*jobs.values(), *kept.values()) for job in some}
    run.train(list(fits.values()), count, report, watch)

    tables, results, cards = {}, {}, []
    matched = _matched_subsets(images)
    notes = [] if own is None else list(own.notes)
    for name, recipe in recipes.items():
        calibration, tables[name] = calibrate(run.held_out(jobs[name]))
        results[name] = figures(tables[name], matched)
        if own is not None:
            results[name]["notes"] = [*notes, *_few(results[name])]
        record = {
            "name": name,
            "command": command,
            "figures": results[name],
            "training": _training(recipe, images, digest),
        }
        if own is not None:
            record["protocol"] = {"held_out": own.held_out, "size": recipe.matched_size}
        final = next(job for job in jobs[name] if job.fold is None)
        publish_detector(
            out / name,
            name=name,
            recipe=recipe,
            weights=final.weights,
            calibration=calibration,
            record=record,
            own=own is not None,
        )
        cards.append(find_card(out / name))
    if own is None and set(recipes) == set(EMBEDDED_DETECTORS):
        cards.sort(key=lambda card: EMBEDDED_DETECTORS.index(card.name))
        cards = presets()["default"].weighted(cards)
    sample = conformal_sample(cards, tables)
    sample.write(out if len(cards) > 1 else cards[0].path)
    if len(tables) > 1:
        results["ensemble"] = figures(ensemble_table(cards, tables), matched)
        results["ensemble"]["verdict"] = verdicts(cards, sample, tables)
        record = {
            "command": command,
            "figures": results["ensemble"],
            "training": {"detectors": ", ".join(tables), "data digest (SHA-256)": digest},
        }
        if own is not None:
            results["ensemble"]["notes"] = [*notes, *_few(results["ensemble"])]
            record["protocol"] = {"held_out": own.held_out, "size": first.matched_size}
        publish_record(out / "README.md", "# The detectors of this folder together", record)
        run.save_json(out / "record.json", record)
    if keep_folds is not None:
        report(f"folds kept: {publish_folds(keep_folds, kept)}")
    report(f"done after {time.monotonic() - begun:.0f} s")
    return results


def _check_network(name: str, recipe: Recipe) -> None:
    """Refuse a recipe whose network cannot be built, before any work is done."""
    try:
        patch = pretrained_network(recipe).backbone.patch_embed.patch_size[0]
        if recipe.input_size % patch:
            raise ValueError(f"input_size is {recipe.input_size}")
    except (RuntimeError, TypeError, ValueError, AssertionError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"the network of recipe {name!r} cannot be built ({reason}): input_size must be a "
            "multiple of the patch's side (14), and blocks indices of blocks from 0"
        ) from error


def _for_own_images(recipe: Recipe, own: OwnImages, *, alone: bool) -> Recipe:
    """Return the recipe with shares for the user's generated images.

    Shares of subsets are those of the project's data. Without that, all generated images share
    their sum; beside it, half of the sum goes to the user's own.
    """
    shares = recipe.shares.generated
    whole = sum(shares.values())
    if alone:
        new = {"*": whole}
        changes: dict[str, Any] = {"unscored_subsets": (), "never_train": (), "folds": own.folds}
    else:
        new = {name: share / 2 for name, share in shares.items()} | {OWN_GENERATED: whole / 2}
        changes = {}
    changes["shares"] = recipe.shares.model_copy(update={"generated": new})
    return recipe.model_copy(update=changes)


def _few(results: Mapping[str, Any]) -> list[str]:
    """Return a note where little is held out of the user's own images."""
    found = results["auc"][OWN_GENERATED]
    counts = found["n_real"], found["n_generated"]
    if min(counts) >= _FEW:
        return []
    return [
        f"only {counts[0]} photographs and {counts[1]} generated images are held out: {_FEW} or "
        "more of each would say more"
    ]


def _matched_subsets(images: Sequence[TrainingImage]) -> dict[str, str]:
    found = {image.subset for image in images if not image.real}
    known = {k: v for k, v in MATCHED_SUBSETS.items() if k in found}
    if set(known) <= {OWN_GENERATED}:  # other data than the project's
        known |= dict.fromkeys(sorted(found - set(known)), "*")
    return known


def _training(recipe: Recipe, images: Sequence[TrainingImage], digest: str) -> dict[str, Any]:
    made = [image for image in images if not image.real and not image.round_trip]
    generators: dict[int, list[str]] = {}
    if len({image.source for image in made}) > 1:
        for source, fold in sorted({(image.source, image.source_fold) for image in made}):
            generators.setdefault(fold, []).append(source)
    return {
        "network": (
            f"the first {max(recipe.blocks) + 1} blocks of timm {recipe.architecture}, frozen, "
            f"and a linear layer on patch statistics after blocks {_listed(recipe.blocks)}"
        ),
        "photographs": sum(i.real for i in images),
        "generated images": len(made),
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
