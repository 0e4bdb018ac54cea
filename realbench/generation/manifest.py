"""The manifest of an image folder, ``generation.json``: how each image was made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from realbench.errors import RealBenchError, UsageError
from realbench.files import write_whole
from realbench.runs.lock import folder_lock
from realbench.runs.versions import installed_versions
from realbench.text import printable

MANIFEST_FILE = "generation.json"
MANIFEST_FORMAT = 1
_LOCK_FILE = ".generation.lock"
_PACKAGES = ("realgen", "diffusers", "transformers", "torch", "peft")


def read_generation(folder: Path) -> dict[str, Any] | None:
    """Return a folder's manifest, None where it has none.

    Raises:
        RealBenchError: the file cannot be read or is of another kind.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RealBenchError(f"cannot read {printable(path)}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RealBenchError(f"{printable(path)} is damaged ({error}): give another --out") from (
            error
        )
    if not isinstance(manifest, dict) or manifest.get("generation_format") != MANIFEST_FORMAT:
        raise UsageError(
            f"{printable(path)} is not of this version of RealBench: give another --out"
        )
    return manifest


def write_generation(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a folder's manifest, whole or not at all.

    Raises:
        RealBenchError: it cannot be written.
    """
    data = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
    write_file(folder / MANIFEST_FILE, data)


def write_file(path: Path, data: bytes) -> None:
    """Write a file of the folder, whole or not at all.

    Raises:
        RealBenchError: it cannot be written.
    """
    try:
        write_whole(path, lambda partial: partial.write_bytes(data))
    except OSError as error:
        raise RealBenchError(
            f"cannot write {printable(path)}: {error.strerror or error}; finished images are kept"
        ) from error


def check_continues(folder: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to add images of other settings to a folder.

    Raises:
        UsageError: something that decides images is not as it was; the message says what.
    """
    before = earlier.get("settings") or {}
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        key = changed[0]
        old, new = (json.dumps(one.get(key), ensure_ascii=False) for one in (before, settings))
        raise UsageError(
            f"{printable(folder)} holds images made with another {key} ({_short(old)}, now "
            f"{_short(new)}): give another --out"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from the folder, and remove what a killed one left half written.

    Raises:
        UsageError: another one is at work in it, or it cannot be made.
    """
    with folder_lock(folder, _LOCK_FILE, holder="realbench generate"):
        for partial in folder.glob(".*.part"):
            partial.unlink(missing_ok=True)
        yield


def versions() -> dict[str, str]:
    """Return the versions of what makes the images; nothing of it is imported."""
    return installed_versions(_PACKAGES)


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"
