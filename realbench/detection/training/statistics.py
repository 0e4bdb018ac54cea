"""Patch statistics of augmented views of the training images: what a linear layer learns from.

They are computed once for all folds, image by image, and kept in the work folder in parts, so
that a killed run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realbench.detection.cards import Card
from realbench.detection.training.data import TrainingImage
from realbench.detection.training.recipe import Recipe
from realbench.detection.training.workers import worker_pool
from realbench.files import file_sha256, write_whole
from realbench.images import read_image

NOTHING, RENDER = -1, -2  # in place of an image's index: made on the spot

_IMAGES_A_PART = 64
_PARTS_MADE = 2
_BLANKS_A_PART = 512
_VIEWS_A_PASS = 8

# The fields of a recipe that decide the statistics; the others decide what is learned from them.
_DECISIVE = {
    "kind",
    "architecture",
    "blocks",
    "class_token",
    "options",
    "input_size",
    "bits",
    "matched_size",
    "training_views",
    "degraded_share",
    "strongest_noise",
    "weakest_noise",
    "seed",
}


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of views.

    Attributes:
        values: float16 (n, d), of :meth:`PatchStatistics.statistics`.
        tuned: float32 (n,), what the tuned blocks say where a trained network was started from,
            else 0.
        image: int (n,), the index of the image that each view is of, ``NOTHING`` or ``RENDER``.
    """

    values: np.ndarray
    tuned: np.ndarray
    image: np.ndarray


@dataclass(frozen=True, slots=True)
class _Part:
    """Some images, or some that are made on the spot, and the file for their statistics."""

    recipe: Recipe
    images: tuple[TrainingImage, ...]
    indices: tuple[int, ...]
    number: int
    file: Path
    start: Card | None
    made: int | None = None
    degraded: bool = False


def compute_statistics(
    images: Sequence[TrainingImage],
    recipe: Recipe,
    work: Path,
    workers: int,
    start: Card | None = None,
) -> tuple[Path, ...]:
    """Compute statistics of views: of each image, of computer-generated scenes, of nothing.

    Args:
        images: those of ``recipe.never_train`` are left out.
        work: keeps the parts that are done.
        workers: processes, one thread each.
        start: the trained detector to start from, if any.

    Returns:
        the files for :func:`load_statistics`.
    """
    parts = _parts(images, recipe, work, start)
    waiting = [part for part in parts if not part.file.exists()]
    if waiting:
        with worker_pool(workers) as pool:
            list(pool.map(_compute, waiting))
    return tuple(part.file for part in parts)


def load_statistics(files: Sequence[Path]) -> Statistics:
    """Read what :func:`compute_statistics` left in ``files``."""
    loaded = [np.load(file, allow_pickle=False) for file in files]
    values = np.concatenate([part["values"] for part in loaded])
    tuned = [part.get("tuned", np.zeros(len(part["image"]), np.float32)) for part in loaded]
    return Statistics(
        values,
        np.concatenate(tuned),
        np.concatenate([part["image"] for part in loaded]),
    )


def _parts(
    images: Sequence[TrainingImage], recipe: Recipe, work: Path, start: Card | None
) -> list[_Part]:
    learns_round_trips = recipe.shares.round_trip > 0  # else they are judged alone
    usable = [
        n
        for n, image in enumerate(images)
        if image.source not in recipe.never_train and (learns_round_trips or not image.round_trip)
    ]
    decisive = recipe.model_dump(mode="json", include=_DECISIVE, exclude_none=True)
    if start is not None:
        decisive["start"] = start.uncalibrated
    parts = []
    made = [n for n in usable if not images[n].real] if recipe.degraded_views else []
    for degraded, some in ((False, usable), (True, made)):
        for number, first in enumerate(range(0, len(some), _IMAGES_A_PART)):
            indices = tuple(some[first : first + _IMAGES_A_PART])
            chosen = tuple(images[n] for n in indices)
            named = [*(file_sha256(image.path) for image in chosen), *indices]
            if degraded:
                named.append(f"degraded {recipe.degraded_views}")
            file = work / _name(decisive, named)
            parts.append(_Part(recipe, chosen, indices, number, file, start, degraded=degraded))
    if start is not None:  # what is adapted keeps what it learned of what is made on the spot
        return parts
    for number, first in enumerate(range(0, recipe.blanks, _BLANKS_A_PART)):
        indices = tuple(range(first, min(first + _BLANKS_A_PART, recipe.blanks)))
        file = work / _name(decisive, ["blank", *indices])
        parts.append(_Part(recipe, (), indices, number, file, None, NOTHING))
    for number in range(_PARTS_MADE):
        file = work / _name(decisive, ["render", number])
        parts.append(_Part(recipe, (), (), number, file, None, RENDER))
    return parts


def _name(*what: object) -> str:
    text = json.dumps(what, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24] + ".npz"


def _compute(part: _Part) -> None:
    import torch

    from realbench.detection.training.network import pretrained_network

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = pretrained_network(part.recipe, part.start).to(device)
    says = part.start is not None and network.tail is not None
    views, owners = [], []
    for owner, view in _views(part):
        owners.append(owner)
        views.append(view)
    rows, tuned = [], []
    for first in range(0, len(views), _VIEWS_A_PASS):
        stacked = torch.from_numpy(np.stack(views[first : first + _VIEWS_A_PASS]))
        batch = stacked.permute(0, 3, 1, 2).to(device).float()
        with torch.inference_mode():
            rows.append(network.statistics(batch).half().cpu().numpy())
            if says:
                tuned.append(network.tuned_logits(network.tokens(batch)).cpu().numpy())
    arrays = {"values": np.concatenate(rows), "image": np.array(owners)}
    if says:
        arrays["tuned"] = np.concatenate(tuned)
    part.file.parent.mkdir(parents=True, exist_ok=True)

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_whole(part.file, write)


def _views(part: _Part) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each view with the index of its image, or with what stands for one."""
    from realbench.detection.training import views

    recipe = part.recipe
    if part.made == NOTHING:
        for index in part.indices:
            if index % _IMAGES_A_PART == 0:
                rng = np.random.default_rng([recipe.seed, 1, index // _IMAGES_A_PART])
            yield NOTHING, views.nothing(recipe, rng)
        return
    if part.made == RENDER:
        rng = np.random.default_rng([recipe.seed, 2, part.number])
        for _ in range(_IMAGES_A_PART):
            pixels = views.render(recipe, rng)
            for _ in range(recipe.training_views):
                yield RENDER, views.view_of(pixels, False, recipe, rng)
    for index, image in zip(part.indices, part.images, strict=True):
        rng = np.random.default_rng([recipe.seed, 3 if part.degraded else 0, index])
        pixels = views.stored(read_image(image.path), recipe)
        if part.degraded:
            for _ in range(recipe.degraded_views):
                yield index, views.degraded_view(pixels, recipe, rng)
            continue
        for _ in range(recipe.training_views):
            yield index, views.view_of(pixels, image.real, recipe, rng)
