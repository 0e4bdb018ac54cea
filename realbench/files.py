"""Files: written so that they are whole or absent, told apart by contents, read strictly."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a file beside ``path``, then give it that name.

    An older version stays until then, and after a failure; nothing partial is left behind.

    Raises:
        OSError: it cannot be written, and whatever else ``write`` raises.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex; it need not fit into memory.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(paths: Iterable[Path]) -> str:
    """Return one SHA-256 in hex over the names and contents of files, in their order.

    Raises:
        OSError: one cannot be read.
    """
    together = hashlib.sha256()
    for path in paths:
        together.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return together.hexdigest()


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, as the ``object_pairs_hook`` of :func:`json.loads`.

    Raises:
        ValueError: a key comes twice, of which readers of JSON take one or the other.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice in one object")
    return found
