"""Makes a set's folders: ``photographs``, ``generated/GENERATOR`` and captions, in the cache.

A folder is whole or absent: what is made lies beside it until then, and is taken up again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout
from typing_extensions import TypedDict

from realbench.demo import make_demo_folders
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.files import file_sha256
from realbench.images import EXTENSIONS, UnreadableImage, image_format
from realbench.prompt_import import import_prompts
from realbench.prompt_records import Prompt, Suite, can_be_a_stem, export_prompts
from realbench.runs.files import checked, json_bytes, write_atomically
from realbench.runs.folder import now, read_record
from realbench.sets.cards import Archive, Embedded, File, Git, Hub, Manual, SetCard
from realbench.sets.downloads import bar, download
from realbench.sets.reading import (
    GENERATED,
    PHOTOGRAPHS,
    DamagedError,
    HubRows,
    Picture,
    read_file,
)
from realbench.text import byte_count, cell, printable

RECORD_FILE, PICTURES_FILE, PROMPTS_FILE = "set.json", "pictures.csv", "prompts.jsonl"
_SAVED = 32  # pictures of the hub's between two states from which one can go on
_LEAST_FREE = 1 << 28  # bytes of the disk that are left alone
_ENDINGS = {"JPEG": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif", "MPO": ".jpg"}


class Record(TypedDict):
    """``set.json``: what a set's folder holds.

    Attributes:
        n: pictures, in all and by folder.
        n_failed: rows that are no pictures; ``pictures.csv`` says why.
        commit: of a dataset of the hub or of a repository, else empty.
        asked: how many pictures were asked for; None: all.
        content: SHA-256 of all pictures' paths and bytes.
    """

    name: str
    fingerprint: str
    address: str
    commit: str
    licence: str
    fetched: str
    n: int
    n_failed: int
    asked: int | None
    folders: dict[str, int]
    content: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """A set that is here.

    Attributes:
        folder: with its folders of pictures, captions and records.
        record: what it holds.
    """

    folder: Path
    record: Record


def sets_folder() -> Path:
    """Return where sets are put: in ``$REALBENCH_CACHE``, or in the user's cache folder."""
    chosen = os.environ.get("REALBENCH_CACHE")
    return (Path(chosen) if chosen else platformdirs.user_cache_path("realbench")) / "sets"


def find_fetched(card: SetCard) -> Fetched | None:
    """Return a set that is here: the whole, or else the largest part of it.

    Raises:
        RealBenchError: its record is damaged.
    """
    whole = _place(card, None)
    found = map(_read, [whole, *whole.parent.glob(f"{whole.name}-first-*")])
    return max(filter(None, found), key=lambda one: one.record["asked"] or 1 << 60, default=None)


def _read(folder: Path) -> Fetched | None:
    file = folder / RECORD_FILE
    if not file.is_file():
        return None
    mend = f"delete {printable(folder)} and fetch the set again"
    return Fetched(folder, read_record(file, Record, missing=mend, mend=mend))


def _place(card: SetCard, n: int | None) -> Path:
    part = "" if n is None else f"-first-{n}"
    return sets_folder() / f"{card.name}-{card.fingerprint[:8]}{part}"


def get(card: SetCard, *, n: int | None = None, given: Sequence[Path] = ()) -> Fetched:
    """Return a set, fetched where it is not here; what was broken off is taken up again.

    A :class:`RealBenchWarning` says before what is fetched, its size and its licence.

    Args:
        n: how many pictures to take of a large one; None: all.
        given: its files, where the user has them.

    Raises:
        UsageError: the card does not fit what came, or one of ``given`` is no file.
        RealBenchError: it cannot be fetched or written, or is not what its card says.
    """
    if not given and (here := _read(_place(card, None)) or _read(_place(card, n))):
        return here
    for file in given:
        if not file.is_file():
            raise UsageError(f"--from {printable(file)}: there is no such file")
    if isinstance(card.source, Manual) and not given:
        raise RealBenchError(
            f"{card.name} is given by hand alone: {card.source.how}, then run: realbench sets get "
            f"{card.name} --from FILE ({card.homepage})"
        )
    target = _place(card, n)
    work = target.with_name(f".{target.name}")
    found: list[Fetched] = []
    with _alone(work, card):
        if not given and (here := _read(target)):
            return here  # another process has just fetched it
        checked(target, lambda: found.append(_fetch(card, n, given, target, work)))
        shutil.rmtree(work, ignore_errors=True)
    return found[0]


