"""What a run reads: its folders, what they are called, the image files in them, and which count."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from realbench.errors import RealBenchWarning, UsageError
from realbench.images import ImageFile, find_images
from realbench.prompts import Suite
from realbench.text import printable

if TYPE_CHECKING:
    import pandas as pd


def display_names(folders: Sequence[Path]) -> list[str]:
    """Name each folder by the shortest tail of its path that no other one has.

    Raises:
        UsageError: a folder is given twice.
    """
    full = [Path(os.path.realpath(folder)) for folder in folders]
    for n, path in enumerate(full):
        if path in full[:n]:
            raise UsageError(f"the folder {printable(folders[n])} is given twice: give it once")
    names = []
    for path in full:
        length = 1
        others = [other.parts for other in full if other != path]
        while any(other[-length:] == path.parts[-length:] for other in others):
            length += 1
        names.append(printable("/".join(path.parts[-length:])))
    return names


def find_files(
    names: Sequence[str], folders: Sequence[str | Path]
) -> tuple[list[tuple[str, ImageFile]], list[str]]:
    """Return the images with their folder's name, and what could not be listed."""
    problems: list[str] = []

    def note(path: Path, why: str) -> None:
        problems.append(f"{printable(path)}: {why}")

    files = [
        (name, file)
        for name, folder in zip(names, folders, strict=True)
        for file in find_images(folder, on_problem=note)
    ]
    return files, problems


@dataclass(frozen=True, slots=True)
class Inputs:
    """The folders of a run.

    Attributes:
        folders: where each is, by its name, the reference last.
        photos: the name of the reference, None where there is none.
        files: their images with the folder's name, each for one folder.
        notes: what the user should know of them, a line each.
    """

    folders: dict[str, str | Path]
    photos: str | None
    files: list[tuple[str, ImageFile]]
    notes: list[str]

    @property
    def paths(self) -> list[Path]:
        """Where the images are."""
        return [file.path for _, file in self.files]

    @property
    def shown(self) -> list[tuple[str, str]]:
        """Name and place of each folder."""
        return [(name, printable(folder)) for name, folder in self.folders.items()]


def find_inputs(folders: Sequence[str | Path], reference: str | Path | None = None) -> Inputs:
    """Find the images of folders, and of a reference.

    Raises:
        UsageError: a folder is missing, empty, given twice, or has no image of its own.
    """
    every = [*folders, *([reference] if reference is not None else [])]
    names = display_names([Path(folder) for folder in every])
    files, notes = find_files(names, every)
    files, overlaps = apart(names, every, files)
    photos = names[-1] if reference is not None else None
    return Inputs(dict(zip(names, every, strict=True)), photos, files, [*notes, *overlaps])


def apart(
    names: Sequence[str], folders: Sequence[str | Path], files: Sequence[tuple[str, ImageFile]]
) -> tuple[list[tuple[str, ImageFile]], list[str]]:
    """Return the files of folders that overlap, each for one folder alone, and notes on the rest.

    Folders overlap where one lies in another, or where links lead from one into another. A file
    is then of the folder in which it really lies, of several the innermost.

    Args:
        files: all that was found, with the folder's name.

    Raises:
        UsageError: a folder has no file of its own.
    """
    real = {n: Path(os.path.realpath(f)) for n, f in zip(names, folders, strict=True)}
    places = [Path(os.path.realpath(file.path)) for _, file in files]
    holders: dict[Path, set[str]] = {}
    for (name, _), place in zip(files, places, strict=True):
        holders.setdefault(place, set()).add(name)
    kept, lost = [], dict[tuple[str, str], int]()
    for (name, file), place in zip(files, places, strict=True):
        around = [one for one in holders[place] if place.is_relative_to(real[one])]
        owner = max(around, key=lambda one: len(real[one].parts), default=name)
        if owner == name:
            kept.append((name, file))
        else:
            lost[name, owner] = lost.get((name, owner), 0) + 1
    for name in names:
        if not any(one == name for one, _ in kept):
            owners = " and ".join(owner for loser, owner in lost if loser == name)
            raise UsageError(
                f"all images of {name} are those of {owners}: name folders of different images"
            )
    return kept, [
        f"{name}: {_images(n)} left out, since {'it lies' if n == 1 else 'they lie'} in {owner}, "
        "which is a folder of its own here"
        for (name, owner), n in lost.items()
    ]


