"""The votes of a run on disk: appended and synced one by one, never lost, never doubled."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from pydantic import TypeAdapter, ValidationError

from realbench.arena.votes import Retraction, Vote
from realbench.errors import RealBenchError
from realbench.runs.files import checked, make_run_folder, write_atomically
from realbench.text import printable

if TYPE_CHECKING:
    from filelock import BaseFileLock

VOTES_FILE = "votes.jsonl"
_LOCK_FILE = ".votes.lock"
# How long a vote that costs nothing to repeat may wait to be synced.
_SYNC_SECONDS = 0.1

Entry = Vote | Retraction
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


@dataclass(frozen=True, slots=True)
class LogContents:
    """What a log holds.

    Attributes:
        entries: Every vote and retraction in the order of the file, exact duplicates once.
        whole_bytes: Length of what is whole: up to where the file was torn, or all of it.
        torn_bytes: Length of what follows, half a line that a killed run left; or 0.
        ends_open: Whether the last line is whole but for its line feed.
    """

    entries: list[Entry]
    whole_bytes: int
    torn_bytes: int
    ends_open: bool

    @property
    def votes(self) -> list[Vote]:
        """The votes that were not taken back."""
        return standing(self.entries)


def standing(entries: Iterable[Entry]) -> list[Vote]:
    """Return the votes that no retraction takes back, in their order."""
    votes: dict[str, Vote] = {}
    gone: set[str] = set()
    for entry in entries:
        if isinstance(entry, Retraction):
            gone.add(entry.retracts)
        else:
            votes[entry.id] = entry
    return [vote for vote in votes.values() if vote.id not in gone]


def read_log(path: Path) -> LogContents:
    """Read ``votes.jsonl`` and leave it as it is; a file that is missing holds nothing.

    Half a line at the end, which a killed run leaves, is not counted. Anything else that is no
    vote is an error: votes are evidence, and a log that was tampered with is none.

    Raises:
        RealBenchError: the file cannot be read, a line is damaged, or two different lines have
            one id; the message names the line.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise RealBenchError(f"cannot read {printable(path)}: {error.strerror}") from error
    *lines, last = data.split(b"\n")
    seen: dict[str, tuple[int, Entry]] = {}
    entries: list[Entry] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = _ENTRY.validate_json(line)
        except ValidationError as error:
            raise RealBenchError(
                f"{printable(path)}, line {number} is no vote ({_reason(error)}): mend the line "
                "or delete it, and run the same command again"
            ) from error
        _take(entry, number, path, seen, entries)
    ends_open = False
    if last:
        try:
            _take(_ENTRY.validate_json(last), len(lines) + 1, path, seen, entries)
            ends_open = True
        except ValidationError:
            pass
    torn = 0 if ends_open else len(last)
    return LogContents(entries, len(data) - torn, torn, ends_open)


def _take(
    entry: Entry,
    number: int,
    path: Path,
    seen: dict[str, tuple[int, Entry]],
    entries: list[Entry],
) -> None:
    """Add an entry unless it is an exact duplicate."""
    key = f"retracts {entry.retracts}" if isinstance(entry, Retraction) else entry.id
    if key not in seen:
        seen[key] = number, entry
        entries.append(entry)
        return
    before, other = seen[key]
    if isinstance(entry, Vote) and entry != other:
        raise RealBenchError(
            f"{printable(path)}, line {number}: the vote id {entry.id!r} is already that of "
            f"another vote on line {before}: delete the one that is wrong"
        )


