"""A user's own folders as training data: whose image is which, and what a fold holds out."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from realbench.detection.training.data import TrainingImage
from realbench.errors import UsageError
from realbench.images import ImageFile, UnreadableImage, find_images, pixel_digest, read_image
from realbench.sets.naming import set_folders, set_photographs
from realbench.text import printable

OWN_PHOTOGRAPHS, OWN_GENERATED = "own photographs", "own images"
LEAST_IMAGES = 10  # of a class; a linear layer on less would be a guess


@dataclass(frozen=True, slots=True)
class OwnImages:
    """What lies in the folders.

    Attributes:
        images: those that can be read, each picture once.
        folds: how many folds hold something out.
        held_out: what a fold tests on, to go after "each tests".
        notes: what the user should know of the data, a line each.
    """

    images: list[TrainingImage]
    folds: int
    held_out: str
    notes: list[str]


def read_folders(
    photos: Sequence[Path], generated: Sequence[Path], folds: int, *, others: bool = False
) -> OwnImages:
    """Read photographs and generated images from plain folders.

    A generated folder is a generator; one that holds folders alone is a generator for each of
    them. Folds hold out generators, and with them the prompts (file stems) that generators share.
    One generator is held out by prompt instead, as photographs always are.

    Args:
        folds: folds to make, at least 2; with two generators, say, there are two.
        others: whether other generators' images are learned from, too: there are ``folds`` folds
            then, and a single generator is held out whole.

    Raises:
        UsageError: a folder is missing, given twice or without images, too few images can be
            read, or a picture lies in folders of both classes.
    """
    photos = [Path(set_photographs(one)) for one in photos]
    generated = [Path(one) for one in set_folders(generated)]
    _each_once([*photos, *generated])
    real = [(_name(folder), file) for folder in photos for file in find_images(folder)]
    made = generators(generated)
    notes: list[str] = []
    real, made = _usable(real, made, notes)
    for files, what in ((real, "photographs"), (made, "generated images")):
        if len(files) < LEAST_IMAGES:
            raise UsageError(
                f"training needs at least {LEAST_IMAGES} different {what} that can be read, and "
                f"there are {len(files)}: give more"
            )
    sources = sorted({source for source, _ in made})
    alone = len(sources) == 1 and not others
    folds = folds if alone or others else min(folds, len(sources))
    shared = set() if alone else _shared_stems(made, folds)
    held_out = "generators that it did not learn from"
    if alone:
        held_out = f"images that it did not learn from, of {sources[0]}, the one generator"
        notes.append(
            f"{sources[0]} is the only generator, so none could be held out: the figures are for "
            "further images of it, and nothing tells how well others are found"
        )
    elif shared:
        held_out = "generators **and** prompts (file names) that it did not learn from"
    stems = {file.prompt_id for _, file in made} if alone else shared
    return OwnImages(_folded(real, made, stems, folds, alone), folds, held_out, notes)


def _each_once(folders: Iterable[Path]) -> None:
    seen: set[str] = set()
    for folder in folders:
        real = os.path.realpath(folder)
        if real in seen:
            raise UsageError(f"the folder {printable(folder)} is given twice: give it once")
        seen.add(real)


def _name(folder: Path) -> str:
    return printable(Path(os.path.realpath(folder)).name)


def generators(folders: Sequence[Path]) -> list[tuple[str, ImageFile]]:
    """Return the images with their generators' names, which differ."""
    found: dict[tuple[Path, str], list[ImageFile]] = {}
    for folder in folders:
        files = find_images(folder)
        split = all("/" in file.image for file in files)
        for file in files:
            part = file.image.split("/", 1)[0] if split else ""
            found.setdefault((folder, part), []).append(file)
    short = Counter(part or _name(folder) for folder, part in found)
    full = {
        key: name if short[name := part or _name(folder)] == 1 else printable(folder / part)
        for key in found
        for folder, part in [key]
    }
    return [(full[key], file) for key, files in found.items() for file in files]


_Files = list[tuple[str, ImageFile]]


def _usable(real: _Files, made: _Files, notes: list[str]) -> tuple[_Files, _Files]:
    """Return the files that can be read, each picture once."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        outcomes = list(pool.map(lambda one: _contents(one[1].path), [*real, *made]))
    kept: tuple[_Files, _Files] = ([], [])
    first: dict[str, tuple[bool, Path]] = {}
    unreadable, copies = [], 0
    for n, (one, (pixels, reason)) in enumerate(zip([*real, *made], outcomes, strict=True)):
        path, is_real = one[1].path, n < len(real)
        if reason:
            unreadable.append(f"{printable(path)} ({reason})")
            continue
        before = first.get(pixels)
        if before is not None and before[0] != is_real:
            raise UsageError(
                f"{printable(before[1])} is given as a photograph and {printable(path)}, the same "
                "picture, as generated: correct the folders"
            )
        if before is not None:
            copies += 1
            continue
        first[pixels] = (is_real, path)
        kept[0 if is_real else 1].append(one)
    if unreadable:
        more = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        notes.append(f"left out, since it cannot be read: {unreadable[0]}{more}")
    if copies:
        what = "1 copy of a picture" if copies == 1 else f"{copies} copies of pictures"
        notes.append(f"left out: {what} that the folders hold already")
    return kept


def _contents(path: Path) -> tuple[str, str]:
    """Return the hash of a picture's pixels, or why it cannot be read."""
    try:
        return pixel_digest(read_image(path)), ""
    except UnreadableImage as error:
        return "", error.reason


def _shared_stems(made: _Files, folds: int) -> set[str]:
    """Return the stems that several generators have: the prompts to hold out."""
    having = defaultdict(set)
    for source, file in made:
        having[file.prompt_id].add(source)
    shared = {stem for stem, sources in having.items() if len(sources) > 1}
    return shared if len(shared) >= folds else set()  # else a fold would have nothing to learn


def _folded(
    real: _Files, made: _Files, prompts: set[str], folds: int, alone: bool
) -> list[TrainingImage]:
    """Return the images with their folds.

    Args:
        prompts: the stems that are held out as prompts.
        alone: whether there is one generator, which no fold can hold out.
    """
    of_prompt = _even(prompts, folds)
    photos = {file.prompt_id for _, file in real}
    # A photograph of a prompt is held out with it, unless that leaves a fold without photographs.
    of_photo = _even(photos - prompts, folds) | {stem: of_prompt[stem] for stem in photos & prompts}
    if len(set(of_photo.values())) < folds:
        of_photo = _even(photos, folds)
    sources = sorted({source for source, _ in made})
    images = []
    for source, file in real:
        fold = of_photo[file.prompt_id]
        images.append(TrainingImage(file.path, True, source, OWN_PHOTOGRAPHS, fold, fold))
    for source, file in made:
        source_fold = of_prompt[file.prompt_id] if alone else sources.index(source) % folds
        prompt_fold = of_prompt.get(file.prompt_id, source_fold)
        images.append(
            TrainingImage(file.path, False, source, OWN_GENERATED, source_fold, prompt_fold)
        )
    return images


def _even(stems: Iterable[str], folds: int) -> dict[str, int]:
    """Deal stems out to folds, in an order that says nothing of them."""
    shuffled = sorted(stems, key=lambda stem: hashlib.sha256(stem.encode()).digest())
    return {stem: n % folds for n, stem in enumerate(shuffled)}
