"""Finds, reads, hashes and decodes image files: the only place that does.

Whatever lies in a folder, the outcome is an RGB array or :class:`UnreadableImage` with a reason.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from realbench.color import orientation, to_srgb
from realbench.errors import RealBenchError, UsageError
from realbench.text import printable

DEFAULT_MAX_PIXELS = 250_000_000
"""Pixels (width times height) up to which an image is decoded."""

MAX_FILE_BYTES = 4 * 2**30
"""Size up to which a file is read: more than the largest image within the default limit needs."""

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "tif", "tiff"),
        *("avif", "jp2", "heic", "heif", "jxl"),
    )
)
"""Names that mark an image file (in any case). What the installed Pillow cannot read of these
(HEIC and JPEG XL, without a plug-in) is reported as unreadable rather than passed over."""

# Pillow would try more than 40 formats on unknown bytes, among them some that start other
# programs (EPS); only these are pictures that a generator or a camera writes.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "HEIF", "JXL")

_BROWSER_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG with further pictures behind it, which browsers pass over
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
"""The media types of what browsers show."""

_STRIP_BYTES = 1 << 19
# Of the 64 numbers of JPEG's example table of brightness (ITU-T T.81, table K.1).
_STANDARD_TABLE_SUM = 3688

RgbArray = npt.NDArray[np.uint8]


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


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file of a folder.

    Attributes:
        folder: The folder as the user named it.
        path: Where the file is, to open it.
        image: Its POSIX path relative to the folder, printable (see :func:`printable`).
        prompt_id: The file's stem, printable, in Unicode's composed form (NFC).
    """

    folder: str
    path: Path
    image: str
    prompt_id: str


# --- Finding -----------------------------------------------------------------------------------


def find_images(
    folder: str | Path, *, on_problem: Callable[[Path, str], None] | None = None
) -> list[ImageFile]:
    """List the image files in a folder and below, in natural order (``2.png`` before ``10.png``).

    Files count by their extension (:data:`EXTENSIONS`, in any case); hidden files and folders are
    passed over. Links are followed; a folder that is reached twice is listed once, at its real
    place where that lies within ``folder``. What is named like an image but cannot be opened (a
    dangling link, a pipe) is listed, so that it is reported as unreadable.

    Args:
        folder: The folder, as the user named it.
        on_problem: Called with each subfolder that cannot be listed and the reason; the search
            goes on. Without it, each gives a :class:`UserWarning`.

    Raises:
        UsageError: the folder is missing, is not a folder, cannot be listed, or has no images.
    """
    root = Path(folder)
    name = printable(str(folder))
    if not str(folder) or not os.path.lexists(root):
        raise UsageError(f"no such folder: '{name}'; check the path")
    if not os.path.isdir(root):  # Path.is_dir raises on some paths, such as too long ones
        raise UsageError(f"{name} is not a folder; name the folder that holds the images")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise UsageError(f"cannot list the folder {name}: {error.strerror}") from error

    def warn(path: Path, reason: str) -> None:
        # Levels up: the walk, this function, its caller.
        warnings.warn(f"{printable(path)}: {reason}", stacklevel=4)

    shown = printable(root)
    found = []
    for path in _walk(root, on_problem or warn):
        relative = path.relative_to(root)
        found.append(
            ImageFile(
                folder=shown,
                path=path,
                image=printable(relative.as_posix()),
                prompt_id=unicodedata.normalize("NFC", printable(relative.stem)),
            )
        )
    if not found:
        known = ", ".join(sorted(EXTENSIONS))
        raise UsageError(f"no images in {name} or below it; looked for files named {known}")
    found.sort(key=lambda file: (_natural_key(file.image), os.fspath(file.path)))
    return found


def _walk(root: Path, on_problem: Callable[[Path, str], None]) -> Iterator[Path]:
    """Yield the image files; every real folder is entered once, linked ones after the others."""
    entered: set[tuple[int, int]] = set()
    folders, linked = [root], list[Path]()
    while folders or linked:
        current = folders.pop() if folders else linked.pop(0)
        try:
            status = current.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(current) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            on_problem(current, f"cannot list this folder: {error.strerror}")
            continue
        for entry in listed:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if not _is_folder(entry):
                if path.suffix.lower() in EXTENSIONS:
                    yield path
            elif not entry.is_symlink():
                folders.append(path)
            elif not _contains(path, current):
                linked.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _contains(link: Path, folder: Path) -> bool:
    """Whether a link leads to the folder it lies in or to one above, so that it is a loop."""
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(link))


