"""Texts of others, such as file names, made fit to be printed."""

from __future__ import annotations

import re
from pathlib import PurePath


def printable(name: str | PurePath) -> str:
    r"""Return a file name that can be printed and written as UTF-8.

    Bytes that are not UTF-8 become ``\xNN``, as do control characters, which could otherwise
    break a table or steer a terminal; separators of lines become ``\u2028`` and ``\u2029``.
    """
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]",
        # Python keeps an undecodable byte NN of a file name as the code point U+DCNN.
        lambda match: (
            f"\\u{ord(match[0]):04x}"
            if match[0] in "\u2028\u2029"
            else f"\\x{ord(match[0]) & 0xFF:02x}"
        ),
        str(name),
    )
