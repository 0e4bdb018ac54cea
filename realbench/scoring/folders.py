"""What a run reads: its folders, what they are called, and the image files in them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from realbench.errors import RealBenchWarning, UsageError
from realbench.images import ImageFile, find_images
from realbench.prompts import Suite
from realbench.text import printable


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
        files: folder name and image.
    """
    if files and not any(file.prompt_id in suite.prompts for _, file in files):
        message = (
            f"no image is named by a prompt of {printable(given)}: the stem of an image is its "
            f"prompt's id (such as {next(iter(suite.prompts))}.png), and the first image is "
            f"{files[0][1].image}"
        )
        warnings.warn(message, RealBenchWarning, stacklevel=3)
