"""Decodes image files, whatever their bytes, to upright RGB pixels.

Every outcome is the right pixels, or :class:`UnreadableImage` with one line, in bounded time and
memory: :mod:`realbench.images.bounds` has the limits.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import _imaging

from realbench.color import RgbArray, orientation, srgb_pixels
from realbench.images import bounds
from realbench.images.formats import PILLOW_FORMATS, container, is_tga, what_instead
from realbench.images.pillow import Image
from realbench.images.plugins import HeicImage, JxlImage, can_read
from realbench.images.reading import UnreadableImage, read_bytes_and_hash
from realbench.text import printable

DEFAULT_MAX_PIXELS = 250_000_000
"""Pixels (width times height) up to which an image is decoded."""

_BROWSER_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG with further pictures behind it, which browsers pass over
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
"""The media types of what browsers show."""

# Of the 64 numbers of JPEG's example table of brightness (ITU-T T.81, table K.1).
_STANDARD_TABLE_SUM = 3688

# --- Decoding ----------------------------------------------------------------------------------


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> RgbArray:
    """Decode an image file's bytes to RGB, at its own size.

    EXIF orientation is applied, transparency is put on white, gray is repeated, deep (16-bit,
    float) and CMYK images are converted, colors with an ICC profile are brought to sRGB, and of an
    animation the first frame is taken. The content decides on the format, not a name. Safe to
    call from several threads.

    Args:
        max_pixels: Larger images are refused, by their header, before they are decoded.

    Returns:
        uint8 (H, W, 3), sRGB, C-contiguous and writable.

    Raises:
        UnreadableImage: not an image, truncated, damaged, or larger than ``max_pixels``.
    """
    image = _open(data, max_pixels)
    with _decoding(image):
        _load(image, data)
        return srgb_pixels(image)


def pixel_digest(image: RgbArray) -> str:
    """Return a hash of a decoded image, uint8 (H, W, 3): what files of other bytes share as well.

    A picture may be saved again with other metadata, or by another encoder without loss.
    """
    digest = hashlib.sha256(f"{image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def pixel_count(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> int:
    """Return width times height of an image file's bytes, by its header alone.

    Raises:
        UnreadableImage: not an image, or larger than ``max_pixels``.
    """
    width, height = _open(data, max_pixels, whole=False).size
    return width * height


def image_format(data: bytes) -> str:
    """Return the format of an image file's bytes (``"JPEG"``), by its header alone.

    Raises:
        UnreadableImage: not an image.
    """
    return str(_open(data, sys.maxsize, whole=False).format)


def format_and_size(path: str | Path) -> tuple[str, int, int]:
    """Return an image file's format (``"JPEG"``), width and height in pixels, by its header alone.

    Raises:
        UnreadableImage: it cannot be read, or is no image.
    """
    data, _ = read_bytes_and_hash(path)
    image = _open(data, max_pixels=sys.maxsize, whole=False)
    return str(image.format), *image.size


def file_header(path: str | Path) -> tuple[str, int, int, int | None]:
    """Return :func:`format_and_size`, and of a JPEG about the quality it was saved with.

    The quality, from 1 to 100, is that whose table of brightness has the file's mean, by the
    scaling of the Independent JPEG Group's encoder.

    Raises:
        UnreadableImage: it cannot be read, or is no image.
    """
    data, _ = read_bytes_and_hash(path)
    image = _open(data, max_pixels=sys.maxsize, whole=False)
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
        _load(image, data)
        media_type = _BROWSER_TYPES.get(image.format or "")
        moves = getattr(image, "is_animated", False)
        if (
            media_type
            and image.mode != "CMYK"
            and (media_type == "image/jpeg" or not (moves or orientation(image) != 1))
        ):
            return data, media_type
        buffer = BytesIO()
        Image.fromarray(srgb_pixels(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), "image/png"


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
            small = Image.fromarray(srgb_pixels(image))
            small.thumbnail((size, size), Image.Resampling.LANCZOS)
            buffer = BytesIO()
            small.save(buffer, "JPEG", quality=85)
    except UnreadableImage as error:
        raise UnreadableImage(error.reason, Path(path)) from error
    return buffer.getvalue()


@contextmanager
def _decoding(image: Image.Image) -> Iterator[None]:
    """Turn whatever Pillow raises on damaged data into UnreadableImage, and keep libtiff quiet.

    Its decoders raise OSError, SyntaxError, ValueError, struct.error, KeyError and others; a list
    of them would never be complete.
    """
    try:
        with _quiet_libtiff if image.format == "TIFF" else nullcontext():
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


def _open(data: bytes, max_pixels: int, *, whole: bool = True) -> Image.Image:
    """Read an image's header and check what it asks for.

    With ``whole`` the pixels are going to be decoded; else the beginning of a file is enough.
    """
    if not data:
        raise UnreadableImage("the file is empty (0 bytes); export or download it again")
    kind = container(data)
    if kind in ("HEIC", "JXL"):
        if not can_read(kind):
            raise UnreadableImage(what_instead(data))
        try:
            plugin_image = HeicImage(data) if kind == "HEIC" else JxlImage(data)
        except Exception as error:
            raise _damaged(kind, error) from error
        bounds.check_size(kind, plugin_image.size, max_pixels)
        return plugin_image
    failure: UnreadableImage | None = None
    for name in PILLOW_FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        accepted = (
            is_tga(data) if name == "TGA" else accept is None or accept(data[:16].ljust(16, b"\0"))
        )
        if isinstance(accepted, str):  # the format is known but not built into this Pillow
            failure = UnreadableImage(f"{accepted}; convert it to PNG or JPEG")
            continue
        if not accepted:
            continue
        try:
            image = factory(BytesIO(_checked(name, data, whole)), "")
        except UnreadableImage:
            raise
        except Exception as error:
            failure = failure or _damaged(name, error)
            continue
        bounds.check_size(name, image.size, max_pixels)
        pixels = image.size[0] * image.size[1]
        if name == "TIFF":
            tags, compression = getattr(image, "tag_v2", {}), str(image.info.get("compression"))
            bounds.check_tiff(data, tags, pixels, compression)
        elif name == "JPEG2000":
            bounds.check_jpeg2000(data, pixels)
        return image
    raise failure or UnreadableImage(what_instead(data))


def _checked(name: str, data: bytes, whole: bool) -> bytes:
    """Check a file's bytes before Pillow opens them; return what it shall open."""
    if name == "PNG":
        return bounds.checked_png(data, whole=whole)
    if name == "JPEG":
        bounds.first_scan(data)
    elif name == "WEBP" and whole:
        bounds.check_webp(data)
    elif name == "AVIF" and whole:
        bounds.check_avif(data)
    return data


