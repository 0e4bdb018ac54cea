"""The manifest of an image folder, ``generation.json``: how each image was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realbench.errors import UsageError
from realbench.runs.folder import read_json
from realbench.runs.versions import installed_versions
from realbench.text import printable

MANIFEST_FILE = "generation.json"
MANIFEST_FORMAT = 1
LOCK_FILE = ".generation.lock"
_PACKAGES = ("realgen", "diffusers", "transformers", "torch", "peft")


def read_generation(folder: Path) -> dict[str, Any] | None:
    """Return a folder's manifest, None where it has none.

    Raises:
        RealBenchError: the file cannot be read or is of another kind.
    """
    path = folder / MANIFEST_FILE
    manifest = read_json(path)
    if manifest is not None and manifest.get("generation_format") != MANIFEST_FORMAT:
        raise UsageError(
            f"{printable(path)} is not of this version of RealBench: give another --out"
        )
    return manifest


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


def versions() -> dict[str, str]:
    """Return the versions of what makes the images; nothing of it is imported."""
    return installed_versions(_PACKAGES)


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"
