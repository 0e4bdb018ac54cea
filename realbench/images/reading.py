"""Reads image files from disk, each once, and hashes them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from realbench.errors import RealBenchError
from realbench.images.formats import open_without_waiting
from realbench.text import printable

MAX_FILE_BYTES = 4 * 2**30
"""Size up to which a file is read: more than the largest image within the default limit needs."""


class UnreadableImage(RealBenchError):  # noqa: N818 - the name is an outcome, not a fault
    """An image file that cannot be used.

    Attributes:
        reason: One line without the file's name: what is wrong and what to do.
        path: The file, where one is known; ``str()`` puts it before the reason.
    """

    def __init__(self, reason: str, path: Path | None = None) -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return self.reason if self.path is None else f"{printable(self.path)}: {self.reason}"


def read_bytes_and_hash(path: str | Path) -> tuple[bytes, str]:
    """Read a file once; return its bytes and their SHA-256 in hexadecimal.

    Raises:
        UnreadableImage: the file is missing, not a regular file, too large or cannot be read.
    """
    path = Path(path)
    try:
        with open(path, "rb", buffering=0, opener=open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImage("not a regular file (a pipe or a device)", path)
            if status.st_size > MAX_FILE_BYTES:
                raise UnreadableImage(
                    f"the file has {status.st_size / 2**30:.1f} GiB, too much for an image", path
                )
            data = file.readall()
    except OSError as error:
        raise UnreadableImage(_os_reason(error), path) from error
    except (ValueError, MemoryError) as error:
        raise UnreadableImage(str(error) or "not enough memory to read it", path) from error
    return data, hashlib.sha256(data).hexdigest()


def _os_reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file (removed, or a link to nothing)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied; allow this user to read it"
    return f"cannot be read: {error.strerror or error}"
