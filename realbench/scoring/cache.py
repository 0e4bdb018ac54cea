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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

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
_COMMIT_SECONDS = 1.0
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


class ScoreCache:
    """Looks scores up and keeps new ones; with ``path`` None it remembers nothing.

    Safe to use from several threads. What is put is committed about once a second, and by
    :meth:`close`.
    """

    def __init__(self, path: Path | None) -> None:
        self._database = None if path is None else _open(path)
        self._committed = time.monotonic()
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
        """Remember a file's hash; ``stat`` is from before it was read."""
        if stat is not None and time.time_ns() - max(stat[1], stat[2]) > _SETTLED_NS:
            self._write(
                "INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?)", [(_key(path), *stat, sha256)]
            )

    def put_logits(self, fingerprint: str, logits: Mapping[str, float]) -> None:
        """Remember a detector's logits, by the images' hashes."""
        rows = [(sha256, fingerprint, logit) for sha256, logit in logits.items()]
        self._write("INSERT OR REPLACE INTO scores VALUES (?,?,?)", rows)

    def close(self) -> None:
        """Commit and close; harmless when it happens twice."""
        with self._lock:
            database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.commit()
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

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self._lock:
            if self._database is None:
                return
            try:
                self._database.executemany(statement, rows)
                if time.monotonic() - self._committed > _COMMIT_SECONDS:
                    self._database.commit()
                    self._committed = time.monotonic()
            except sqlite3.Error as error:
                self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        """Go on without the cache: a full disk or a lock must not cost the run its results."""
        warnings.warn(f"score cache: {error}; going on without it", stacklevel=4)
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))


def _open(path: Path) -> sqlite3.Connection | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            _unavailable(path, error)
            return None
        # Not a database, or a damaged one: keep it for whoever wants to look, and start anew.
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        try:
            path.rename(aside)
            warnings.warn(f"score cache {path} was damaged; it is now {aside.name}", stacklevel=4)
            return _connect(path)
        except (OSError, sqlite3.Error) as second:
            _unavailable(path, second)
    except OSError as error:
        _unavailable(path, error)
    return None


def _unavailable(path: Path, error: Exception) -> None:
    warnings.warn(f"score cache {path} cannot be used ({error}); going on without", stacklevel=5)


def _connect(path: Path) -> sqlite3.Connection:
    # Another run may hold the lock for a moment; its commits are short.
    database = sqlite3.connect(path, timeout=30, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.executescript(_SCHEMA)
    database.execute("SELECT count(*) FROM scores WHERE sha256 = ''")
    return database
