"""Prompt suites: JSONL files that name the prompts by the ids under which images are kept."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realbench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a suite.

    Attributes:
        id: What images of the prompt are called (a file's stem), in Unicode's composed form (NFC).
        prompt: The text given to the models.
        category: The group that the suite puts it in, or None.
    """

    id: str
    prompt: str
    category: str | None = None


def load_prompts(path: str | Path) -> dict[str, Prompt]:
    """Read a suite: one JSON object ``{"id", "prompt", "category"?}`` a line, in UTF-8.

    Blank lines and further keys are ignored; an integer id means its decimal digits. The ids keep
    the file's order.

    Raises:
        UsageError: the file cannot be read or holds no prompts, a line is not such an object, or
            an id comes twice. The message names the file and the line.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"cannot read the prompts file {path}: {reason}; --prompts takes a JSONL file"
        ) from error
    prompts: dict[str, Prompt] = {}
    first_seen: dict[str, int] = {}
    # Bytes are split, not text: str.splitlines would also cut at U+2028 within a prompt.
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            prompt = _parse(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
        if prompt.id in prompts:
            raise UsageError(
                f"{path}, line {number}: the id {prompt.id!r} was already given on line "
                f"{first_seen[prompt.id]}; every prompt needs an id of its own"
            )
        prompts[prompt.id] = prompt
        first_seen[prompt.id] = number
    if not prompts:
        raise UsageError(f'{path} holds no prompts; each line is {{"id": ..., "prompt": ...}}')
    return prompts


def _parse(line: bytes) -> Prompt:
    """Turn one line into a prompt; ValueError says in a few words what is wrong with it."""
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
    identifier = record.get("id")
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    category = record.get("category")
    return Prompt(
        id=unicodedata.normalize("NFC", _text(identifier, "id")),
        prompt=_text(record.get("prompt"), "prompt"),
        category=None if category is None else _text(category, "category"),
    )


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'"{key}" must be a text that is not empty')
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f'"{key}" has an escape that is half a character (\\ud800 to \\udfff)')
    return value
