"""The secret that a client shows: from the environment or a file, never from the command line."""

from __future__ import annotations

import hmac
import os
import stat
import warnings
from pathlib import Path

from realbench.errors import RealBenchWarning, UsageError
from realbench.text import printable

TOKEN_VARIABLE = "REALBENCH_SERVE_TOKEN"
MIN_LENGTH = 16
_MAX_LENGTH = 4096


class Token:
    """A bearer token; its text is in no representation of it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Token(***)"

    @property
    def header(self) -> str:
        """The value of the ``Authorization`` header that shows it."""
        return f"Bearer {self._text}"

    def fits(self, header: bytes) -> bool:
        """Whether an ``Authorization`` header shows it; takes as long whatever it is."""
        scheme, _, shown = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(
            shown.strip(), self._text.encode()
        )


def find_token(file: str | Path | None = None, variable: str | None = None) -> Token | None:
    """Return the token of a file, else of an environment variable, else None.

    Args:
        file: Holds the token and nothing else.
        variable: :data:`TOKEN_VARIABLE` where none is named, which need not be set; one that is
            named must be.

    Raises:
        UsageError: the file cannot be read, the named variable is not set, or the token is
            shorter than 16 characters or has characters that no header may have.
    """
    if file is not None:
        return _checked(_read(Path(file)), f"the token in {printable(file)}")
    name = variable or TOKEN_VARIABLE
    text = os.environ.get(name, "").strip()
    if text:
        return _checked(text, f"the token in ${name}")
    if variable:
        raise UsageError(f"the environment variable {variable} holds no token")
    return None


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(_MAX_LENGTH + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read the token file {printable(file)}: {error.strerror}"
        ) from error
    if stat.S_ISREG(mode) and mode & 0o077:
        warnings.warn(
            RealBenchWarning(
                f"others than its owner may read the token file {printable(file)}: chmod 600 it"
            ),
            stacklevel=3,
        )
    return data.decode("ascii", "replace").strip()


def _checked(text: str, what: str) -> Token:
    if len(text) > _MAX_LENGTH or not all("!" <= c <= "~" for c in text):
        raise UsageError(f"{what} has characters other than visible ASCII, or is too long")
    if len(text) < MIN_LENGTH:
        raise UsageError(
            f"{what} has {len(text)} characters: give {MIN_LENGTH} or more, such as the output of "
            "openssl rand -hex 32"
        )
    return Token(text)
