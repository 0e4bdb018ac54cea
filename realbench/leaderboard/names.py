"""Names and other texts of entries: what they may hold, and the file names made of them."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters and signs that are drawn as nothing, or as a blank.
_BLANKS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "LISU", "COPTIC")
_LONGEST_SLUG = 80
# Signs between the words of a name.
_SEPARATORS = ".,:;'\"/\\<>|·•!?¡¿"
# Letters that look like Latin ones, and Latin ones and digits that look alike.
_LOOK = dict(
    zip(
        "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαικνορυχωϲϳ"
        "АВЕЅІЈКМНОРСТУХЬаеѕіјкмнорстухьвԁԛԝһӏԍ"
        "ՕՍՏԼօսհոցքզ"
        "ᎠᎡᎢᎥᎪᎫᎬᎳᎷᎻᏀᏃᏏᏒᏔᏙᏚᏞᏟᏢᏴ"
        "ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ"
        "ʙᴄᴅᴇꜰɢʜᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ"
        "ЗзӠӡƷʒȜȝЧƧƨƼƽб"
        "ıɑɡɩ0I1|",
        "ABEZHlKMNOPTYXaiKvopuxwcj"
        "ABESlJKMHOPCTYXbaesijkmHopcTyxbBdqwhlg"
        "OUSLouhngpq"
        "DRTiAJEWMHGZBRWVSLCPB"
        "BPDTGKJCZFMNLSRVHWXYAElOU"
        "bcdefghjklmnoprstuvwyz"
        "33333333422556"
        "iagiolll",
        strict=True,
    )
)


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


def label(text: str) -> str:
    """Return a plain text with no digits but ASCII's, and no blank letters, as it is.

    Raises:
        ValueError: it has digits such as full-width or Arabic ones, a letter or sign that is drawn
            as nothing, or is no plain text.
    """
    plain_text(text)
    for character in text:
        if _BLANKS.match(character):
            raise ValueError(f"has the invisible character U+{ord(character):04X}; leave it out")
        if unicodedata.category(character) == "Nd" and not character.isascii():
            raise ValueError(f"has the digit U+{ord(character):04X}; write 0 to 9")
    return text


def model_name(name: str) -> str:
    """Return a model's name as it is.

    Raises:
        ValueError: it is no :func:`label`, or a word of it mixes scripts whose letters look alike.
    """
    label(name)
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

    It has lower-case ASCII letters, digits, ``.`` and ``-`` only. Where letters of the name, or
    signs such as those of ``C++``, have no such form, a part of the name's digest keeps different
    names apart.
    """
    composed = unicodedata.normalize("NFKC", name)
    plain = unicodedata.normalize("NFKD", composed)
    plain = "".join(one for one in plain if not unicodedata.combining(one))
    ascii_part = plain.encode("ascii", "ignore").decode().lower()
    short = re.sub(r"[^a-z0-9.]+", "-", ascii_part)
    short = re.sub(r"\.{2,}", ".", short).strip("-.")
    lost = any((one.isalnum() and not one.isascii()) or _is_sign(one) for one in plain)
    if lost or not short or len(short) > _LONGEST_SLUG:
        digest = hashlib.sha256(composed.casefold().encode()).hexdigest()[:8]
        short = f"{short[:_LONGEST_SLUG] or 'model'}-{digest}"
    return short


def _is_sign(character: str) -> bool:
    """Whether a character that is no letter tells names apart, as ``+`` does and ``.`` does not."""
    kind = unicodedata.category(character)
    return kind in ("Sm", "Sc", "So", "Po") and character not in _SEPARATORS


def skeleton(name: str) -> str:
    """Return what two names share that differ only in case, Unicode form, space and dashes."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return _bare(folded)


def skeletons(name: str) -> set[str]:
    """Return what a name shares with those that read like it.

    These share its :func:`skeleton`, or differ in letters and digits that look alike, also in
    those of other scripts, and in accents.
    """
    seen = "".join(_LOOK.get(one, one) for one in unicodedata.normalize("NFKC", name))
    bare = _bare(unicodedata.normalize("NFKD", seen.casefold()))
    return {skeleton(name), bare.replace("vv", "w").replace("rn", "m") + " alike"}


def _bare(text: str) -> str:
    kept = "".join(one for one in text if one.isalnum() or _is_sign(one))
    return kept or text
