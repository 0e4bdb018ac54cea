"""Reads and writes TOML: cards, recipes, templates, boards and configs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realbench.errors import UsageError
from realbench.text import printable

if TYPE_CHECKING:
    from pydantic import ValidationError

# What is read here is a page or two of text; more is a wrong file.
_MOST_BYTES = 1_000_000


def read_toml(path: Path, what: str = "file") -> dict[str, Any]:
    """Read a TOML file, with or without a byte order mark.

    Args:
        what: it is, for messages: ``"judge template"``.

    Raises:
        UsageError: it cannot be read or is no TOML; one line that names it.
    """
    shown = printable(path)
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        return tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        reason = error.strerror or "unknown error"
        raise UsageError(f"cannot read the {what} {shown}: {reason}; give a TOML file") from error
    except (ValueError, RecursionError) as error:
        reason = printable(re.sub(r"\s+", " ", str(error)))
        if isinstance(error, RecursionError):
            reason = "nested too deeply"
        elif isinstance(error, UnicodeDecodeError):
            reason = f"not UTF-8 (byte {error.start + 1}); save it as UTF-8"
        raise UsageError(f"the {what} {shown} is no TOML: {reason}") from error


def first_problem(error: ValidationError, whole: str) -> str:
    """Return the first thing that does not fit a schema, as ``"table.key: reason"``.

    Args:
        whole: what a problem of no single key is a problem of; ``""`` to leave it unsaid.
    """
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or whole
    reason = first["msg"].removeprefix("Value error, ")
    return printable(f"{place}: {reason}" if place else reason)


def as_toml(values: Mapping[str, Any]) -> str:
    """Return JSON values as the text of a TOML file; what is None is left out."""
    return "\n".join(_toml_lines(values, ())) + "\n"


def _toml_lines(values: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines, tables = [], []
    for key, value in values.items():
        place = (*path, key)
        if isinstance(value, Mapping):
            tables += ["", f"[{_toml_key(place)}]", *_toml_lines(value, place)]
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for one in value:
                tables += ["", f"[[{_toml_key(place)}]]", *_toml_lines(one, place)]
        elif value is not None:
            lines.append(f"{_toml_key((key,))} = {_toml_value(value)}")
    return lines + tables


def _toml_key(parts: Sequence[str]) -> str:
    bare = re.compile(r"[A-Za-z0-9_-]+")
    return ".".join(one if bare.fullmatch(one) else _toml_value(one) for one in parts)


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = (f"{_toml_key((k,))} = {_toml_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {', '.join(inner)} }}"
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(one) for one in value)}]"
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # the one character that JSON allows and TOML does not
