"""Prompt suites of others: text, JSON, CSV, Parquet and Hugging Face datasets, read as a suite."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from realbench.errors import RealBenchError, UsageError
from realbench.hub_errors import hub_reason, quiet_hub
from realbench.prompt_records import (
    Prompt,
    Suite,
    can_be_a_stem,
    collect_prompts,
    json_lines,
    read_file,
)
from realbench.runs.folder import install_command
from realbench.text import cell_text, printable

DATASET_PREFIX = "hf:"
PROMPT_COLUMNS = ("prompt", "Prompt", "text", "caption")
"""What the column of the prompts may be called where it is not named; the first of these."""

_INSTALL = install_command("datasets")
_FORMATS = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
FORMATS = tuple(dict.fromkeys(_FORMATS.values()))
IMPORTED_ENDINGS = frozenset(end for end, name in _FORMATS.items() if name != "jsonl")
"""Of files that are no suite's, but can be read as one."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what; None looks for a column of the field's own name, in any case.

    Attributes:
        id: without such a column, rows are numbered.
        prompt: by default the first of :data:`PROMPT_COLUMNS`.
        category: the suite's groups.
        prompt_long: the prompt in more words.
        tags: a list, or in a CSV file words with blanks between.
    """

    id: str | None = None
    prompt: str | None = None
    category: str | None = None
    prompt_long: str | None = None
    tags: str | None = None


@dataclass(frozen=True, slots=True)
class Numbering:
    """How rows without an id are called.

    Attributes:
        always: whether rows are numbered although they have an id.
        start: the first row's number.
        digits: to which a number is filled up with zeros.
    """

    always: bool = False
    start: int = 0
    digits: int = 5

    def name(self, index: int) -> str:
        """Return the id of the row at an index, from 0."""
        return str(self.start + index).zfill(self.digits)


@dataclass(frozen=True, slots=True)
class DatasetPart:
    """Which part of a Hugging Face dataset: its configuration, split and revision."""

    config: str | None = None
    split: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """What a source holds: rows with their index (from 0), its columns, what a row is called."""

    rows: Iterable[tuple[int, Row]]
    columns: Sequence[str]
    unit: str = "row"


_Choice = Callable[[Sequence[str]], list[str]]
"""Of a Parquet file's columns, those that are read: others may hold images."""
_Reader = Callable[[Path, _Choice], Rows]


def import_prompts(
    source: str | Path,
    *,
    format: str | None = None,
    columns: Columns = Columns(),
    numbering: Numbering = Numbering(),
    part: DatasetPart = DatasetPart(),
) -> Suite:
    """Read prompts from a file or a Hugging Face dataset.

    A text file has a prompt a line. Line 1 is ``00000``; blank lines hold no prompt but count.

    Args:
        source: a file, or ``hf:`` and a dataset's name (or the folder of one).
        format: of a file, one of :data:`FORMATS`; by default by its ending.
        numbering: how rows without an id are called.

    Raises:
        UsageError: the source cannot be read, or a row is no prompt; the message names it.
        RealBenchError: a package is missing, or the dataset cannot be loaded.
    """
    name = str(source)
    if name.startswith(DATASET_PREFIX):
        found = _read_dataset(name.removeprefix(DATASET_PREFIX), columns, part)
        stem = name.removeprefix(DATASET_PREFIX).rstrip("/").rsplit("/", 1)[-1]
    else:
        path = Path(source)
        found = read_rows(path, partial(_useful, columns=columns), format=format)
        stem = path.stem
    shown = printable(name)
    prompts = {}
    if found.columns:
        records = _records(found, shown, columns, numbering)
        prompts = collect_prompts(records, shown, found.unit)
    if not prompts:
        raise UsageError(f"{shown} holds no prompts")
    return Suite(name=stem, prompts=prompts)


def read_rows(path: Path, choose: _Choice, *, format: str | None = None) -> Rows:
    """Read the rows of a file of any of :data:`FORMATS`.

    Args:
        path: the file.
        choose: which of a Parquet file's columns are read.
        format: by default by the file's ending.

    Raises:
        UsageError: it cannot be read; the message names the line.
        RealBenchError: a package is missing.
    """
    return _READERS[_format_of(path, format)](path, choose)


def _format_of(path: Path, asked: str | None) -> str:
    if asked is None:
        asked = _FORMATS.get(path.suffix.lower())
        if asked is None:
            raise UsageError(
                f"{printable(path)}: its ending tells no format; name one with --format "
                f"({', '.join(FORMATS)})"
            )
    if asked not in FORMATS:
        raise UsageError(f"no format {asked!r}: choose among {', '.join(FORMATS)}")
    return asked


# --- From rows to records ----------------------------------------------------------------------


