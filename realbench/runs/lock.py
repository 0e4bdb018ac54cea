"""Keeps other processes out of a folder that one is filling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from realbench.errors import UsageError
from realbench.text import printable


@contextmanager
def folder_lock(folder: Path, file: str, *, holder: str) -> Iterator[None]:
    """Make a folder and hold its lock.

    Args:
        file: the lock's name in the folder.
        holder: who can have it, for the message: ``"training"``.

    Raises:
        UsageError: another process holds it, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / file)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"another {holder} is at work in {printable(folder)}: give another --out"
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot use the folder {printable(folder)}: {error.strerror or error}; give another "
            "--out"
        ) from error
    try:
        yield
    finally:
        lock.release()
