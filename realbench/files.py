"""Writes files so that they are whole or absent, whatever happens in the middle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


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
