"""Texts of others, such as file names, made fit to be printed, and to be put into tables."""

from __future__ import annotations

import json
import re
from pathlib import PurePath

# Invisible characters that turn the direction of the text around them.
_DIRECTION = "\u200e\u200f\u202a-\u202e\u2066-\u2069"

# What spreadsheets take for the begin of a formula, full-width and other forms of it as well.
_FORMULA = re.compile(
    "'*\\s*[=+@\u2212\uff1d\uff0b\uff0d\uff20\ufe63\ufe62\ufe66\ufe6b\u207a\u207b\u207c\u208a\u208b\u208c\t\r\n-]"
)

_BYTES = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ON_A_LINE = re.compile(f"[\u2028\u2029{_DIRECTION}]")
_ON_A_PAGE = re.compile(f"[{_DIRECTION}\ud800-\udfff]")


def printable(name: str | PurePath) -> str:
    r"""Return a file name that can be printed and written as UTF-8.

    Bytes that are not UTF-8 become ``\xNN``, as do control characters, which could otherwise
    break a table or steer a terminal; separators of lines and direction controls, with which a
    name could pass for another, become ``\uNNNN``.
    """
    # Python keeps an undecodable byte NN of a file name as the code point U+DCNN.
    text = _BYTES.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", str(name))
    return _ON_A_LINE.sub(_code_point, text)


def visible(text: object) -> str:
    """Return a text with invisible direction controls and lone surrogates written out.

    A right-to-left override in a file name would otherwise turn the text around it, and a lone
    surrogate could not be written as UTF-8.
    """
    return _ON_A_PAGE.sub(_code_point, str(text))


def cell(text: str) -> str:
    """Return a text as a cell of a CSV file, where it must be no formula to a spreadsheet.

    What begins like one gets an apostrophe; :func:`cell_text` takes it away again.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def cell_text(cell: str) -> str:
    """Return the text of which :func:`cell` made a cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def byte_count(count: int) -> str:
    """Return a number of bytes for people: ``"87 MB"``, ``"1.3 GB"``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.{1 if count < 10 * size else 0}f} {unit}"
    return f"{count} bytes"


def short_json(value: object, most: int = 120) -> str:
    """Return a value as JSON on a line, cut to ``most`` characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of an error that says something, fit to be printed, else its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0])[:most] if lines else type(error).__name__


def _code_point(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