def _natural_key(name: str) -> list[list[str | int]]:
    # Split at digits, texts and numbers alternate, so that like is compared with like.
    return [
        [int(piece) if i % 2 else piece.casefold() for i, piece in enumerate(pieces)]
        for pieces in (re.split("([0-9]+)", part) for part in name.split("/"))
    ]


# --- Reading -----------------------------------------------------------------------------------


def _open_without_waiting(path: str, flags: int) -> int:
    # A pipe that is named like an image would block a plain open for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bytes_and_hash(path: str | Path) -> tuple[bytes, str]:
    """Read a file once; return its bytes and their SHA-256 in hexadecimal.

    Raises:
        UnreadableImage: the file is missing, not a regular file, too large or cannot be read.
    """
    path = Path(path)
    try:
        with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
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


# --- Decoding ----------------------------------------------------------------------------------


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> RgbArray:
    """Decode an image file's bytes to RGB, at its own size.

    EXIF orientation is applied, transparency is put on white, gray is repeated, deep (16-bit,
    float) and CMYK images are converted, colors with an ICC profile are brought to sRGB, and of an
    animation the first frame is taken. The content decides on the format, not a name. Safe to
    call from several threads.

    Args:
        data: The whole file.
        max_pixels: Larger images are refused, by their header, before they are decoded.

    Returns:
        uint8 (H, W, 3), sRGB, C-contiguous and writable.

    Raises:
        UnreadableImage: not an image, truncated, damaged, or larger than ``max_pixels``.
    """
    image = _open(data, max_pixels)
    with _decoding(image):
        return _to_array(to_srgb(image))


