"""The folder of a training run: its manifest, its log and who may write to it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realbench.errors import RealBenchError, UsageError
from realbench.files import write_whole
from realbench.runs.files import json_bytes, write_atomically
from realbench.runs.folder import LOG_FILE, MANIFEST_FILE, installed_versions, read_json
from realbench.text import printable

CHECKPOINTS = "checkpoints"
FORMAT = 1
_PACKAGES = (
    "realgen",
    "torch",
    "diffusers",
    "peft",
    "accelerate",
    "deepspeed",
    "transformers",
    "trl",
)
# What may differ when a run goes on: none of it changes what was computed so far.
_MAY_CHANGE = (
    ("description",),
    ("training", "iterations"),
    ("checkpoints",),
    ("tracking",),
    ("memory",),
    ("evaluation", "stop_on_hacking"),
    ("evaluation", "columns"),
    ("model", "device"),
)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a file of the run, whole or not at all.

    Raises:
        RealBenchError: it cannot be written.
    """
    write_atomically(path, json_bytes(values))


def check_continues(
    folder: Path, config: Mapping[str, Any], prompts: str, *, kind: str = "diffusion"
) -> dict[str, Any] | None:
    """Return the manifest of a run that goes on, None where there is none.

    One that ended before its first iteration, as a mistake in its config makes it end, is none:
    there is nothing in it to go on from, and the mistake may be mended.

    Args:
        config: of now, as JSON values.
        prompts: a digest of the prompts of now.
        kind: of run, as its manifest says.

    Raises:
        UsageError: something that decides the result is not as it was; the message says what.
    """
    earlier = read_json(folder / MANIFEST_FILE)
    if earlier is None:
        return None
    if earlier.get("train_format") != FORMAT or earlier.get("kind") != kind:
        raise UsageError(f"{printable(folder)} holds a run of another kind: give another --out")
    if _has_done_nothing(folder):
        return None
    before, after = _flat(earlier["config"]), _flat(config)
    changed = [
        key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)
    ]
    if changed:
        key = changed[0]
        raise UsageError(
            f"{printable(folder)} holds a run with another {key} ({_short(before.get(key))}, now "
            f"{_short(after.get(key))}): give another --out"
        )
    if earlier.get("prompts_sha256") != prompts:
        raise UsageError(f"{printable(folder)} holds a run on other prompts: give another --out")
    return earlier


def _has_done_nothing(folder: Path) -> bool:
    """Return whether a run has neither finished an iteration nor saved anything of one."""
    saved = any((folder / CHECKPOINTS).glob("[!.]*"))
    return not saved and not any(one["iteration"] > 0 for one in read_log(folder))


def check_reward(folder: Path, before: object, now_: object) -> None:
    """Refuse to go on with other detectors than those that the run began with.

    Args:
        before, now_: what the rewards say of themselves, as JSON values.

    Raises:
        UsageError: they differ in more than the device.
    """
    ours, theirs = (_without_device(json.loads(json.dumps(one))) for one in (now_, before))
    if ours != theirs:
        raise UsageError(
            f"{printable(folder)} holds a run with another reward (other weights of a detector, "
            "perhaps): give another --out"
        )


def _without_device(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_device(one) for key, one in value.items() if key != "device"}
    return [_without_device(one) for one in value] if isinstance(value, list) else value


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log; a torn last line is left out.

    Raises:
        RealBenchError: it cannot be read.
    """
    path = folder / LOG_FILE
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RealBenchError(f"cannot read {printable(path)}: {error.strerror}") from error
    found = []
    for line in lines:
        if not line.endswith(b"\n"):
            break
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise RealBenchError(
                f"line {len(found) + 1} of {printable(path)} is damaged: give another --out"
            ) from error
    return found


def rewind_log(folder: Path, iteration: int) -> list[dict[str, Any]]:
    """Drop the lines after an iteration, which will be made again, and return the others."""
    kept = [one for one in read_log(folder) if one["iteration"] <= iteration]
    data = "".join(json.dumps(one) + "\n" for one in kept).encode()
    try:
        write_whole(folder / LOG_FILE, lambda partial: partial.write_bytes(data))
    except OSError as error:
        raise RealBenchError(
            f"cannot write {printable(folder / LOG_FILE)}: {error.strerror}"
        ) from error
    return kept


def append_log(folder: Path, record: Mapping[str, Any]) -> None:
    """Add a line to the log, on the disk when this returns.

    Raises:
        RealBenchError: it cannot be written.
    """
    path = folder / LOG_FILE
    try:
        with path.open("ab") as file:
            file.write((json.dumps(record) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RealBenchError(f"cannot write {printable(path)}: {error.strerror}") from error


def versions() -> dict[str, str]:
    """Return the versions of what trains; nothing of it is imported."""
    return installed_versions(_PACKAGES)


def _flat(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what decides the result, by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        place = (*path, key)
        if any(place[: len(one)] == one for one in _MAY_CHANGE):
            continue
        if isinstance(value, dict):
            found |= _flat(value, place)
        else:
            found[".".join(place)] = value
    return found


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"
