"""Training images: what they are, which fold tests them, and their content-matched twins."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from realbench.detection.perturbations import center_square
from realbench.detection.training.autoencoder import STRIDE, DiffusionAutoencoder
from realbench.detection.training.recipe import Recipe, hash_fold
from realbench.detection.training.workers import worker_pool
from realbench.errors import UsageError
from realbench.files import file_sha256, write_whole
from realbench.images import UnreadableImage, read_image

ROUND_TRIP_SIZES = (320, 384, 448, 512)


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One image of a training set.

    Attributes:
        path: the file.
        real: whether it is a photograph.
        source: where it comes from: a generator's name, or a set of photographs.
        subset: a part of the data whose images look alike (first folders of the path).
        source_fold: the fold that holds out this source.
        prompt_fold: the fold that holds out this prompt, subject or photograph.
        round_trip: whether it is a photograph's round trip through the autoencoder.
        own_prompt: whether its prompt is of no source that another fold holds out, so that the fold
            of its source has not seen the prompt either.
    """

    path: Path
    real: bool
    source: str
    subset: str
    source_fold: int
    prompt_fold: int
    round_trip: bool = False
    own_prompt: bool = False

    def trains(self, fold: int | None) -> bool:
        """Whether ``fold`` (None: the final fit) may learn from it."""
        return fold is None or fold not in (self.source_fold, self.prompt_fold)

    def tests(self, fold: int) -> bool:
        """Whether neither its source nor its prompt was seen in training ``fold``."""
        return self.source_fold == fold and (self.own_prompt or self.prompt_fold == fold)


def read_manifest(folder: Path, recipe: Recipe) -> list[TrainingImage]:
    """Read ``folder/manifest.csv``, and those of folders in it: ``path,label,source[,prompt_id]``.

    Paths are from ``folder``. Sources without prompt ids count as one subject each, so the fold
    that holds out the generator holds out its subject too. Photographs are held out by source where
    the recipe says so, else one by one, or in the runs that it names (series of one subject).

    Raises:
        UsageError: the manifest is missing or lacks a column.
    """
    images: list[TrainingImage] = []
    prompts: list[str] = []
    for path in (folder / "manifest.csv", *sorted(folder.glob("*/manifest.csv"))):
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror})") from error
        missing = {"path", "label", "source"} - set(rows[0] if rows else ())
        if missing:
            raise UsageError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        images += [_from_row(folder, row, recipe) for row in rows]
        prompts += [row.get("prompt_id") or "" for row in rows]
    folds = defaultdict(set)
    for image, prompt in zip(images, prompts, strict=True):
        folds[prompt].add(image.source_fold)
    return [
        replace(image, own_prompt=bool(prompt) and len(folds[prompt]) == 1)
        for image, prompt in zip(images, prompts, strict=True)
    ]


def _from_row(folder: Path, row: dict[str, str], recipe: Recipe) -> TrainingImage:
    path = Path(row["path"])
    source = path.parent.name if row["label"] == "generated" else row["source"]
    subset = recipe.subset_of(row["path"])
    if row["label"] == "real":
        one = series(path.stem, recipe.photo_series)
        fold = (
            recipe.source_fold(source) if recipe.hold_out_sources else hash_fold(one, recipe.folds)
        )
        return TrainingImage(folder / path, True, source, subset, fold, fold)
    source_fold = recipe.source_fold(source)
    prompt_fold = recipe.prompt_fold(row.get("prompt_id") or "", source)
    return TrainingImage(folder / path, False, source, subset, source_fold, prompt_fold)


def series(stem: str, prefixes: Iterable[str]) -> str:
    """Return what is held out with a photograph: eight of a numbered series, or it alone."""
    for prefix in prefixes:
        number = stem.removeprefix(prefix)
        if number != stem and number.isdigit():
            return f"{prefix}{int(number) // 8}"
    return stem


def data_digest(images: Iterable[TrainingImage]) -> str:
    """Return one SHA-256 over the contents and labels of all images, in a fixed order."""
    lines = sorted(f"{file_sha256(image.path)} {image.real}" for image in images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def round_trips(
    images: Sequence[TrainingImage], weights: Path, work: Path, seed: int, workers: int = 1
) -> list[TrainingImage]:
    """Make (or find in ``work``) one disturbed round trip of every photograph.

    Returns:
        the twins, labelled generated, in the folds of their photographs.
    """
    work.mkdir(parents=True, exist_ok=True)
    photos = [image for image in images if image.real]
    # Seeds come from contents, so that the same data elsewhere makes the same twins.
    keys = [_digest(image.path, seed) for image in photos]
    targets = [work / f"{key}.png" for key in keys]
    missing = [
        (image.path, target, int(key, 16))
        for image, target, key in zip(photos, targets, keys, strict=True)
        if not target.exists()
    ]
    if missing:
        with worker_pool(workers) as pool:
            chunks = [missing[start::workers] for start in range(workers)]
            list(pool.map(_make_round_trips, chunks, [weights] * workers))
    return [
        replace(image, path=target, real=False, source="round-trip", round_trip=True)
        for image, target in zip(photos, targets, strict=True)
    ]


def _digest(path: Path, seed: int) -> str:
    return hashlib.sha256(path.read_bytes() + seed.to_bytes(8, "big")).hexdigest()[:24]


def _make_round_trips(work: Sequence[tuple[Path, Path, int]], weights: Path) -> None:
    from PIL import Image

    autoencoder = DiffusionAutoencoder.load(weights)
    for source, target, seed in work:
        rng = np.random.default_rng(seed)
        twin = autoencoder.round_trip(_for_round_trip(source, rng), rng)
        picture = Image.fromarray(twin)
        write_whole(target, partial(picture.save, format="PNG", compress_level=1))


def _for_round_trip(path: Path, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image

    square = center_square(read_image(path))
    side = min(len(square), int(rng.choice(ROUND_TRIP_SIZES))) // STRIDE * STRIDE
    if side < 2 * STRIDE:
        raise UnreadableImage(f"{path} is too small for a round trip")
    picture = Image.fromarray(np.ascontiguousarray(square))
    if side < len(square) - STRIDE:
        return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS))
    return np.asarray(picture)[:side, :side]
