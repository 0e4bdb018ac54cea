"""The votes of a run on disk: appended and synced one by one, never lost, doubled or altered.

Each line ends with ``chain``, the SHA-256 of the chain of the line before and of the line without
it, so that a line that was changed, removed, doubled or moved does not fit. What a chain cannot
tell, an end that was cut off, the manifest does: its :class:`Seal` has the count of lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from realbench.arena.votes import Retraction, Vote
from realbench.config.config_files import first_problem
from realbench.errors import RealBenchError
from realbench.files import unique_keys
from realbench.runs.files import checked, write_atomically
from realbench.runs.folder import MANIFEST_FILE, locked, make_run_folder, read_json
from realbench.text import printable

VOTES_FILE = "votes.jsonl"
_LOCK_FILE = ".votes.lock"
_ACCEPTED = "accepted with --accept-edits"
# How long a vote that costs nothing to repeat may wait to be synced.
_SYNC_SECONDS = 0.1
_CHAINED = re.compile(rb'(\{.*),"chain":"([0-9a-f]{64})"\}')

Entry = Vote | Retraction
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


class Seal(BaseModel):
    """What the manifest says of ``votes.jsonl``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lines: int = Field(default=0, ge=0, description="In the file, at least where not whole.")
    unchained: int = Field(default=0, ge=0, description="The first ones, of version 0.1.0.")
    chain: str = Field(default="", description="Of the last of these lines.")
    whole: bool = Field(default=False, description="Whether no more were written.")


OF_0_1_0 = Seal(unchained=2**53)
"""What the manifest of version 0.1.0 comes to: all lines are without digests."""


class EditedLogError(RealBenchError):
    """A log is not as it was written."""


@dataclass(frozen=True, slots=True)
class LogContents:
    """What a log holds.

    Attributes:
        entries: Every vote and retraction in the order of the file, exact duplicates once.
        whole_bytes: Length of what is whole: up to where the file was torn, or all of it.
        torn_bytes: Length of what follows, half a line that a killed run left; or 0.
        ends_open: Whether the last line is whole but for its line feed.
        seal: What the manifest says of such a log once it is whole.
        edit: How it is not as it was written, where that was accepted; else empty.
        cut: How its end is missing, where that was accepted; else empty.
    """

    entries: list[Entry]
    whole_bytes: int
    torn_bytes: int
    ends_open: bool
    seal: Seal
    edit: str = ""
    cut: str = ""

    @property
    def votes(self) -> list[Vote]:
        """The votes that were not taken back."""
        return standing(self.entries)

    @property
    def notes(self) -> list[str]:
        """What the readers of ratings should know of the log, a line each."""
        unchained, edit = self.seal.unchained, self.edit
        old = (
            f"{unchained:,} lines of {VOTES_FILE} are of version 0.1.0 and have no digests: "
            "whether they were changed cannot be told"
        )
        return [
            *([f"{_ACCEPTED}: {edit}"] if edit else []),
            *([f"{self.cut}: what is missing was asked again"] if self.cut else []),
            *([old] if unchained else []),
        ]


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


