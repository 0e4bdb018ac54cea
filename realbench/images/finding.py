"""Lists the image files of a folder."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from realbench.errors import UsageError
from realbench.images.formats import EXTENSIONS, OTHER_PICTURES, looks_like_image
from realbench.text import printable


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file of a folder.

    Attributes:
        folder: The folder as the user named it.
        path: Where the file is, to open it.
        image: Its POSIX path relative to the folder, printable (see :func:`printable`).
        prompt_id: The file's stem, printable, in Unicode's composed form (NFC).
    """

    folder: str
    path: Path
    image: str
    prompt_id: str


def find_images(
    folder: str | Path, *, on_problem: Callable[[Path, str], None] | None = None
) -> list[ImageFile]:
    """List the image files in a folder and below, in natural order (``2.png`` before ``10.png``).

    Files count by their extension (:data:`EXTENSIONS`, in any case), and without one by their
    first bytes; hidden files and folders are passed over, and pictures in formats that are not
    read are told of. Links are followed; a folder that is reached twice is listed once, at its real
    place where that lies within ``folder``. What is named like an image but cannot be opened (a
    dangling link, a pipe) is listed, so that it is reported as unreadable.

    Args:
        folder: The folder, as the user named it.
        on_problem: Called with each subfolder that cannot be listed and the reason, and with the
            folder where pictures were passed over; the search goes on. Without it, each gives a
            :class:`UserWarning`.

    Raises:
        UsageError: the folder is missing, is not a folder, cannot be listed, or has no images.
    """
    root = Path(folder)
    name = printable(str(folder))
    if not str(folder) or not os.path.lexists(root):
        raise UsageError(f"no such folder: '{name}'; check the path")
    if not os.path.isdir(root):  # Path.is_dir raises on some paths, such as too long ones
        raise UsageError(f"{name} is not a folder; name the folder that holds the images")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise UsageError(f"cannot list the folder {name}: {error.strerror}") from error

    def warn(path: Path, reason: str) -> None:
        # Levels up: the walk, this function, its caller.
        warnings.warn(f"{printable(path)}: {reason}", stacklevel=4)

    shown = printable(root)
    found = []
    others: Counter[str] = Counter()
    for path in _walk(root, on_problem or warn, others):
        relative = path.relative_to(root)
        found.append(
            ImageFile(
                folder=shown,
                path=path,
                image=printable(relative.as_posix()),
                prompt_id=unicodedata.normalize("NFC", printable(relative.stem)),
            )
        )
    passed_over = ", ".join(f"{kind}: {count}" for kind, count in sorted(others.items()))
    if not found:
        known = ", ".join(sorted(EXTENSIONS))
        not_read = f"; not read are {passed_over}: convert them to PNG or JPEG" * bool(others)
        raise UsageError(
            f"no images in {name} or below it; looked for files named {known}{not_read}"
        )
    if others:
        reason = f"passed over pictures in formats that are not read ({passed_over}); "
        (on_problem or warn)(root, reason + "convert them to PNG or JPEG")
    found.sort(key=lambda file: (_natural_key(file.image), os.fspath(file.path)))
    return found


def _walk(
    root: Path, on_problem: Callable[[Path, str], None], others: Counter[str]
) -> Iterator[Path]:
    """Yield the image files; every real folder is entered once, linked ones after the others.

    ``others`` counts the pictures that are passed over, by their endings.
    """
    entered: set[tuple[int, int]] = set()
    folders, linked = [root], list[Path]()
    while folders or linked:
        current = folders.pop() if folders else linked.pop(0)
        try:
            status = current.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(current) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            on_problem(current, f"cannot list this folder: {error.strerror}")
            continue
        for entry in listed:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if not _is_folder(entry):
                ending = path.suffix.lower()
                if ending in EXTENSIONS or (not ending and looks_like_image(path)):
                    yield path
                elif ending in OTHER_PICTURES:
                    others[ending] += 1
            elif not entry.is_symlink():
                folders.append(path)
            elif not Path(os.path.realpath(current)).is_relative_to(os.path.realpath(path)):
                linked.append(path)  # else it leads to where it lies or above: a loop


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _natural_key(name: str) -> list[list[str | int]]:
    # Split at digits, texts and numbers alternate, so that like is compared with like.
    return [
        [int(piece) if i % 2 else piece.casefold() for i, piece in enumerate(pieces)]
        for pieces in (re.split("([0-9]+)", part) for part in name.split("/"))
    ]
