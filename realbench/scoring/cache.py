"""The score cache: logits by what an image holds and what a detector is, in one SQLite file.

Of each image that was decoded it knows the hash of its pixels, which tells copies. A moved or
renamed image keeps its scores, a changed one or a changed detector does not find them. The size,
time and inode of files are remembered too, so that an unchanged file is not even read again.
SQLite notices little of what a failing disk does to a number, so every row has a checksum; a file
that is damaged in any way is put aside, and its scores are computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from realbench.errors import RealBenchWarning

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS scores (
  sha256 TEXT NOT NULL, fingerprint TEXT NOT NULL, logit REAL NOT NULL, checksum BLOB NOT NULL,
  PRIMARY KEY (sha256, fingerprint)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
  path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER,
  sha256 TEXT NOT NULL, checksum BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pixels (
  sha256 TEXT PRIMARY KEY, pixels TEXT NOT NULL, checksum BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors (
  sha256 TEXT NOT NULL, fingerprint TEXT NOT NULL, vector BLOB NOT NULL, checksum BLOB NOT NULL,
  PRIMARY KEY (sha256, fingerprint)
) WITHOUT ROWID;
PRAGMA user_version = 2;
COMMIT;
"""
_TABLES = 4
_VERSION = 2  # 0.1.0 left it at 0 and had no checksums
# What SQLite reports of a whole file that cannot be used now: locked, on a full disk and so on.
_NO_DAMAGE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
_ROWS_A_COMMIT = 500
# A file changed within this time of being read may change again under the same timestamp.
_SETTLED_NS = 2_000_000_000

Stat = tuple[int, int, int, int]
T = TypeVar("T")


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
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino % 2**63  # as SQLite's


def open_cache(places: Sequence[Path]) -> ScoreCache:
    """Open the first of the cache files that can be used; without any, nothing is remembered.

    A :class:`RealBenchWarning` tells of each that cannot.
    """
    for place, following in zip_longest(places, places[1:]):
        try:
            return ScoreCache(place)
        except (OSError, sqlite3.Error) as error:
            instead = "going on without" if following is None else f"using {following} instead"
            _warn(f"score cache {place} cannot be used ({_short(error)}); {instead}")
    return ScoreCache(None)


class _DamagedError(sqlite3.DatabaseError):
    """The file holds what this module has not written."""


