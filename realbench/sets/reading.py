"""Reads pictures out of what sets come as: zips, tars, WebDatasets, Parquet files and the hub's.

What is read is a stranger's: nothing is unpacked by the names that it has, sizes are bounded, and
what is no picture is a row with a reason.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO

from realbench.errors import RealBenchError, UsageError
from realbench.hub_errors import hub_is_reached, hub_reason, quiet_hub
from realbench.runs.folder import install_command
from realbench.sets.cards import Columns, Folders, Hub, SetCard, path_pattern
from realbench.text import byte_count, first_line, printable

PHOTOGRAPHS, GENERATED = "photographs", "generated"
_LARGEST = 1 << 29  # bytes of a picture
_RATIO, _ALWAYS = 20, 1 << 30  # pictures are compressed already: more than this is a bomb
_PARTS = 16  # files of the hub's that are read in turn where few pictures of many are wanted
_ALL_ONCE: Any = "all_exhausted_without_replacement"
_TABLES = (".parquet", ".tar")
# ValueError is what a member of an archive raises that is needed, not a picture.
_DAMAGES = (zipfile.BadZipFile, tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, ValueError)


class DamagedError(RealBenchError):
    """What came is not what it should be, and is no use."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a set, or why it is none.

    Attributes:
        folder: ``photographs``, or ``generated/`` and the generator.
        path: where in it, as the source has it; without an ending where ``named`` is false.
        data: the file's bytes.
        caption: what it shows, where the source says so.
        reason: why there is no picture; else empty.
        named: whether ``path`` is a file's, and not a prompt's id.
    """

    folder: str
    path: str
    data: bytes = b""
    caption: str | None = None
    reason: str = ""
    named: bool = True


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    read: Callable[[], bytes]
    reason: str = ""


def generator_folder(name: object) -> str:
    """Return the folder of a generator's pictures."""
    text = re.sub(r"[^\w.+-]+", "-", str(name)).strip("-.")[:100]
    return f"{GENERATED}/{text or 'unnamed'}"


# --- Archives ----------------------------------------------------------------------------------


def read_file(
    card: SetCard, file: Path, generator: str, work: Path, numbers: Iterator[int], n: int | None
) -> Iterator[Picture]:
    """Yield the pictures of a fetched file.

    Args:
        numbers: of rows, on from those of the files before.
        generator: of generated pictures, where nothing else tells.
        work: a folder for what has to be put down in between; captions stay there.
        n: how many to take: of an archive's by the hash of their names, of rows the first; None:
            all.

    Raises:
        DamagedError: it is no such file, is damaged, or unpacks to far more than pictures do.
    """
    try:
        if card.columns is not None:
            for row in islice(_table(file, work), n):
                yield _of_row(row, next(numbers), card.columns, generator)
        elif card.folders is not None:
            yield from _of_folders(card, card.folders, file, generator, work, n)
    except (*_DAMAGES, OSError) as error:
        if getattr(error, "filename", None):  # of writing
            raise
        raise DamagedError(
            f"{card.name}: {printable(file)} is no zip, tar or Parquet file, or damaged "
            f"({first_line(error)}): get it again"
        ) from error


def _of_folders(
    card: SetCard, folders: Folders, file: Path, generator: str, work: Path, n: int | None
) -> Iterator[Picture]:
    patterns = [(path_pattern(one), True) for one in folders.photographs]
    patterns += [(path_pattern(one), False) for one in folders.generated]

    def place(name: str) -> tuple[str, str] | None:
        """Return a picture's folder and its path in it."""
        for pattern, real in patterns:
            if found := pattern.fullmatch(name):
                named = found.groupdict().get("generator", generator)
                return (PHOTOGRAPHS if real else generator_folder(named)), found["rest"]
        return None

    def inside(name: str) -> str:
        return name.partition("/")[2] if card.source.kind == "git" else name

    chosen: set[str] | None = None
    if n is not None:
        names = [one.name for one in _members(file) if place(inside(one.name))]
        chosen = set(sorted(names, key=lambda one: hashlib.sha256(one.encode()).digest())[:n])
    for member in _members(file):
        name = inside(member.name)
        if folders.captions and name == folders.captions and not member.reason:
            (work / f"captions{Path(name).suffix}").write_bytes(member.read())
        found = place(name)
        hidden = any(part.startswith(".") and part != ".." for part in name.split("/"))
        if found is None or hidden or (chosen is not None and member.name not in chosen):
            continue
        reason = member.reason or _unsafe(found[1])
        data = b""
        if not reason:
            try:
                data = member.read()
            except ValueError as error:
                reason = str(error)
        yield Picture(*found, data, reason=reason)