def _records(
    found: Rows, source: str, columns: Columns, numbering: Numbering
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row's number (from 1) and what it says, under the keys of a suite's file."""
    names = _choose(found.columns, source, columns, numbering)
    for index, row in found.rows:
        record = {key: _plain(row.get(column)) for key, column in names.items()}
        if record.get("category") is not None:
            record["category"] = str(record["category"])
        if isinstance(record.get("tags"), str):
            record["tags"] = record["tags"].split()
        identifier = record.setdefault("id", numbering.name(index))
        if isinstance(identifier, str) and not can_be_a_stem(identifier):
            raise UsageError(
                f"{source}, {found.unit} {index + 1}: the id {identifier!r} cannot be the name of "
                "an image's file; name another column (--id-column) or number the rows (--number)"
            )
        yield index + 1, record


def _choose(
    present: Sequence[str], source: str, columns: Columns, numbering: Numbering
) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for field in Prompt.__dataclass_fields__:
        asked = getattr(columns, field)
        candidates = PROMPT_COLUMNS if field == "prompt" else (field,)
        folded = {str(one).casefold(): one for one in reversed(present)}
        alike = (folded.get(one.casefold()) for one in candidates)
        exact = next((one for one in candidates if one in present), None)
        column = asked or exact or next(filter(None, alike), None)
        missing = asked is not None and asked not in present
        if missing or (field == "prompt" and column is None):
            option = "--" + {"prompt_long": "long"}.get(field, field) + "-column"
            raise UsageError(
                f"{source} has no column {asked or ' or '.join(PROMPT_COLUMNS)!r}; its columns are "
                f"{printable(', '.join(map(str, present))) or 'none'}: name one with {option} of "
                "realbench prompts import"
            )
        if column is not None:
            chosen[field] = column
    if numbering.always:
        chosen.pop("id", None)
    return chosen


def _useful(present: Sequence[str], columns: Columns) -> list[str]:
    """Return the columns that are read; others may hold images."""
    fields = Prompt.__dataclass_fields__
    asked = {getattr(columns, field) for field in fields}
    names = {name.casefold() for name in (*fields, *PROMPT_COLUMNS)}
    return [one for one in present if one in asked or str(one).casefold() in names]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip() or None
    return None if value != value else value  # NaN


# --- Files -------------------------------------------------------------------------------------


def _read_text(path: Path, _: _Choice) -> Rows:
    lines = _decoded(path).split("\n")
    rows = [(n, {"prompt": line.strip()}) for n, line in enumerate(lines) if line.strip()]
    return Rows(rows, ["prompt"], "line")


def _read_json_lines(path: Path, _: _Choice) -> Rows:
    return _of_objects([(n - 1, record) for n, record in json_lines(path)], "line")


def _read_json(path: Path, _: _Choice) -> Rows:
    try:
        rows = json.loads(_decoded(path))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{printable(path)}, line {error.lineno}: not valid JSON ({error.msg}); a file with an "
            "object a line needs --format jsonl"
        ) from error
    except RecursionError as error:
        raise UsageError(f"{printable(path)}: nested too deeply for prompts") from error
    if not isinstance(rows, list):
        raise UsageError(f"{printable(path)}: expected a list of prompts, or of objects")
    rows = [{"prompt": row} if isinstance(row, str) else row for row in rows]
    for n, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UsageError(f"{printable(path)}, row {n}: expected a prompt, or an object")
    return _of_objects(list(enumerate(rows)), "row")


def _of_objects(rows: list[tuple[int, Row]], unit: str) -> Rows:
    """Return objects with all their keys, of which each may have others."""
    return Rows(rows, list(dict.fromkeys(key for _, row in rows for key in row)), unit)


def _csv_reader(delimiter: str) -> _Reader:
    def read(path: Path, _: _Choice) -> Rows:
        text = io.StringIO(_decoded(path), newline="")
        try:
            reader = csv.DictReader(text, delimiter=delimiter, strict=True)
            rows = list(reader)
        except csv.Error as error:
            raise UsageError(f"{printable(path)}: not a CSV file ({error})") from error
        # Our own export marks what a spreadsheet would take for a formula.
        rows = [{k: cell_text(v) if isinstance(v, str) else v for k, v in r.items()} for r in rows]
        return Rows(enumerate(rows), columns=list(reader.fieldnames or []))

    return read


def _read_parquet(path: Path, choose: _Choice) -> Rows:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise RealBenchError(f"Parquet files need pyarrow: {_INSTALL}") from error
    try:
        with path.open("rb") as file, parquet.ParquetFile(file) as table:
            columns = table.schema_arrow.names
            rows = table.read(columns=choose(columns)).to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read the Parquet file {printable(path)}: {reason}") from error
    return Rows(enumerate(rows), columns=columns)


_READERS: dict[str, _Reader] = {
    "txt": _read_text,
    "jsonl": _read_json_lines,
    "json": _read_json,
    "csv": _csv_reader(","),
    "tsv": _csv_reader("\t"),
    "parquet": _read_parquet,
}


def _decoded(path: Path) -> str:
    data = read_file(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{printable(path)}, line {line}: not UTF-8 text; save the file as UTF-8"
        ) from error


# --- Datasets ----------------------------------------------------------------------------------


def _read_dataset(name: str, columns: Columns, part: DatasetPart) -> Rows:
    try:
        import datasets
    except ImportError as error:
        raise RealBenchError(f"hf: needs the package datasets: {_INSTALL}") from error
    if not name:
        raise UsageError("hf: needs a dataset's name, such as hf:owner/dataset")
    quiet_hub()
    datasets.disable_progress_bars()
    try:
        split = part.split
        if split is None:
            splits = datasets.get_dataset_split_names(name, part.config, revision=part.revision)
            if len(splits) != 1:
                raise UsageError(
                    f"hf:{name} has the splits {', '.join(splits)}: choose one with --split"
                )
            split = splits[0]
        table = datasets.load_dataset(name, part.config, split=split, revision=part.revision)
    except RealBenchError:
        raise
    except Exception as error:  # the package documents no set of errors: network, names, data
        raise RealBenchError(f"cannot load hf:{name}: {hub_reason(error)}") from error
    present = list(table.column_names)
    table = table.select_columns(_useful(present, columns))
    return Rows(enumerate(_named(table)), columns=present)


def _named(table: Any) -> Iterator[Row]:
    labels = {
        column: feature.int2str
        for column, feature in table.features.items()
        if hasattr(feature, "int2str")
    }
    for row in table:
        yield row | {
            column: name(row[column])
            for column, name in labels.items()
            if row[column] is not None and row[column] >= 0
        }