class ScoreCache:
    """Looks scores up and keeps new ones; without a place it remembers nothing.

    Safe to use from several threads. Scores are committed as they are put, so that a run that is
    killed loses none of them. A :class:`RealBenchWarning` tells of a file that is damaged.

    Args:
        place: the cache's file, made where it is missing.

    Raises:
        OSError, sqlite3.Error: it cannot be used.
    """

    def __init__(self, place: Path | None) -> None:
        self._place = place
        self._inode: int | None = None
        self._database = None if place is None else self._open(place)
        # Rows that the next commit will write.
        self._files: list[tuple[object, ...]] = []
        self._pixels: list[tuple[object, ...]] = []
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
        columns = "path, size, mtime_ns, ctime_ns, inode, sha256"
        for _, *known, sha256 in self._rows(columns, "files WHERE path = ?", _key(path)):
            if tuple(known) == stat:
                return str(sha256)
        return None

    def logits(self, sha256: str, fingerprints: Sequence[str]) -> dict[str, float]:
        """Return the logits known of an image, by fingerprint."""
        marks = ",".join("?" * len(fingerprints))
        where = f"scores WHERE sha256 = ? AND fingerprint IN ({marks})"
        rows = self._rows("sha256, fingerprint, logit", where, sha256, *fingerprints)
        return {name: logit for _, name, logit in rows}

    def pixels(self, sha256: str) -> str | None:
        """Return the hash of an image's pixels, where the image was decoded before."""
        for _, pixels in self._rows("sha256, pixels", "pixels WHERE sha256 = ?", sha256):
            return str(pixels)
        return None

    def _rows(self, columns: str, where: str, *values: object) -> list[list[Any]]:
        """Return all columns but the last, the checksum, which each row must fit."""

        def ask(database: sqlite3.Connection) -> list[list[Any]]:
            found, query = [], f"SELECT {columns}, checksum FROM {where}"
            for *row, checksum in database.execute(query, values).fetchall():
                if checksum != _checksum(*row):
                    raise _DamagedError("a row does not fit its checksum")
                found.append(row)
            return found

        return self._use(ask) or []

    def put_pixels(self, sha256: str, pixels: str) -> None:
        """Remember the hash of an image's pixels, with the next logits."""
        with self._lock:
            self._pixels.append((sha256, pixels, _checksum(sha256, pixels)))
        self._write_some()

    def put_file(self, path: Path, stat: Stat | None, sha256: str) -> None:
        """Remember a file's hash, with the next logits; ``stat`` is from before it was read."""
        if stat is not None and time.time_ns() - max(stat[1], stat[2]) > _SETTLED_NS:
            row = (_key(path), *stat, sha256)
            with self._lock:
                self._files.append((*row, _checksum(*row)))
            self._write_some()

    def put_logits(self, fingerprint: str, logits: Mapping[str, float]) -> None:
        """Keep a detector's logits, by the images' hashes."""
        # SQLite keeps -0.0 as 0, which adding 0.0 makes of it.
        rows = [(sha256, fingerprint, logit + 0.0) for sha256, logit in logits.items()]
        self._write([(*row, _checksum(*row)) for row in rows])

    def vector(self, sha256: str, fingerprint: str) -> bytes | None:
        """Return what a network made of an image, where that is known."""

        def ask(database: sqlite3.Connection) -> bytes | None:
            row = database.execute(
                "SELECT vector, checksum FROM vectors WHERE sha256 = ? AND fingerprint = ?",
                (sha256, fingerprint),
            ).fetchone()
            if row is not None and row[1] != _checksum(sha256, fingerprint, row[0]):
                raise _DamagedError("an image's features do not fit their checksum")
            return None if row is None else row[0]

        return self._use(ask)

    def put_vectors(self, fingerprint: str, vectors: Mapping[str, bytes]) -> None:
        """Keep what a network made of images, by their hashes."""
        rows = [(sha256, fingerprint, vector) for sha256, vector in vectors.items()]

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany(
                    "INSERT OR REPLACE INTO vectors VALUES (?,?,?,?)",
                    [(*row, _checksum(*row)) for row in rows],
                )

        self._use(write)

    def close(self) -> None:
        """Write what is left and close; harmless when it happens twice."""
        self._write()
        with self._lock:
            database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):  # every commit was made before
                database.close()

    def _write_some(self) -> None:
        if len(self._files) + len(self._pixels) >= _ROWS_A_COMMIT:
            self._write()

    def _write(self, scores: Sequence[tuple[object, ...]] = ()) -> None:
        """Write scores and the rows that wait, in one short transaction."""
        with self._lock:
            files, self._files = self._files, []
            pixels, self._pixels = self._pixels, []

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?,?)", files)
                database.executemany("INSERT OR REPLACE INTO pixels VALUES (?,?,?)", pixels)
                database.executemany("INSERT OR REPLACE INTO scores VALUES (?,?,?,?)", scores)

        self._use(write)

    def _use(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """Run an action on the database; where that is damaged, on the new one in its place.

        Without a database, or where it cannot be used, nothing is done: a full disk or a lock must
        not cost the run its results.
        """
        with self._lock:
            for attempt in range(2):
                if self._database is None:
                    return None
                try:
                    return action(self._database)
                except (sqlite3.Error, ValueError, OverflowError) as error:
                    self._database = self._replaced(error, again=attempt == 0)
        return None

    def _replaced(self, error: Exception, *, again: bool) -> sqlite3.Connection | None:
        assert self._database is not None
        assert self._place is not None
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        if not (again and _is_damage(error)):
            _warn(f"score cache: {_short(error)}; going on without it")
            return None
        try:
            if _inode(self._place) == self._inode:  # else another process was here before
                _set_aside(self._place, error)
            return self._open(self._place)
        except (OSError, sqlite3.Error) as second:
            _warn(f"score cache: {_short(second)}; going on without it")
            return None

    def _open(self, place: Path) -> sqlite3.Connection:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            database = _connect(place)
        except (sqlite3.Error, ValueError) as error:
            if not _is_damage(error):
                raise
            _set_aside(place, error)
            database = _connect(place)
        self._inode = _inode(place)
        return database


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))


def _short(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _warn(message: str) -> None:
    warnings.warn(message, RealBenchWarning, stacklevel=2)


def _inode(path: Path) -> int | None:
    stat = file_stat(path)
    return None if stat is None else stat[3]


def _checksum(*values: object) -> bytes:
    """Return eight bytes over a row: what is altered, moved or of another type has others."""
    return hashlib.blake2b(repr(values).encode("utf-8", "replace"), digest_size=8).digest()


def _is_damage(error: Exception) -> bool:
    """Whether a file is no cache or a broken one, rather than full, locked or read-only."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF not in _NO_DAMAGE


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in ("", "-wal", "-shm"):  # a log that is left would be played into the next one
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    _warn(
        f"score cache {path} was damaged ({_short(error)}); it is now {aside.name}, a new one is "
        "begun, and scores are computed again"
    )


def _connect(path: Path) -> sqlite3.Connection:
    # Another run may hold the lock for a moment; its commits are short.
    database = sqlite3.connect(path, timeout=30, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if tables and version != _VERSION:
            raise _DamagedError("it has no checksums, as version 0.1.0 wrote it, or another form")
        if tables < _TABLES:
            database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database