def _unsafe(path: str) -> str:
    """Return why a path in an archive is not used as one here, or an empty text."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > 200 for part in parts):
        return "its path leads elsewhere, or is too long"
    if re.search(r"[\x00-\x1f\x7f\\:\ud800-\udfff]", path) or len(parts) > 20:
        return "its path has characters that no file's name should have"
    return ""


def _members(file: Path) -> Iterator[_Member]:
    """Yield an archive's files; links and devices have a reason, folders are passed over."""
    most = _RATIO * file.stat().st_size + _ALWAYS
    too_much = DamagedError(
        f"{printable(file)} unpacks to more than {byte_count(most)}, which pictures do not: it is "
        "not unpacked"
    )
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if sum(one.file_size for one in archive.infolist()) > most:
                raise too_much
            for info in archive.infolist():
                mode = info.external_attr >> 16
                odd = stat.S_IFMT(mode) not in (0, stat.S_IFREG)
                if not info.is_dir():
                    reason = "a link or a device, not a file" if odd else _too_large(info.file_size)
                    yield _Member(info.filename, partial(_from_zip, archive, info), reason)
        return
    with file.open("rb") as raw, _unpacked(raw) as stream:
        bounded: Any = _Bounded(stream, most, too_much)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            for one in archive:
                archive.members = []  # type: ignore[attr-defined]  # else all of them are kept
                if not one.isdir():
                    reason = _too_large(one.size) if one.isreg() else "a link or a device"
                    yield _Member(one.name, partial(_from_tar, archive, one), reason)
            bounded.seek(archive.offset)  # tarfile takes a damaged header for the end
            if bounded.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a header in it is damaged")


def _too_large(size: int) -> str:
    return f"it has {byte_count(size)}, too much for a picture" if size > _LARGEST else ""


def _from_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise ValueError(f"it cannot be unpacked ({first_line(error, 80)})") from error
    except Exception as error:  # zlib's and lzma's own
        raise ValueError(f"it is damaged ({first_line(error, 80)})") from error


def _from_tar(archive: tarfile.TarFile, one: tarfile.TarInfo) -> bytes:
    found = archive.extractfile(one)
    return b"" if found is None else found.read()


def _unpacked(raw: BinaryIO) -> Any:
    start = raw.read(6)
    raw.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(raw)
    if start.startswith(b"BZh"):
        return bz2.open(raw)
    return lzma.open(raw) if start.startswith(b"\xfd7zXZ\x00") else raw


class _Bounded:
    """A stream that ends with an error past ``most`` bytes, or where one read asks for too many.

    A tar's headers may ask for gigabytes, and what is passed over is unpacked as well.
    """

    def __init__(self, stream: BinaryIO, most: int, too_much: RealBenchError) -> None:
        self._stream, self._most, self._too_much = stream, most, too_much

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST or self._stream.tell() > self._most:
            raise self._too_much
        return self._stream.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        if place > self._most:
            raise self._too_much
        return self._stream.seek(place, whence)

    def tell(self) -> int:
        return self._stream.tell()


# --- Tables ------------------------------------------------------------------------------------

Row = Mapping[str, Any]


def _table(file: Path, work: Path, *, inside: bool = False) -> Iterator[Row]:
    """Yield the rows of a Parquet file, or of those and of the WebDatasets in an archive."""
    with file.open("rb") as start:
        if start.read(4) == b"PAR1":
            yield from _parquet(file)
            return

    def key(member: _Member) -> str:
        folder, slash, name = member.name.rpartition("/")
        return f"{folder}{slash}{name.partition('.')[0]}"

    for _, members in groupby(_members(file), key):
        sample: dict[str, Any] = {}
        for member in members:
            if not inside and member.name.lower().endswith(_TABLES):
                table = work / f"table{Path(member.name).suffix}"
                table.write_bytes(b"" if member.reason else member.read())
                yield from _table(table, work, inside=True)
                table.unlink()
                continue
            sample |= _fields(member)
        if sample:
            yield sample


def _fields(member: _Member) -> dict[str, Any]:
    """Return what a file of a WebDataset's sample says, by its ending."""
    ending = member.name.rpartition("/")[2].partition(".")[2].lower()
    if member.reason:
        return {ending: None}
    try:
        data = member.read()
        if ending in ("txt", "text", "cls"):
            return {ending: data.decode().strip()}
        if ending == "json":
            found = json.loads(data)
            return {f"json.{key}": value for key, value in found.items()}
    except (ValueError, AttributeError, RecursionError):
        return {ending: None}
    return {ending: data}


