"""The score cache: logits by what an image holds and what a detector is, in one SQLite file.

A moved or renamed image keeps its scores, a changed one or a changed detector does not find
them. The size, time and inode of files are remembered too, so that an unchanged file is not even
read again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import platformdirs

from realbench.errors import RealBenchWarning

_SCHEMA = """
CREATE TABLE IF NOT EXISTS scores (
  sha256 TEXT NOT NULL, fingerprint TEXT NOT NULL, logit REAL NOT NULL,
  PRIMARY KEY (sha256, fingerprint)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
  path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER,
  sha256 TEXT NOT NULL
) WITHOUT ROWID;
"""
_FILES_A_COMMIT = 500
# A file changed within this time of being read may change again under the same timestamp.
_SETTLED_NS = 2_000_000_000

Stat = tuple[int, int, int, int]


def cache_path() -> Path:
    """Return the cache file: in ``$REALBENCH_CACHE``, or in the user's cache folder."""
    chosen = os.environ.get("REALBENCH_CACHE")
    folder = Path(chosen) if chosen else platformdirs.user_cache_path("realbench")
    return folder / "scores.sqlite"


def file_stat(path: Path) -> Stat | None:
    """Return size, times and inode of a file, or None where there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def open_cache(places: Sequence[Path]) -> ScoreCache:
    """Open the first of the cache files that can be used; without any, nothing is remembered.

    A :class:`RealBenchWarning` tells of each that cannot.
    """
    for place, following in zip_longest(places, places[1:]):
        try:
            return ScoreCache(_open(place))
        except (OSError, sqlite3.Error) as error:
            instead = "going on without" if following is None else f"using {following} instead"
            _warn(f"score cache {place} cannot be used ({_short(error)}); {instead}")
    return ScoreCache(None)


class ScoreCache:
    """Looks scores up and keeps new ones; without a database it remembers nothing.

    Safe to use from several threads. Scores are committed as they are put, so that a run that is
    killed loses none of them.
    """

    def __init__(self, database: sqlite3.Connection | None) -> None:
        self._database = database
        self._files: list[tuple[object, ...]] = []  # rows that the next commit will write
        self._lock = threading.Lock()

    def __enter__(self) -> ScoreCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def known_sha256(self, path: Path) -> str | None:
        """Return the hash of a file's contents if it was seen before and has not changed."""
        stat = file_stat(path)
        if stat is None:
            return None
        row = self._ask(
            "SELECT sha256 FROM files"
            " WHERE path = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ? AND inode = ?",
            (_key(path), *stat),
        )
        return row[0][0] if row else None

    def logits(self, sha256: str, fingerprints: Sequence[str]) -> dict[str, float]:
        """Return the logits known of an image, by fingerprint."""
        marks = ",".join("?" * len(fingerprints))
        query = (
            f"SELECT fingerprint, logit FROM scores WHERE sha256 = ? AND fingerprint IN ({marks})"
        )
        return dict(self._ask(query, (sha256, *fingerprints)))

    def put_file(self, path: Path, stat: Stat | None, sha256: str) -> None:
        """Remember a file's hash, with the next logits; ``stat`` is from before it was read."""
        if stat is not None and time.time_ns() - max(stat[1], stat[2]) > _SETTLED_NS:
            with self._lock:
                self._files.append((_key(path), *stat, sha256))
            if len(self._files) >= _FILES_A_COMMIT:
                self._write()

    def put_logits(self, fingerprint: str, logits: Mapping[str, float]) -> None:
        """Keep a detector's logits, by the images' hashes."""
        self._write([(sha256, fingerprint, logit) for sha256, logit in logits.items()])

    def close(self) -> None:
        """Write what is left and close; harmless when it happens twice."""
        if self._files:
            self._write()
        with self._lock:
            database, self._database = self._database, None
        if database is not None:
            database.close()

    def _ask(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._lock:
            if self._database is None:
                return []
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.Error as error:
                self._give_up(error)
                return []

    def _write(self, scores: Sequence[tuple[object, ...]] = ()) -> None:
        """Write scores and the files that wait, in one short transaction."""
        with self._lock:
            files, self._files = self._files, []
            if self._database is None:
                return
            try:
                with self._database:
                    self._database.executemany(
                        "INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?)", files
                    )
                    self._database.executemany(
                        "INSERT OR REPLACE INTO scores VALUES (?,?,?)", scores
                    )
            except sqlite3.Error as error:
                self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        """Go on without the cache: a full disk or a lock must not cost the run its results."""
        assert self._database is not None
        with contextlib.suppress(sqlite3.Error):
            place = Path(self._database.execute("PRAGMA database_list").fetchone()[2])
            self._database.close()
            if _is_damage(error):
                _set_aside(place)
        self._database = None
        _warn(f"score cache: {_short(error)}; going on without it")


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))


def _short(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _warn(message: str) -> None:
    warnings.warn(message, RealBenchWarning, stacklevel=2)


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        aside = _set_aside(path)
        _warn(f"score cache {path} was damaged; it is now {aside.name}, and a new one is begun")
        return _connect(path)


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is no database or a broken one, rather than full, locked or read-only."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.OperationalError | sqlite3.IntegrityError | sqlite3.ProgrammingError
    )


def _set_aside(path: Path) -> Path:
    """Rename a damaged cache, for whoever wants to look, and return its new path."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in ("", "-wal", "-shm"):  # a log that is left would be played into the next one
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _connect(path: Path) -> sqlite3.Connection:
    # Another run may hold the lock for a moment; its commits are short.
    database = sqlite3.connect(path, timeout=30, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database
