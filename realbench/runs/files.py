"""Writes the files of a run: each whole or not at all, errors in one line."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from realbench.errors import RealBenchError, UsageError
from realbench.files import write_whole
from realbench.text import cell, cell_text, printable

if TYPE_CHECKING:
    import pandas as pd


def table_csv(table: pd.DataFrame) -> bytes:
    """Return the table as the bytes of ``scores.csv``: UTF-8, six decimals, empty for missing.

    Texts that a spreadsheet would take for formulas have an apostrophe (:func:`text.cell`).
    """
    text = io.StringIO()
    table = table.map(lambda value: cell(value) if isinstance(value, str) else value)
    table.to_csv(text, index=False, float_format="%.6f", quoting=csv.QUOTE_MINIMAL)
    return text.getvalue().encode()


def read_table(data: bytes, texts: Collection[str]) -> pd.DataFrame:
    """Read what :func:`table_csv` wrote, texts as they were.

    Args:
        data: the file.
        texts: columns of texts, which stay texts (``"001"``, ``"NA"``); those that the file lacks
            are passed over.

    Raises:
        ValueError: it is no such file.
    """
    import pandas as pd

    table = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    for name in table:
        if name in texts:
            table[name] = table[name].map(cell_text)
        else:
            table[name] = pd.to_numeric(table[name].mask(table[name] == ""))
    return table


def json_bytes(value: object) -> bytes:
    """Return ``value`` as indented JSON in UTF-8; it must hold no NaN or infinity."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def output_folder(out: str | Path) -> Path:
    """Return the path of a folder for results, as a program names it.

    Raises:
        UsageError: the name is empty, which would be the working folder.
    """
    if not str(out).strip():
        raise UsageError("out is empty: name a folder ('.' is the working folder)")
    return Path(out)


def make_folder(folder: Path) -> None:
    """Make a folder for results where it is missing.

    Raises:
        UsageError: its path is taken by a file, or leads through one.
        RealBenchError: it cannot be made.
    """
    checked(folder, lambda: folder.mkdir(parents=True, exist_ok=True))


def check_folder(folder: Path) -> None:
    """Refuse a folder for results that could not be made, before any work; nothing is made.

    Raises:
        UsageError: its path is taken by a file, leads through one, or may not be written.
    """
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise _is_file(folder) if place == folder else _is_below_file(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{printable(place)} may not be written: give another --out")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent, whatever happens.

    Raises:
        RealBenchError: it cannot be written (a full disk, say); an older version is untouched.
    """

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    checked(path, lambda: write_whole(path, write))


def write_folder(target: Path, fill: Callable[[Path], object]) -> None:
    """Have ``fill`` fill a folder beside ``target``, then put it in the place of an older one.

    Raises:
        RealBenchError: it cannot be written.
    """
    partial = target.with_name(f".{target.name}.part")

    def write() -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        fill(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)

    checked(target, write)


def checked(path: Path, action: Callable[[], object]) -> None:
    """Run ``action``, which writes ``path``; its OSError becomes a message that names the file.

    Raises:
        UsageError: a file is where a folder should be.
        RealBenchError: any other OSError.
    """
    try:
        action()
    except FileExistsError as error:
        raise _is_file(path) from error
    except NotADirectoryError as error:
        raise _is_below_file(path) from error
    except OSError as error:
        advice = {
            errno.ENOSPC: "free some space and run the same command again",
            errno.EDQUOT: "free some of your quota and run the same command again",
            errno.EFBIG: "raise the limit on file sizes and run the same command again",
        }.get(error.errno or 0, "choose a place that can be written and run it again")
        raise RealBenchError(
            f"cannot write {printable(path)} ({error.strerror or error}): {advice}; "
            "what was finished is kept"
        ) from error


def _is_file(path: Path) -> UsageError:
    return UsageError(f"{printable(path)} is a file: give a folder for --out")


def _is_below_file(path: Path) -> UsageError:
    return UsageError(f"{printable(path)} lies below a file: give another --out")
