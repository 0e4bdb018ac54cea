"""What is wrong with a config, in one line: which key, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

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


def mistake(error: ValidationError, schema: type[BaseModel], within: Sequence[str] = ()) -> str:
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
