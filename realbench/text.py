"""Texts of others, such as file names, made fit to be printed."""

from __future__ import annotations

import re
from pathlib import PurePath

# Invisible characters that turn the direction of the text around them.
_DIRECTION = "\u200e\u200f\u202a-\u202e\u2066-\u2069"

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


def _code_point(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