def _to_array(image: Image.Image) -> RgbArray:
    """Copy a picture of mode RGB into an array of its own, uint8 (H, W, 3).

    np.asarray(image) is read-only, which torch.from_numpy warns of, and np.array(image) copies all
    pixels twice. Strips that fit the cache are as quick as the former, and need no second copy.
    """
    width, height = image.size
    rows = max(1, _STRIP_BYTES // (3 * width))
    if rows >= height:
        return np.array(image)
    array = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        array[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return array


def pixel_count(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> int:
    """Return width times height of an image file's bytes, by its header alone.

    Raises:
        UnreadableImage: not an image, or larger than ``max_pixels``.
    """
    width, height = _open(data, max_pixels).size
    return width * height


def format_and_size(path: str | Path) -> tuple[str, int, int]:
    """Return an image file's format (``"JPEG"``), width and height in pixels, by its header alone.

    Raises:
        UnreadableImage: it cannot be read, or is no image.
    """
    data, _ = read_bytes_and_hash(path)
    image = _open(data, max_pixels=sys.maxsize)
    return str(image.format), *image.size


def file_header(path: str | Path) -> tuple[str, int, int, int | None]:
    """Return :func:`format_and_size`, and of a JPEG about the quality it was saved with.

    The quality, from 1 to 100, is that whose table of brightness has the file's mean, by the
    scaling of the Independent JPEG Group's encoder.

    Raises:
        UnreadableImage: it cannot be read, or is no image.
    """
    data, _ = read_bytes_and_hash(path)
    image = _open(data, max_pixels=sys.maxsize)
    tables = getattr(image, "quantization", None)
    quality = None
    if image.format in ("JPEG", "MPO") and tables:
        scale = 100 * sum(next(iter(tables.values()))) / _STANDARD_TABLE_SUM
        quality = round(100 - scale / 2 if scale < 100 else 5000 / scale)
    return str(image.format), *image.size, quality


def read_image(path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> RgbArray:
    """Read and :func:`decode` a file; uint8 (H, W, 3). Errors name the file."""
    data, _ = read_bytes_and_hash(path)
    try:
        return decode(data, max_pixels=max_pixels)
    except UnreadableImage as error:
        raise UnreadableImage(error.reason, Path(path)) from error


def for_browser(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[bytes, str]:
    """Return an image file's bytes as a browser shows them like :func:`decode`, and their type.

    What browsers show alike comes back untouched. Made into a PNG are other formats, animations
    (of which the first frame counts), CMYK, and pictures to be turned, except for JPEG, the one
    format whose EXIF orientation all browsers follow. Transparency is left: show it on white.

    Returns:
        The bytes and their media type, such as ``"image/jpeg"``.

    Raises:
        UnreadableImage: as :func:`decode`, for untouched files as well.
    """
    image = _open(data, max_pixels)
    with _decoding(image):
        image.load()
        media_type = _BROWSER_TYPES.get(image.format or "")
        if (
            media_type
            and image.mode != "CMYK"
            and (media_type == "image/jpeg" or not _moves_or_turns(image))
        ):
            return data, media_type
        buffer = BytesIO()
        to_srgb(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), "image/png"


def _moves_or_turns(image: Image.Image) -> bool:
    return getattr(image, "is_animated", False) or orientation(image) != 1


def thumbnail_jpeg(
    path: str | Path, size: int = 256, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> bytes:
    """Return a small JPEG of an image file, at most ``size`` pixels wide and high, upright, sRGB.

    Raises:
        UnreadableImage: as :func:`read_image`.
    """
    data, _ = read_bytes_and_hash(path)
    try:
        image = _open(data, max_pixels)
        with _decoding(image):
            image.draft(None, (size, size))  # a JPEG is decoded at 1/2, 1/4 or 1/8 of its size
            small = to_srgb(image)
            small.thumbnail((size, size), Image.Resampling.LANCZOS)
            buffer = BytesIO()
            small.save(buffer, "JPEG", quality=85)
    except UnreadableImage as error:
        raise UnreadableImage(error.reason, Path(path)) from error
    return buffer.getvalue()


@contextmanager
def _decoding(image: Image.Image) -> Iterator[None]:
    """Turn whatever Pillow raises on damaged data into UnreadableImage.

    Its decoders raise OSError, SyntaxError, ValueError, struct.error, KeyError and others; a list
    of them would never be complete.
    """
    try:
        yield
    except MemoryError as error:
        width, height = image.size
        reason = f"not enough memory to decode {width} x {height} pixels"
        raise UnreadableImage(reason) from error
    except Exception as error:
        raise _damaged(image.format or "image", error) from error


def _damaged(format_name: str, error: Exception) -> UnreadableImage:
    detail = printable(" ".join(str(error).split()))[:200]
    if not detail or not isinstance(error, (OSError, SyntaxError, ValueError)):
        detail = f"{type(error).__name__} {detail}".strip()  # "KeyError 262" says more than "262"
    return UnreadableImage(
        f"truncated, damaged or unusual {format_name} file ({detail}); export or download it again"
    )


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read an image's header and check its size.

    Image.open is not used, for its size limit is a setting of the whole process
    (Image.MAX_IMAGE_PIXELS) that this library must not change for the program it runs in.
    """
    if not data:
        raise UnreadableImage("the file is empty (0 bytes); export or download it again")
    Image.init()
    failure: UnreadableImage | None = None
    for name in _FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        accepted = accept(data[:16]) if accept else True
        if isinstance(accepted, str):  # the format is known but not built into this Pillow
            failure = UnreadableImage(f"{accepted}; convert it to PNG or JPEG")
            continue
        if not accepted:
            continue
        try:
            image = factory(BytesIO(data), "")
        except Exception as error:
            failure = failure or _damaged(name, error)
            continue
        width, height = image.size
        if width * height > max_pixels:
            raise UnreadableImage(
                f"{width} x {height} pixels are more than the limit of {max_pixels:,}; "
                "raise --max-pixels if you trust the file"
            )
        return image
    raise failure or UnreadableImage(_what_instead(data))


def _what_instead(data: bytes) -> str:
    """Say what a file is that is no readable image."""
    start = data[:64].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image (a failed download?); download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself; run 'git lfs pull'"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc"):
        return "a HEIC image, which cannot be read here; convert it to PNG or JPEG"
    if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL ":
        return "a JPEG XL image, which cannot be read here; convert it to PNG or JPEG"
    return "not an image in a known format; export it as PNG or JPEG"
