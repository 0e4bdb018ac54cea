"""Config files: TOML by name or path, ``--set`` overrides, checked against a schema.

A mistake in one is told in one line: which key, what it has, and what it takes.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from realbench.config.toml_text import read_toml
from realbench.errors import UsageError
from realbench.text import printable

Schema = TypeVar("Schema", bound=BaseModel)

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
    """Return the first mistake as ``"table.key: what it takes, not what it has"``.

    Args:
        schema: that the values do not fit.
        within: tables of the file that the values are in.
    """
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
