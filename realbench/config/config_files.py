"""Config files: TOML by name or path, ``--set`` overrides, checked against a schema.

A mistake in one is told in one line: which key, what it has, and what it takes.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from realbench.errors import UsageError
from realbench.text import printable

# What is read here is a page or two of text; more is a wrong file.
_MOST_BYTES = 1_000_000

Schema = TypeVar("Schema", bound=BaseModel)


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


def checked_record(
    kind: type[Schema], fields: Mapping[str, Any], refused: str, whole: str = "", **own: Any
) -> Schema:
    """Return a file's fields as a record.

    Args:
        refused: how the message about what does not fit begins.
        whole: as for :func:`first_problem`.
        own: fields that are not the file's to say.

    Raises:
        UsageError: a field does not fit.
    """
    try:
        return kind(**fields, **own)
    except ValidationError as error:
        raise UsageError(refused + first_problem(error, whole)) from error
    except TypeError as error:  # the file says one of ``own``
        raise UsageError(f"{refused}{error}") from error


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


_WORDS = {
    "missing": "is missing",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be {le} or less",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}",
    "union_tag_not_found": "needs a {discriminator}, which says what it is made of",
    "string_pattern_mismatch": "must be a text of the form {pattern}",
    "string_too_long": "must have {max_length} characters or fewer",
    "too_short": "must hold {min_length} or more",
    "too_long": "must hold {max_length} or fewer",
}
_KINDS = {  # by the beginning of pydantic's name of the mistake
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be a text in quotes",
    "tuple": 'must be a list, such as ["one", "two"]',
    "list": 'must be a list, such as ["one", "two"]',
    "dict": "must be a table",
    "model": "must be a table",
}


class Table(BaseModel):
    """A table of a file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Configs(Generic[Schema]):
    """The configs of one kind of training: those that are shipped, and a user's own files.

    Args:
        schema: what they are to be.
        folder: of those that are shipped.
    """

    def __init__(self, schema: type[Schema], folder: Path) -> None:
        self.schema = schema
        self.folder = folder

    def shipped(self) -> dict[str, str]:
        """Return the shipped configs' names and their one-line descriptions."""
        return {
            path.stem: str(tomllib.loads(path.read_text("utf-8")).get("description", ""))
            for path in sorted(self.folder.glob("*.toml"))
        }

    def text(self, name: str) -> str:
        """Return the TOML of a shipped config.

        Raises:
            UsageError: none has that name.
        """
        return self._file(name).read_text("utf-8")

    def load(self, source: str | Path, overrides: Sequence[str] = ()) -> Schema:
        """Read a shipped config by its name, or a TOML file, and check it.

        Args:
            source: the name (without a folder or a suffix) or the file.
            overrides: ``"table.key=value"`` each, the value in TOML's or JSON's notation or a
                bare word.

        Raises:
            UsageError: there is no such file, or something in it is wrong; the message says what.
        """
        name = str(source)
        known = Path(name).name == name and not name.endswith(".toml") and not Path(name).is_file()
        path = self._file(name) if known else Path(source)
        values = read_toml(path, "config")
        for one in overrides:
            _override(values, one)
        return check_config(self.schema, values, printable(name if known else path))

    def _file(self, name: str) -> Path:
        path = self.folder / f"{name}.toml"
        if not path.is_file():
            names = ", ".join(sorted(one.stem for one in self.folder.glob("*.toml")))
            raise UsageError(
                f"no config and no file is called {printable(name)!r}: the configs are {names}; "
                "else give a TOML file"
            )
        return path


def check_config(
    schema: type[Schema], values: Mapping[str, Any], where: str, *, within: Sequence[str] = ()
) -> Schema:
    """Return a checked config.

    Args:
        where: of what the values are, for the message.
        within: tables of that in which the values are.

    Raises:
        UsageError: a key or a value is wrong; the message names it, ``where``, and what is taken.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{where}: {_mistake(error, schema, within)}") from error


def _override(values: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {printable(text)}: give TABLE.KEY=VALUE")
    table = values
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {printable(text)}: {part} is not a table")
    table[parts[-1]] = _value(value.strip())


def _value(text: str) -> Any:
    """Read a value in TOML's or JSON's notation; anything else is a bare word."""
    for read in (lambda: tomllib.loads(f"x = {text}")["x"], lambda: json.loads(text)):
        try:
            return read()
        except ValueError:
            continue
    return text


def _mistake(error: ValidationError, schema: type[BaseModel], within: Sequence[str] = ()) -> str:
    """Return the first mistake as ``"table.key: what it takes, not what it has"``."""
    first = error.errors()[0]
    keys, table = _walk(schema, first["loc"])
    place = ".".join((*within, *keys))
    reason = _reason(first)
    if first["type"] == "extra_forbidden":
        known = ", ".join(table.model_fields) if table is not None else ""
        reason = "there is no such key" + (f"; there are {known}" if known else "")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {reason}{more}" if place else f"{reason}{more}"


def _reason(found: Mapping[str, Any]) -> str:
    kind, given = str(found["type"]), found["input"]
    words = _WORDS.get(kind) or _KINDS.get(kind.split("_")[0])
    if words is None:
        return str(found["msg"]).removeprefix("Value error, ")
    limits = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in found.get("ctx", {}).items()
    }
    text = words.format_map(limits)
    shown = isinstance(given, str | int | float) and not kind.startswith(("missing", "union_tag"))
    return f"{text}, not {given!r}" if shown else text


def _walk(
    schema: type[BaseModel], place: Sequence[str | int]
) -> tuple[list[str], type[BaseModel] | None]:
    """Return the keys of a place as they stand in the file, and the table of the last one.

    pydantic's place also names which kind of table it took one for, which is no key.
    """
    keys: list[str] = []
    tables: list[type[BaseModel]] = [schema]
    holder: type[BaseModel] | None = schema
    for part in place:
        if isinstance(part, int):
            keys = [*keys[:-1], f"{keys[-1]}[{part}]"] if keys else [f"[{part}]"]
            continue
        if len(tables) > 1 and (of_kind := [one for one in tables if _kind(one) == part]):
            tables = of_kind
            continue
        holder = tables[0] if len(tables) == 1 else None
        field = holder.model_fields.get(part) if holder is not None else None
        tables = list(_tables(field.annotation)) if field is not None else []
        keys.append(part)
    return keys, holder


def _kind(table: type[BaseModel]) -> object:
    field = table.model_fields.get("kind")
    return field.default if field is not None else None


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the tables that a field may hold, within lists and unions too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _tables(one)
