"""Prompts and suites as records, and how a suite's file says them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from realbench.errors import UsageError
from realbench.text import cell


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a suite.

    Attributes:
        id: What images of the prompt are called (a file's stem), in Unicode's composed form (NFC).
        prompt: The text given to the models; of two forms the short one.
        category: The group that the suite puts it in, or None.
        prompt_long: The same picture in more words, or None.
        tags: What the picture has in it, such as ``"hands"`` or ``"low-light"``.
    """

    id: str
    prompt: str
    category: str | None = None
    prompt_long: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """Prompts under a name.

    Attributes:
        name: What the suite is called: a bundled suite's name, else the file's stem.
        prompts: By id, in the suite's order.
        version: Of a bundled suite, None of a file.
        description: One line for people, empty where there is none.
    """

    name: str
    prompts: Mapping[str, Prompt]
    version: str | None = None
    description: str = ""

    @cached_property
    def sha256(self) -> str:
        """Hex digest (64 characters) of what results depend on, whatever file it came from.

        That is each prompt's id, both its forms and its category; not the order, not the tags.
        """
        decisive = [
            [one.id, one.prompt, one.prompt_long, one.category]
            for one in sorted(self.prompts.values(), key=lambda one: one.id)
        ]
        text = json.dumps(decisive, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def categories(self) -> dict[str, int]:
        """How many prompts each category has, in the suite's order; those without are left out."""
        return dict(Counter(one.category for one in self.prompts.values() if one.category))

    def describe(self) -> dict[str, Any]:
        """Return what a result says of its suite, as JSON values."""
        return {
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "n_prompts": len(self.prompts),
        }


def can_be_a_stem(identifier: str) -> bool:
    """Whether a prompt's id can be the name of its image's file."""
    return not set(identifier) & set("/\\\0\n\r") and not identifier.startswith(".")


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number (from 1) and the object of every line of a file that is not blank.

    Raises:
        UsageError: the file cannot be read, or a line is not a JSON object in UTF-8.
    """
    # Bytes are split, not text: str.splitlines would also cut at U+2028 within a prompt.
    for number, line in enumerate(read_file(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = _parse(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
        yield number, record


def read_file(path: Path) -> bytes:
    """Read a file of prompts, without a byte order mark.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"cannot read the prompts file {path}: {reason}; give a file or a suite's name "
            "(realbench prompts list)"
        ) from error


def collect_prompts(
    records: Iterable[tuple[int, Mapping[str, Any]]], source: str | Path, unit: str
) -> dict[str, Prompt]:
    """Turn numbered records with a suite file's keys into prompts by id.

    Args:
        records: each with its number, from 1.
        source: where they came from, for messages.
        unit: what the numbers count, such as ``"line"``.

    Raises:
        UsageError: a record is no prompt, or an id comes twice.
    """
    prompts: dict[str, Prompt] = {}
    first_seen: dict[str, int] = {}
    for number, record in records:
        try:
            prompt = _prompt(record)
        except ValueError as error:
            raise UsageError(f"{source}, {unit} {number}: {error}") from error
        if prompt.id in prompts:
            raise UsageError(
                f"{source}, {unit} {number}: the id {prompt.id!r} was already given on {unit} "
                f"{first_seen[prompt.id]}; every prompt needs an id of its own"
            )
        prompts[prompt.id] = prompt
        first_seen[prompt.id] = number
    return prompts


def _parse(line: bytes) -> dict[str, Any]:
    """Turn one line into an object; ValueError says in a few words what is wrong with it."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not UTF-8 text (byte {error.start + 1}); save the file as UTF-8"
        ) from error
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply for a prompt") from error
    if not isinstance(record, dict):
        raise ValueError('expected a JSON object such as {"id": "0001", "prompt": "a red fox"}')
    return record


def _prompt(record: Mapping[str, Any]) -> Prompt:
    """Turn a record into a prompt; ValueError says in a few words what is wrong with it."""
    identifier = record.get("id")
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    tags = record.get("tags") or []
    if not isinstance(tags, list):
        raise ValueError('"tags" must be a list of texts')
    return Prompt(
        id=unicodedata.normalize("NFC", _text(identifier, "id")),
        prompt=_text(record.get("prompt"), "prompt"),
        category=_optional(record, "category"),
        prompt_long=_optional(record, "prompt_long"),
        tags=tuple(_text(tag, "tags") for tag in tags),
    )


def _optional(record: Mapping[str, Any], key: str) -> str | None:
    return None if record.get(key) is None else _text(record[key], key)


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'"{key}" must be a text that is not empty')
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f'"{key}" has an escape that is half a character (\\ud800 to \\udfff)')
    return value


ExportFormat = Literal["jsonl", "csv", "txt"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)


def export_prompts(suite: Suite, format: ExportFormat = "jsonl", *, long: bool = False) -> str:
    """Return a suite as the text of a file.

    Args:
        suite: the suite, whose order is kept.
        format: ``"jsonl"`` is what ``--prompts`` takes; ``"csv"`` has a header and tags with
            blanks between; ``"txt"`` has a prompt a line and no ids.
        long: give each prompt in its long form, in place of the short one.

    Raises:
        UsageError: a prompt has no long form, or the format is unknown.
    """
    if format not in EXPORT_FORMATS:
        raise UsageError(f"no format {format!r}: choose among {', '.join(EXPORT_FORMATS)}")
    prompts = list(suite.prompts.values())
    if long:
        without = [one.id for one in prompts if one.prompt_long is None]
        if without:
            raise UsageError(
                f"{suite.name} has no long form of {without[0]!r} ({len(without)} of "
                f"{len(prompts)} prompts): export it without --long"
            )
    if format == "txt":
        texts = [one.prompt_long if long else one.prompt for one in prompts]
        return "".join(" ".join(str(text).split()) + "\n" for text in texts)
    records = [_record(one, long=long) for one in prompts]
    if format == "jsonl":
        return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
    return _csv(records)


def _record(prompt: Prompt, *, long: bool) -> dict[str, Any]:
    """Return what a line of a suite's file holds; what a prompt does not have is left out."""
    record: dict[str, Any] = {"id": prompt.id}
    if prompt.category is not None:
        record["category"] = prompt.category
    if prompt.tags:
        record["tags"] = list(prompt.tags)
    record["prompt"] = prompt.prompt_long if long else prompt.prompt
    if prompt.prompt_long is not None and not long:
        record["prompt_long"] = prompt.prompt_long
    return record


def _csv(records: list[dict[str, Any]]) -> str:
    keys = [
        key
        for key in ("id", "category", "tags", "prompt", "prompt_long")
        if any(key in record for record in records)
    ]
    text = io.StringIO()
    # All is quoted: else a lone carriage return in a prompt would end its row.
    writer = csv.DictWriter(text, keys, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for record in records:
        tags = {"tags": " ".join(record.get("tags", []))} if "tags" in keys else {}
        writer.writerow({key: cell(text) for key, text in (record | tags).items()})
    return text.getvalue()