def read_log(
    path: Path, seal: Seal | None = None, *, accept_edits: bool = False, accept_cut: bool = False
) -> LogContents:
    """Read ``votes.jsonl`` and leave it as it is; a file that is missing holds nothing.

    Half a line at the end, which a killed run leaves, is not counted. Anything else that is no
    vote, or does not follow from the line before, is an error: votes are evidence, and a log that
    was tampered with is none. The lines of version 0.1.0, which have no digests, may stand first.

    Args:
        path: The log.
        seal: What the run's manifest says of it, where it does.
        accept_edits: Whether a log of votes that is not as it was written is read all the same.
        accept_cut: Whether its end may be missing, as where it is gone on with.

    Raises:
        EditedLogError: it is not as it was written.
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
    with suppress(ValueError, RecursionError):  # half a line
        _entry(last)
        lines.append(last)
    ends_open = bool(last) and len(lines) > data.count(b"\n")
    torn = 0 if ends_open else len(last)
    seen: dict[str, tuple[int, Entry]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            entry = _entry(line)
        except (ValueError, RecursionError) as error:
            raise RealBenchError(
                f"{printable(path)}, line {number} is no vote ({_reason(error)}): bring back the "
                "file as it was, or mend the line and give --accept-edits"
            ) from error
        before, other = seen.setdefault(entry.key, (number, entry))
        if isinstance(entry, Vote) and entry != other:
            raise RealBenchError(
                f"{printable(path)}, line {number}: the vote id {entry.id!r} is already that of "
                f"another vote on line {before}: delete the one that is wrong"
            )
    entries = [entry for _, entry in seen.values()]
    edit, own = _verify(lines, seal)
    cut = ""
    if not edit and seal and (len(lines) < seal.lines or (seal.whole and last)):
        cut = f" ends before the end of its line {seal.lines:,}, which the run had written"
    if cut and not accept_cut:
        edit, cut = cut, ""
    if edit and not accept_edits:
        raise EditedLogError(
            f"{printable(path)}{edit}: bring back the file as it was, or take it as it is with "
            "--accept-edits"
        )
    edit, cut = (f"{path.name}{one}" if one else "" for one in (edit, cut))
    return LogContents(entries, len(data) - torn, torn, ends_open, own, edit, cut)


def _verify(lines: Sequence[bytes], seal: Seal | None) -> tuple[str, Seal]:
    """Return how lines are not as they were written (empty if they are), and their own seal."""
    unchained = 0
    while unchained < len(lines) and _CHAINED.fullmatch(lines[unchained]) is None:
        unchained += 1
    # What stands before the first line that has a chain is held by it, too.
    chain = hashlib.sha256(b"".join(line + b"\n" for line in lines[:unchained])).hexdigest()
    chains = [chain] * unchained
    edit = ""
    for number, line in enumerate(lines[unchained:], start=unchained + 1):
        found = _CHAINED.fullmatch(line)
        chain = _next(chain, found[1] + b"}") if found else ""
        if not found or chain.encode() != found[2]:
            edit = f", line {number} does not follow from the line before as it was written"
            break
        chains.append(chain)
    own = Seal(lines=len(lines), unchained=unchained, chain=chain, whole=True)
    if seal is None or edit:
        return edit, own
    if seal == OF_0_1_0 and unchained < len(lines):
        edit = " has digests, of which the manifest no longer tells how many there are"
    elif seal.whole and len(lines) > seal.lines:
        edit = f" has {len(lines):,} lines, and the run wrote {seal.lines:,}"
    elif unchained > seal.unchained or (
        0 < seal.lines <= len(lines) and chains[seal.lines - 1] != seal.chain
    ):
        edit = f", line {max(seal.lines, 1):,} is not the one that the run wrote"
    return edit, own


def _next(chain: str, line: bytes) -> str:
    return hashlib.sha256(chain.encode() + line).hexdigest()


def _entry(line: bytes) -> Entry:
    """Read a line; ValueError or RecursionError where it is no entry."""
    record = json.loads(line, object_pairs_hook=unique_keys)
    if isinstance(record, dict):
        record.pop("chain", None)
    return _ENTRY.validate_json(json.dumps(record))


def _reason(error: Exception) -> str:
    """Say in a few words what is wrong, of the kind of entry that the line resembles most."""
    if not isinstance(error, ValidationError):
        return printable(f"invalid JSON: {error}")
    found = first_problem(error, "")
    return found.removeprefix("Vote.").removeprefix("Retraction.")


class VoteLog:
    """The log of a run, open for appending, by one process at a time.

    Use it in a ``with`` statement. Half a line that a killed run left is cut off on opening.

    Args:
        out: The run's folder, made where it is missing.
        inputs: The folders of images that the run reads, none of which it may be.
        seal: What the manifest of the run so far says of the log.
        accept_edits: Whether a log that is not as it was written is taken as it is; it is then
            written anew, each line once.

    Attributes:
        torn_bytes: What was cut off on opening.
        notes: Of what was read on opening.

    Raises:
        UsageError: the folder cannot be this run's (:func:`make_run_folder`), or another run holds
            the log.
        RealBenchError: it cannot be read or written.
    """

    def __init__(
        self,
        out: Path,
        inputs: Iterable[str | Path] = (),
        *,
        seal: Seal | None = None,
        accept_edits: bool = False,
    ) -> None:
        make_run_folder(out, "realbench arena", inputs)
        self.path = out / VOTES_FILE
        self._lock = ExitStack()
        self._lock.enter_context(locked(out, _LOCK_FILE, holder="run"))
        self._file: BinaryIO | None = None
        self._synced = 0.0
        try:
            contents = read_log(self.path, seal, accept_edits=accept_edits, accept_cut=True)
            self.torn_bytes = torn = contents.torn_bytes
            half = f"{VOTES_FILE} ended in half a line ({torn} bytes), which was cut off"
            self.notes = [*([half] if torn else []), *contents.notes]
            if contents.edit:
                contents = _written_anew(self.path, contents)
            self._seal = contents.seal
            self._entries = contents.entries
            self._votes = {vote.id: vote for vote in contents.votes}
            checked(self.path, lambda: self._open(contents))
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def votes(self) -> list[Vote]:
        """The votes that were not taken back, in their order."""
        return list(self._votes.values())

    @property
    def seal(self) -> Seal:
        """What the manifest is to say of the log while it grows."""
        return self._seal.model_copy(update={"whole": False})

    def whole(self) -> Seal:
        """Have all lines on the disk, and return what the manifest is to say of them.

        Raises:
            RealBenchError: it cannot be written.
        """
        file = self._file
        if file is not None:
            checked(self.path, lambda: os.fsync(file.fileno()))
        return self._seal

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
                self._lock.close()

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
        line, chain = line_of(entry, self._seal.chain)
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
        self._seal = self._seal.model_copy(update={"lines": self._seal.lines + 1, "chain": chain})


def line_of(entry: Entry, chain: str) -> tuple[bytes, str]:
    """Return an entry as its line, with the line feed, and its chain; what is unset is left out.

    Args:
        entry: A vote or a retraction.
        chain: Of the line before.
    """
    body = entry.model_dump_json(exclude_none=True).encode()
    chain = _next(chain, body)
    return body[:-1] + f',"chain":"{chain}"}}\n'.encode(), chain


def _lines_of(entries: Iterable[Entry]) -> tuple[bytes, Seal]:
    lines, chain = [], hashlib.sha256().hexdigest()
    for entry in entries:
        line, chain = line_of(entry, chain)
        lines.append(line)
    return b"".join(lines), Seal(lines=len(lines), chain=chain, whole=True)


def _written_anew(path: Path, contents: LogContents) -> LogContents:
    data, seal = _lines_of(contents.entries)
    write_atomically(path, data)
    return LogContents(contents.entries, len(data), 0, False, seal, contents.edit)


def accepted_edits(out: Path) -> list[str]:
    """Return what the manifest of a run says of edits of its votes that were accepted."""
    notes = (read_json(out / MANIFEST_FILE) or {}).get("notes") or []
    return [note for note in notes if str(note).startswith(_ACCEPTED)]


def accept_edits(out: Path, seal: Seal | None) -> LogContents:
    """Read a log that was edited on purpose, and write it anew, with its own digests.

    Raises:
        RealBenchError: as :func:`read_log`; or another run holds it, or it cannot be written.
    """
    with locked(out, _LOCK_FILE, holder="run"):
        contents = read_log(out / VOTES_FILE, seal, accept_edits=True)
        return _written_anew(out / VOTES_FILE, contents) if contents.edit else contents


def write_log(out: Path, entries: Sequence[Entry]) -> Seal:
    """Write a whole log at once to a folder that has none; return what its manifest says of it.

    Raises:
        RealBenchError: there is one already, or it cannot be written.
    """
    make_run_folder(out, "realbench arena")
    path = out / VOTES_FILE
    with locked(out, _LOCK_FILE, holder="run"):
        if path.exists() and path.stat().st_size:
            raise RealBenchError(f"{printable(path)} exists already: give another --out")
        data, seal = _lines_of(entries)
        write_atomically(path, data)
    return seal