def _reason(error: ValidationError) -> str:
    """Say in a few words what is wrong, of the kind of entry that the line resembles most."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("Vote", "Retraction"))
    return printable(f"{where}: {first['msg']}" if where else first["msg"])


class VoteLog:
    """The log of a run, open for appending, by one process at a time.

    Use it in a ``with`` statement. Half a line that a killed run left is cut off on opening.

    Args:
        out: The run's folder, made where it is missing.
        inputs: The folders of images that the run reads, none of which it may be.

    Attributes:
        torn_bytes: What was cut off on opening.

    Raises:
        UsageError: the folder cannot be this run's (:func:`make_run_folder`).
        RealBenchError: another run holds the log, or it cannot be read or written.
    """

    def __init__(self, out: Path, inputs: Iterable[str | Path] = ()) -> None:
        make_run_folder(out, "realbench arena", inputs)
        self.path = out / VOTES_FILE
        self._lock = _lock(out)
        self._file: BinaryIO | None = None
        self._synced = 0.0
        try:
            contents = read_log(self.path)
            self.torn_bytes = contents.torn_bytes
            self._entries = contents.entries
            self._votes = {vote.id: vote for vote in contents.votes}
            checked(self.path, lambda: self._open(contents))
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def votes(self) -> list[Vote]:
        """The votes that were not taken back, in their order."""
        return list(self._votes.values())

    def append(self, vote: Vote, *, sync: bool = True) -> None:
        """Write a vote; when this returns, it survives the end of the process.

        Args:
            vote: Has an id of its own.
            sync: Whether it must survive the end of the machine, too. Votes that can be repeated
                at no cost are synced ten times a second.

        Raises:
            RealBenchError: it cannot be written; the log is as it was before.
        """
        self._write(vote, sync=sync)
        self._votes[vote.id] = vote

    def retract(self, vote: Vote) -> None:
        """Take a vote back; the vote stays in the file, and a line says that it does not count.

        Raises:
            RealBenchError: it cannot be written.
        """
        self._write(Retraction(retracts=vote.id, time=datetime.now(UTC)), sync=True)
        self._votes.pop(vote.id, None)

    def close(self) -> None:
        """Sync and close the file and let others have it; harmless when it happens twice."""
        file, self._file = self._file, None
        if file is not None:
            try:
                os.fsync(file.fileno())
            finally:
                file.close()
                self._lock.release()

    def _open(self, contents: LogContents) -> None:
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed in close()
        if contents.torn_bytes:
            self._file.truncate(contents.whole_bytes)
        if contents.ends_open:
            self._file.write(b"\n")
        os.fsync(self._file.fileno())
        if os.name == "posix":  # so that a new file's name is on the disk as well
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _write(self, entry: Entry, *, sync: bool) -> None:
        file = self._file
        if file is None:
            raise ValueError("the log is closed")
        line = line_of(entry)
        end = os.fstat(file.fileno()).st_size

        def write() -> None:
            try:
                left = memoryview(line)
                while left:  # a disk that fills up takes a part
                    left = left[file.write(left) or 0 :]
                now = time.monotonic()
                if sync or now - self._synced >= _SYNC_SECONDS:
                    os.fsync(file.fileno())
                    self._synced = now
            except BaseException:
                file.truncate(end)
                raise

        checked(self.path, write)


def line_of(entry: Entry) -> bytes:
    """Return an entry as its line, with the line feed; what is unset is left out."""
    return entry.model_dump_json(exclude_none=True).encode() + b"\n"


def _lock(out: Path) -> BaseFileLock:
    """Take the run's lock, which the system lets go when the process ends, however it ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(out / _LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:  # an OSError, too
        raise RealBenchError(
            f"another run is writing to {printable(out)}: wait until it has ended, stop it, or "
            "give another --out"
        ) from error
    except OSError as error:
        raise RealBenchError(
            f"cannot write to {printable(out)} ({error.strerror or error}): give another --out"
        ) from error
    return lock


def write_log(out: Path, entries: Sequence[Entry]) -> None:
    """Write a whole log at once to a folder that has none.

    Raises:
        RealBenchError: there is one already, or it cannot be written.
    """
    make_run_folder(out, "realbench arena")
    lock = _lock(out)
    try:
        path = out / VOTES_FILE
        if path.exists() and path.stat().st_size:
            raise RealBenchError(f"{printable(path)} exists already: give another --out")
        write_atomically(path, b"".join(map(line_of, entries)))
    finally:
        lock.release()
