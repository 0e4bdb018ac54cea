"""Config files: TOML by name or path, ``--set`` overrides, checked against a schema."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from realbench.errors import UsageError
from realbench.text import printable
from realbench.toml_text import read_toml
from realbench.train.config_mistakes import mistake

Schema = TypeVar("Schema", bound=BaseModel)


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
        raise UsageError(f"{where}: {mistake(error, schema, within)}") from error


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