# --- Loading -----------------------------------------------------------------------------------


def _load(image: Image.Image, data: bytes) -> None:
    """Decode an opened image, and what Pillow leaves out: JPEG's end, the color that is clear."""
    is_jpeg = image.format in ("JPEG", "MPO")
    scans = bounds.jpeg_scans(data) if is_jpeg else []
    image.load()
    if is_jpeg:
        corner = image.getpixel((image.width - 1, image.height - 1))
        gray = {127, 128}.issuperset(corner if isinstance(corner, tuple) else (corner,))
        changed, longer = bounds.jpeg_doubles(data, scans, gray)
        if _decodes_to(image, changed) or (longer and not _decodes_to(image, longer)):
            raise OSError(bounds.TOO_SHORT)
    elif image.format == "PNG" and "transparency" in image.info:
        _prepare_clear_color(image, data)


def _decodes_to(image: Image.Image, data: bytes) -> bool:
    """Whether another JPEG file's pixels are those of a loaded image."""
    if not data:
        return False
    try:
        other = Image.OPEN["JPEG"][0](BytesIO(data), "")
        return np.array_equal(np.asarray(other), np.asarray(image))
    except Exception:
        return False


def _prepare_clear_color(image: Image.Image, data: bytes) -> None:
    """Bring a PNG's one clear color (tRNS) to the values that Pillow gives to pixels.

    Pillow takes it as it is written, but spreads gray of 2 and 4 bits over 8, and keeps the upper
    8 of 16 bits of RGB; of those, the lower ones are decoded as well, for the color is one of 16.
    """
    depth, color = data[24], image.info["transparency"]
    if image.mode == "L" and isinstance(color, int):
        image.info["transparency"] = (color % 2**depth) * (255 // (2**depth - 1))
    elif image.mode == "RGB" and depth == 16:
        low = Image.OPEN["PNG"][0](BytesIO(bounds.checked_png(data, whole=True)), "")
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
        clear = np.ones((image.height, image.width), bool)
        for channel, value in enumerate(color):
            clear &= np.asarray(image.getchannel(channel)) == value >> 8
            clear &= np.asarray(low.getchannel(channel)) == value & 255
        del image.info["transparency"]
        image.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    elif image.mode == "RGB":
        image.info["transparency"] = tuple(value & 255 for value in color)


class _QuietLibtiff:
    """While it is entered, by any number of threads, libtiff prints no errors of its own.

    It would write them to the terminal, past Python. Its handler is one for the whole process;
    it is put back when the last thread leaves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._handler: int | None = None
        self._set: Callable[[int | None], int | None] | None = None
        with suppress(OSError, AttributeError):  # linked in without its names, as on Windows
            set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
            set_handler.restype, set_handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            self._set = set_handler

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1 and self._set:
                self._handler = self._set(None)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._set:
                self._set(self._handler)


_quiet_libtiff = _QuietLibtiff()
