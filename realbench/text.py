"""Texts of others, such as file names, made fit to be printed."""

from __future__ import annotations

import re
from pathlib import PurePath

# Invisible characters that turn the direction of the text around them.
DIRECTION_CONTROLS = "\u200e\u200f\u202a-\u202e\u2066-\u2069"

_BYTES = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_INVISIBLE = re.compile(f"[\u2028\u2029{DIRECTION_CONTROLS}]")


def printable(name: str | PurePath) -> str:
    r"""Return a file name that can be printed and written as UTF-8.

    Bytes that are not UTF-8 become ``\xNN``, as do control characters, which could otherwise
    break a table or steer a terminal; separators of lines and direction controls, with which a
    name could pass for another, become ``\uNNNN``.
    """
    # Python keeps an undecodable byte NN of a file name as the code point U+DCNN.
    text = _BYTES.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", str(name))
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
