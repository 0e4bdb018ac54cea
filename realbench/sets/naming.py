"""``set:NAME`` and ``set:NAME/FOLDER``, which stand for a set's folders where a folder is taken."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from realbench.errors import RealBenchWarning, UsageError
from realbench.text import printable

if TYPE_CHECKING:
    from realbench.sets.cards import SetCard
    from realbench.sets.fetching import Fetched

PREFIX = "set:"


def is_set(value: object) -> bool:
    """Whether a value stands for a named set."""
    return isinstance(value, str | Path) and str(value).startswith(PREFIX)


def set_folders(values: Iterable[str | Path]) -> list[str | Path]:
    """Return folders as they are, and for each ``set:NAME`` those of its generators.

    ``set:NAME/FOLDER`` is one folder of the set: a generator's, or ``photographs``. A set that has
    nothing generated stands for its photographs. ``NAME`` may be the path of a card's folder.

    Raises:
        UsageError: there is no such set or folder.
        RealBenchError: it is not here and cannot be fetched.
    """
    return [folder for value in values for folder in _folders(value, photographs=False)]


def set_photographs(value: str | Path) -> str | Path:
    """Return a folder of photographs as it is, and for ``set:NAME`` the set's photographs.

    Raises:
        UsageError: there is no such set or folder, or it has no photographs.
        RealBenchError: it is not here and cannot be fetched.
    """
    return _folders(value, photographs=True)[0]


def set_prompts(value: str | Path) -> Path:
    """Return the file of a set's captions.

    Args:
        value: ``set:NAME``.

    Raises:
        UsageError: there is no such set, or it has no captions.
        RealBenchError: it is not here and cannot be fetched.
    """
    from realbench.sets.fetching import PROMPTS_FILE

    card, _ = _parted(value)
    file = _here(card).folder / PROMPTS_FILE
    if not file.is_file():
        raise UsageError(f"the set {card.name} has no captions: give a file of prompts")
    return file


def _folders(value: str | Path, *, photographs: bool) -> list[str | Path]:
    if not is_set(value):
        return [value]
    card, part = _parted(value)
    found = _here(card)
    every = {one.removeprefix("generated/"): found.folder / one for one in found.record["folders"]}
    if part:
        part = part.removeprefix("generated/").rstrip("/")
        if part not in every:
            shown = printable(part)
            raise UsageError(f"the set {card.name} has no {shown!r}, but {', '.join(every)}")
        return [every[part]]
    if photographs:
        if "photographs" not in every:
            raise UsageError(f"the set {card.name} has no photographs: give a folder of them")
        return [every["photographs"]]
    return [path for name, path in every.items() if name != "photographs"] or list(every.values())


def _parted(value: str | Path) -> tuple[SetCard, str]:
    """Return the card of ``set:NAME/FOLDER``, and ``FOLDER``."""
    from realbench.sets.cards import SET_FILE, find_set

    text = str(value).removeprefix(PREFIX)
    if text.startswith((".", "/", "~")):
        path = Path(text).expanduser()
        for place in (path, *path.parents):
            if (place / SET_FILE).is_file():
                return find_set(place), path.relative_to(place).as_posix().removeprefix(".")
        return find_set(text), ""
    name, _, rest = text.partition("/")
    return find_set(name), rest


def _here(card: SetCard) -> Fetched:
    """Return a set, or the part of it that is here; what is not here is fetched."""
    from realbench.sets.fetching import find_fetched, get

    found = find_fetched(card) or get(card)
    if found.record["asked"] is not None:
        message = f"of {card.name}, {found.record['n']:,} pictures are here, not the whole"
        warnings.warn(message, RealBenchWarning, stacklevel=4)
    return found
