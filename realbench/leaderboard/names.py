"""Names and other texts of entries: what they may hold, and the file names made of them."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
_LONGEST_SLUG = 80


def plain_text(text: str) -> str:
    """Return a text of one visible line as it is.

    Raises:
        ValueError: it has control, direction or other invisible characters, is not in Unicode's
            composed form (NFC), or has space at an end.
    """
    for character in text:
        if unicodedata.category(character) in _INVISIBLE:
            raise ValueError(f"has the invisible character U+{ord(character):04X}; leave it out")
    if unicodedata.normalize("NFC", text) != text:
        raise ValueError("is not in Unicode's composed form (NFC); write it in NFC")
    if text != text.strip():
        raise ValueError("begins or ends with space; leave it out")
    return text


def model_name(name: str) -> str:
    """Return a model's name as it is.

    Raises:
        ValueError: it is no plain text, or a word of it mixes scripts whose letters look alike.
    """
    plain_text(name)
    for word in re.findall(r"\w+", name):
        scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in word}
        mixed = [script for script in _SCRIPTS if script in scripts]
        if len(mixed) > 1:
            raise ValueError(
                f"mixes {' and '.join(one.capitalize() for one in mixed)} letters in one word; "
                "write it in one script"
            )
    return name


def slug(name: str) -> str:
    """Return the file name, without ``.json``, of the entry of a model.

    It has lower-case ASCII letters, digits, ``.`` and ``-`` only. Where letters of the name have
    no such form, a part of the name's digest keeps different names apart.
    """
    composed = unicodedata.normalize("NFKC", name)
    plain = unicodedata.normalize("NFKD", composed)
    plain = "".join(one for one in plain if not unicodedata.combining(one))
    ascii_part = plain.encode("ascii", "ignore").decode().lower()
    short = re.sub(r"[^a-z0-9.]+", "-", ascii_part)
    short = re.sub(r"\.{2,}", ".", short).strip("-.")
    lost = any(one.isalnum() and not one.isascii() for one in plain)
    if lost or not short or len(short) > _LONGEST_SLUG:
        digest = hashlib.sha256(composed.casefold().encode()).hexdigest()[:8]
        short = f"{short[:_LONGEST_SLUG] or 'model'}-{digest}"
    return short


def skeleton(name: str) -> str:
    """Return what two names share that differ only in case, Unicode form, space and dashes."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return re.sub(r"[\W_]+", "", folded) or folded