def _parquet(file: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise RealBenchError(f"Parquet files need pyarrow: {install_command('sets')}") from error
    try:
        with parquet.ParquetFile(file) as table:
            groups = [table.metadata.row_group(n) for n in range(table.metadata.num_row_groups)]
            most = _RATIO * file.stat().st_size + _ALWAYS
            if sum(one.total_byte_size for one in groups) > most:
                raise DamagedError(f"{printable(file)} unpacks to more than {byte_count(most)}")
            for batch in table.iter_batches(batch_size=8):
                yield from batch.to_pylist()
    except (ArrowException, ValueError) as error:
        raise DamagedError(f"{printable(file)} is damaged ({first_line(error)})") from error


def _of_row(row: Row, number: int, columns: Columns, generator: str) -> Picture:
    """Return the picture of a row; ``number`` is its name where it has no other."""
    image = next((row[one] for one in columns.image.split(";") if row.get(one) is not None), None)
    data = image.get("bytes") if isinstance(image, Mapping) else image
    label, caption = row.get(columns.label), row.get(columns.caption)
    real = str(label) in map(str, columns.real) if columns.label else columns.all == PHOTOGRAPHS
    given = row.get(columns.id)
    identifier = re.sub(r"[^\w.+-]+", "-", "" if given is None else str(given)).strip("-.")[:100]
    reason = ""
    if columns.label and label is None:
        reason = f"it has no {columns.label}"
    elif not isinstance(data, bytes) or len(data) > _LARGEST:
        reason = f"there is no picture in its {columns.image}"
    return Picture(
        PHOTOGRAPHS if real else generator_folder(row.get(columns.generator) or generator),
        identifier or f"{number:06}",
        data if isinstance(data, bytes) and not reason else b"",
        # A JSON text may hold half a character.
        (caption.strip().encode(errors="replace").decode() or None)
        if isinstance(caption, str)
        else None,
        reason,
        named=False,
    )


class HubRows:
    """The pictures of a dataset of the hub, as they come over the network; none is unpacked whole.

    Args:
        card: of the set.
        n: how many are wanted; few of many are taken from several of its files in turn.
        done: how many were taken before, and the state that :meth:`state` returned then.

    Attributes:
        commit: of the dataset; a branch that moves between two processes changes nothing.

    Raises:
        RealBenchError: the hub is not reached, ``datasets`` is missing, or it has no such set.
    """

    def __init__(self, card: SetCard, n: int | None, done: tuple[int, Any]) -> None:
        source, columns = card.source, card.columns
        assert isinstance(source, Hub)
        assert columns is not None
        try:
            import datasets
            from huggingface_hub import HfApi
        except ImportError as error:
            raise RealBenchError(
                f"{card.address} needs the package datasets: {install_command('sets')}"
            ) from error
        quiet_hub()
        datasets.config.STREAMING_READ_MAX_RETRIES = 3
        if not hub_is_reached():
            raise RealBenchError(
                f"{card.address} is not here and the hub is not reached: where there is a network, "
                f"run: realbench sets get {card.name}"
            )
        self._card, self._number, self._columns = card, done[0], columns
        wanted = source.revision or None
        with self._told():
            told = done[1] or {"commit": HfApi().dataset_info(source.repo, revision=wanted).sha}
            self.commit = str(told["commit"])
            rows = datasets.load_dataset(
                source.repo,
                source.config or None,
                split=source.split,
                revision=self.commit,
                data_files=source.data_files or None,
                streaming=True,
            )
            features = rows.features or rows._resolve_features().features
            kept = {*columns.image.split(";"), columns.label, columns.generator}
            kept |= {columns.caption, columns.id}
            missing = kept - {""} - set(features)
            if missing:
                raise UsageError(
                    f"{card.address} has no column {sorted(missing)[0]!r} but "
                    f"{', '.join(features)}: correct {printable(card.path)}"
                )
            rows = rows.select_columns([one for one in features if one in kept])
            for name in columns.image.split(";"):
                if isinstance(features[name], datasets.Image):  # the files' own bytes
                    rows = rows.cast_column(name, datasets.Image(decode=False))
            parts = min(rows.num_shards, _PARTS, n or 1)
            if parts > 1:
                shards = [rows.shard(parts, index) for index in range(parts)]
                rows = datasets.interleave_datasets(shards, stopping_strategy=_ALL_ONCE)
            self._names = {
                name: feature.int2str
                for name, feature in features.items()
                if isinstance(feature, datasets.ClassLabel)
            }
            if done[1] is not None:
                rows.load_state_dict(done[1]["rows"])
        self._rows = rows

    def state(self) -> Any:
        """Return JSON values from which another process goes on after the last picture."""
        return {"commit": self.commit, "rows": self._rows.state_dict()}

    def __iter__(self) -> Iterator[Picture]:
        with self._told():
            for row in self._rows:
                named = {k: f(row[k]) for k, f in self._names.items() if row.get(k) is not None}
                yield _of_row({**row, **named}, self._number, self._columns, self._card.name)
                self._number += 1

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (RealBenchError, GeneratorExit, KeyboardInterrupt):
            raise
        except Exception as error:  # the package documents no set of errors: network, names, data
            raise RealBenchError(
                f"cannot read {self._card.address}: {hub_reason(error)}; run it again to go on"
            ) from error
