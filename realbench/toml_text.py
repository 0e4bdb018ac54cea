"""Writes TOML, which Python only reads: configs, cards, recipes and boards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any


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
