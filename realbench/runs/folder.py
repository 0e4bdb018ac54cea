"""A run's folder: made, locked, and its files read back; :mod:`.files` writes them whole."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import ConfigDict, TypeAdapter, ValidationError

from realbench.errors import RealBenchError, UsageError
from realbench.files import unique_keys
from realbench.runs.files import make_folder
from realbench.text import printable
from realbench.version import __version__

MANIFEST_FILE = "run.json"
SUMMARY_FILE = "summary.json"
LOG_FILE = "log.jsonl"

Record = TypeVar("Record")

Open = ConfigDict(extra="allow")
"""Of a record: what a later version adds to it is kept."""


def make_run_folder(folder: Path, command: str, inputs: Iterable[str | Path] = ()) -> None:
    """Make the folder of a run, or find it there from an earlier one of the same command.

    Args:
        command: ``"realbench score"``, ``"realbench arena"`` or ``"realbench detectors bench"``.
        inputs: the folders of images that the run reads.

    Raises:
        UsageError: it is one of ``inputs``; it holds another command's run, whose files have the
            same names; or as :func:`make_folder`.
        RealBenchError: as :func:`make_folder`.
    """
    if any(Path(one).resolve() == folder.resolve() for one in inputs):
        raise UsageError(
            f"{printable(folder)} is a folder of images of this run: give another --out"
        )
    make_folder(folder)
    holder = _command_of(folder)
    if holder not in (None, command):
        raise UsageError(
            f"{printable(folder)} holds a run of {holder}, and {command} would replace its report: "
            "give another --out"
        )


def _command_of(folder: Path) -> str | None:
    """Return the command whose run a folder holds, None where it holds none that is known."""
    votes = folder / "votes.jsonl"
    if votes.exists() and votes.stat().st_size:  # a run that failed at once leaves an empty one
        return "realbench arena"
    if (folder / "bench.json").exists():
        return "realbench detectors bench"
    try:
        manifest = read_json(folder / MANIFEST_FILE) or {}
    except RealBenchError:  # a damaged one may be replaced
        return None
    marks = {
        "arena_format": "realbench arena",
        "train_format": "realgen-train",
        "schema_version": "realbench score",
    }
    return next((command for mark, command in marks.items() if mark in manifest), None)


@contextmanager
def locked(folder: Path, file: str = ".lock", *, holder: str) -> Iterator[None]:
    """Make a folder, keep other processes out, and remove what a killed one left half written.

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
            f"another {holder} is writing to {printable(folder)}: wait until it has ended, stop "
            "it, or give another --out"
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot use the folder {printable(folder)}: {error.strerror or error}; give another "
            "--out"
        ) from error
    try:
        for partial in folder.rglob(".*.part"):
            if partial.is_file():
                partial.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def read_json(path: Path, mend: str = "give another --out") -> dict[str, Any] | None:
    """Return the JSON object in a file of a run, None where the file is not there.

    Args:
        mend: what to do about a damaged file, for the message.

    Raises:
        RealBenchError: it cannot be read or is damaged.
    """
    try:
        found = json.loads(path.read_bytes(), object_pairs_hook=unique_keys)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RealBenchError(f"cannot read {printable(path)}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RealBenchError(f"{printable(path)} is damaged ({error}): {mend}") from error
    if not isinstance(found, dict):
        raise RealBenchError(f"{printable(path)} is damaged (no JSON object): {mend}")
    return found


def read_record(path: Path, kind: type[Record], *, missing: str, mend: str) -> Record:
    """Return what a file of a run holds, checked.

    Args:
        kind: a typed dictionary.
        missing: what to say where the file is not there, after its folder's and its own name.
        mend: what to do about a damaged file, for the message.

    Raises:
        UsageError: it is not there.
        RealBenchError: it is damaged; the message says what is missing or not what it should be.
    """
    values = read_json(path, mend)
    if values is None:
        raise UsageError(f"{printable(path.parent)} has no {path.name}: {missing}")
    return validated(kind, values, printable(path), mend)


def validated(kind: type[Record], values: object, place: str, mend: str) -> Record:
    """Return JSON values as a record.

    Args:
        place: where they stand, for the message.
        mend: as for :func:`read_record`.

    Raises:
        RealBenchError: one is missing, or not what it should be.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = printable(".".join(map(str, first["loc"])) or "it")
        raise RealBenchError(f"{place} is damaged ({key}: {first['msg']}): {mend}") from error


def json_schema(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a record."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return schema | TypeAdapter(kind).json_schema()


def now() -> str:
    """Return the time, in UTC to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "pandas", "scipy", "scikit-learn")


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return each package's version, or ``"not installed"``; nothing of it is imported."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def package_versions() -> dict[str, str]:
    """Return the versions of what decides scores; nothing of it is imported."""
    own = {"realgen": __version__, "python": platform.python_version()}
    return own | installed_versions(_PACKAGES)


def install_command(extra: str) -> str:
    """Return how an extra's packages are installed: from the source, for no index has realgen."""
    return f"python -m pip install '.[{extra}]' in a checkout of RealBench"