def copies(contents: Sequence[tuple[str, str]], reference: str | None = None) -> dict[int, int]:
    """Return which files are copies, and of which file: a picture counts once.

    A model's file is a copy of another one of the model, or of a photograph of the reference; of
    copies the first counts. Two models may make the same picture.

    Args:
        contents: each file's folder and the hash of its pixels, which is empty where it could not
            be read.

    Returns:
        for the index of each copy that of the file that counts.
    """
    first: dict[tuple[str | None, str], int] = {}
    for n, one in enumerate(contents):
        first.setdefault(one, n)
    found = {n: first.get((reference, one[1]), first[one]) for n, one in enumerate(contents)}
    return {n: of for n, of in found.items() if n != of and contents[n][1]}


def copy_notes(
    files: Sequence[tuple[str, str]], pixels: Sequence[str], copied: Mapping[int, int]
) -> list[str]:
    """Say in a line each which copies do not count, and which models have the same pictures.

    Args:
        pixels: the hash of each file's pixels, empty where it could not be read.
    """
    by_pair: dict[tuple[str, str], list[int]] = {}
    for n, of in copied.items():
        by_pair.setdefault((files[n][0], files[of][0]), []).append(n)
    notes = []
    for (folder, other), its in by_pair.items():
        total = sum(
            name == folder and one != "" for (name, _), one in zip(files, pixels, strict=True)
        )
        first, original = files[its[0]][1], files[copied[its[0]]]
        if folder == other:
            notes.append(
                f"{folder}: {len(its)} of {_images(total)} {_are(its)} of others in the folder, "
                f"such as {first} of {original[1]}: each picture counts once"
            )
        else:
            notes.append(
                f"{folder}: {len(its)} of {_images(total)} {_are(its)} of photographs, such as "
                f"{first} of {'/'.join(original)}: left out"
            )
    counted: dict[str, set[str]] = {}
    for n, ((folder, _), one) in enumerate(zip(files, pixels, strict=True)):
        if one and n not in copied:
            counted.setdefault(folder, set()).add(one)
    for model, other in combinations(counted, 2):
        both = len(counted[model] & counted[other])
        if both:
            notes.append(f"{model} and {other} have {_images(both)} in common, to the last pixel")
    return notes


def _are(copies: Sequence[int]) -> str:
    return "is a copy" if len(copies) == 1 else "are copies"


def _images(n: int) -> str:
    return f"{n} image" if n == 1 else f"{n} images"


def mark_copies(table: pd.DataFrame, pixels: Sequence[str], reference: str | None) -> list[str]:
    """Give copies in a table of scores the status ``copy``; return what the user should know.

    Args:
        table: with ``folder``, ``image``, ``status`` and ``reason``.
        pixels: the hash of each row's pixels, empty where it could not be read.
    """
    files = list(zip(table["folder"], table["image"], strict=True))
    copied = copies(list(zip(table["folder"], pixels, strict=True)), reference)
    rows = table.index[list(copied)]
    table.loc[rows, "status"] = "copy"
    table.loc[rows, "reason"] = [f"a copy of {'/'.join(files[of])}" for of in copied.values()]
    return copy_notes(files, pixels, copied)


def notes_on_models(inputs: Inputs) -> list[str]:
    """Say which folders hold several models, which are scored as one."""
    return [
        f"{printable(folder)} has the same prompts in {n} folders, scored as one model: give these "
        f"folders themselves to compare them ({printable(folder)}/*)"
        for name, folder in inputs.folders.items()
        if name != inputs.photos
        and (n := models_below([file for own, file in inputs.files if own == name])) > 1
    ]


def models_below(files: Sequence[ImageFile]) -> int:
    """Count the folders below one folder that look like models of their own.

    They do where their images, of which ``files`` has all, share prompts and the folder has none
    of its own; else the number is 0.
    """
    below: dict[str, set[str]] = {}
    for file in files:
        top, _, rest = file.image.partition("/")
        if not rest:
            return 0
        below.setdefault(top, set()).add(file.prompt_id)
    shared = set.intersection(*below.values()) if below else set()
    return len(below) if shared else 0


def warn_of_other_prompts(
    suite: Suite, given: str | Path, files: Sequence[tuple[str, ImageFile]]
) -> None:
    """Say, before any work, that no image is named by a prompt; photographs need not be.

    Args:
        given: what names the suite to the user.
    """
    if files and not any(file.prompt_id in suite.prompts for _, file in files):
        message = (
            f"no image is named by a prompt of {printable(given)}: the stem of an image is its "
            f"prompt's id (such as {next(iter(suite.prompts))}.png), and the first image is "
            f"{files[0][1].image}"
        )
        warnings.warn(message, RealBenchWarning, stacklevel=3)