@contextmanager
def _alone(work: Path, card: SetCard) -> Iterator[None]:
    """Keep other processes from fetching the same set; wait for one that does."""
    checked(work, lambda: work.mkdir(parents=True, exist_ok=True))
    lock = FileLock(work.with_name(f"{work.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        message = f"another process is fetching {card.name}: waiting for it"
        warnings.warn(message, RealBenchWarning, stacklevel=4)
        lock.acquire()
    try:
        work.mkdir(exist_ok=True)
        yield
    finally:
        lock.release()


def _fetch(
    card: SetCard, n: int | None, given: Sequence[Path], target: Path, work: Path
) -> Fetched:
    if not isinstance(card.source, Embedded):
        size = "size not stated" if card.size is None else byte_count(card.size)
        part = "" if n is None else f"{n:,} pictures of "
        warnings.warn(
            f"fetching {part}{card.name} ({size}{' in all' if part else ''}) from "
            f"{printable(given[0]) if given else card.address}, licence: {card.licence}",
            RealBenchWarning,
            stacklevel=6,
        )
    try:
        if isinstance(card.source, Hub) and not given:
            writer = _from_hub(card, n, work)
        else:
            writer = _from_files(card, n, given, work)
        record = writer.finish(card, n, work)
    except DamagedError:
        shutil.rmtree(work)  # else it would be read again
        raise
    shutil.rmtree(target, ignore_errors=True)
    (work / "set").rename(target)
    return Fetched(target, record)


def _embedded(work: Path) -> Iterator[Picture]:
    photographs, renders = make_demo_folders(work / "demo")
    for folder, of in ((photographs, PHOTOGRAPHS), (renders, f"{GENERATED}/renders")):
        for file in sorted(folder.iterdir()):
            yield Picture(of, file.name, file.read_bytes())


def _from_files(card: SetCard, n: int | None, given: Sequence[Path], work: Path) -> _Writer:
    shutil.rmtree(work / "set", ignore_errors=True)  # unpacked again from what was fetched
    writer, numbers = _Writer(work / "set", []), count()
    pictures = _embedded(work)
    if not isinstance(card.source, Embedded):
        pairs = _downloaded(card, given, work)
        share = None if n is None else -(-n // len(pairs))  # of each file
        pictures = (
            picture
            for path, generator in pairs
            for picture in read_file(card, path, generator, work, numbers, share)
        )
    with bar(card.name, unit=" pictures", total=n or card.n) as shown:
        for picture in islice(pictures, n):
            writer.add(picture)
            shown.update()
    return writer


def _downloaded(card: SetCard, given: Sequence[Path], work: Path) -> list[tuple[Path, str]]:
    """Return the files of a set that lie here, each with the generator that it is of."""
    files, found = _files(card.source), list[tuple[Path, str]]()
    if not given:
        for number, file in enumerate(files):
            other = f"where there is a network, fetch {file.url} and run: realbench sets get "
            download(file, work / f"{number:03}", f"{other}{card.name} --from FILE")
            found.append((work / f"{number:03}", file.generator or card.name))
        return found
    for path in given:
        name = path.name if len(files) > 1 else ""
        known = next((one for one in files if one.url.endswith(name)), None)
        if known and known.sha256 and (digest := file_sha256(path)) != known.sha256:
            raise RealBenchError(
                f"{printable(path)} has sha256 {digest}, but the card of {card.name} says "
                f"{known.sha256}"
            )
        found.append((path, (known and known.generator) or card.name))
    return found


def _files(source: Any) -> Sequence[File]:
    if isinstance(source, Git):
        return [File(url=f"{source.repo.removesuffix('.git')}/archive/{source.revision}.tar.gz")]
    return source.files if isinstance(source, Archive) else ()


def _from_hub(card: SetCard, n: int | None, work: Path) -> _Writer:
    log, mark = work / "rows.jsonl", work / "state.json"
    state = json.loads(mark.read_bytes()) if mark.exists() else {"bytes": 0, "state": None}
    with log.open("ab+") as file:
        file.truncate(state["bytes"])  # what came after the state comes again
        file.seek(0)
        writer = _Writer(work / "set", [json.loads(line) for line in file])
        rows = HubRows(card, n, (len(writer.rows), state["state"]))
        writer.commit = rows.commit
        left = None if n is None else n - len(writer.rows)
        with bar(card.name, unit=" pictures", total=n or card.n, done=len(writer.rows)) as shown:
            for number, picture in enumerate(islice(rows, left), start=1):
                row = writer.add(picture)
                file.write(f"{json.dumps(row)}\n".encode())
                shown.update()
                if number % _SAVED == 0:
                    file.flush()
                    os.fsync(file.fileno())
                    state = {"bytes": file.tell(), "state": rows.state()}
                    write_atomically(mark, json_bytes(state))
    return writer


class _Writer:
    """Writes pictures into their folders, and remembers what became of each row.

    Args:
        folder: receives the folders.
        rows: those of an earlier process.
    """

    def __init__(self, folder: Path, rows: list[dict[str, str]]) -> None:
        self.folder, self.rows, self.commit = folder, rows, ""
        self._taken = {f"{row['folder']}/{row['image']}".casefold() for row in rows}
        self._captions: dict[str, str] = {}
        for row in rows:
            if row["caption"]:
                self._captions.setdefault(_stem(row["image"]), row["caption"])
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, picture: Picture) -> dict[str, str]:
        """Write a picture; return its row, with a reason where there is none."""
        reason, name, digest = picture.reason, picture.path, ""
        try:
            kind = "" if reason else image_format(picture.data)
        except UnreadableImage as error:
            reason, kind = error.reason, ""
        if not reason:
            name = self._name(picture, kind)
            if f"{picture.folder}/{name}".casefold() in self._taken:
                reason = "it comes twice"
        if not reason:
            if len(self.rows) % 64 == 0 and shutil.disk_usage(self.folder).free < _LEAST_FREE:
                raise OSError(28, "no space left on the disk")
            target = self.folder / picture.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture.data)
            digest = hashlib.sha256(picture.data).hexdigest()
            self._taken.add(f"{picture.folder}/{name}".casefold())
        row = {
            "folder": picture.folder,
            "image": printable(name),
            "sha256": digest,
            "status": "unreadable" if reason else "ok",
            "reason": reason,
            "caption": "" if reason else picture.caption or "",
        }
        self.rows.append(row)
        return row

    def _name(self, picture: Picture, kind: str) -> str:
        """Return a picture's path; a row is called by its id, with its number if that is taken."""
        if picture.named:
            ending = Path(picture.path).suffix.lower()
            return picture.path if ending in EXTENSIONS else f"{picture.path}{_ending(kind)}"
        stem, caption = picture.path, picture.caption or ""
        known = self._captions.get(stem)
        taken = any(f"{picture.folder}/{stem}{one}".casefold() in self._taken for one in EXTENSIONS)
        if taken or (known is not None and known != caption):
            stem = f"{stem}-row{len(self.rows):06}"
        if caption:
            self._captions.setdefault(stem, caption)
        return f"{stem}{_ending(kind)}"

    def finish(self, card: SetCard, n: int | None, work: Path) -> Record:
        """Write the records, and refuse a set that is not what its card says."""
        good = [row for row in self.rows if not row["reason"]]
        if not good:
            why = f": {self.rows[0]['reason']}" if self.rows else ""
            raise UsageError(
                f"{card.address} has no picture that the card {printable(card.path)} names{why}"
            )
        content = hashlib.sha256()
        for row in sorted(good, key=lambda row: (row["folder"], row["image"])):
            content.update(f"{row['folder']}/{row['image']}\0{row['sha256']}\n".encode())
        found = content.hexdigest()
        if card.content and n is None and found != card.content:
            raise DamagedError(
                f"the pictures of {card.name} have together the sha256 {found}, but its card says "
                f"{card.content}: they are other ones, and are not used"
            )
        if card.n is not None and n is None and len(good) != card.n:
            message = f"{card.name} has {len(good):,} pictures, but its card says {card.n:,}"
            warnings.warn(message, RealBenchWarning, stacklevel=7)
        prompts = self._prompts(card, work)
        if prompts:
            text = export_prompts(Suite(card.name, prompts))
            write_atomically(self.folder / PROMPTS_FILE, text.encode())
        write_atomically(self.folder / PICTURES_FILE, self._table())
        record = Record(
            name=card.name,
            fingerprint=card.fingerprint,
            address=card.address,
            commit=self.commit or getattr(card.source, "revision", ""),
            licence=card.licence,
            fetched=now(),
            n=len(good),
            n_failed=len(self.rows) - len(good),
            asked=n,
            folders=dict(Counter(row["folder"] for row in good)),
            content=found,
        )
        write_atomically(self.folder / RECORD_FILE, json_bytes(record))
        return record

    def _prompts(self, card: SetCard, work: Path) -> Mapping[str, Prompt]:
        file = next(work.glob("captions.*"), None)
        if file is not None:
            stems = {_stem(row["image"]) for row in self.rows}
            found = import_prompts(file).prompts
            return {key: one for key, one in found.items() if key in stems}
        if card.folders and card.folders.captions:
            raise UsageError(
                f"{card.address} has no {card.folders.captions}, which its card says the captions "
                "are in"
            )
        texts = {_stem(row["image"]): row["caption"] for row in self.rows if row["caption"]}
        return {key: Prompt(key, text) for key, text in texts.items() if can_be_a_stem(key)}

    def _table(self) -> bytes:
        text = io.StringIO()
        table = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows({key: cell(value) for key, value in row.items()} for row in self.rows)
        return text.getvalue().encode("utf-8", "backslashreplace")


def _ending(kind: str) -> str:
    return _ENDINGS.get(kind, f".{kind.lower()}")


def _stem(image: str) -> str:
    return Path(image).stem
