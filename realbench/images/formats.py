"""What marks an image file: its name's ending, its first bytes, and what a file is that is none."""

from __future__ import annotations

import os
from typing import Final

EXTENSIONS: Final = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "pjpeg", "pjp", "png", "apng", "webp", "gif", "bmp", "dib"),
        *("tif", "tiff", "avif", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "heic", "heif", "hif"),
        *("heics", "heifs", "avifs", "jxl", "ppm", "pgm", "pbm", "pnm", "tga", "vda", "icb", "vst"),
        "mpo",
    )
)
"""Names that mark an image file (in any case). What the installed packages cannot read of these
(HEIC and JPEG XL, without a plug-in) is reported as unreadable rather than passed over."""

OTHER_PICTURES: Final = frozenset(
    f".{name}"
    for name in (
        *("ico", "cur", "icns", "psd", "psb", "xcf", "svg", "svgz", "eps", "exr", "hdr", "pfm"),
        *("pcx", "qoi", "dds", "sgi", "jxr", "wdp", "dng", "cr2", "cr3", "nef", "arw", "raf"),
        *("orf", "rw2", "raw"),
    )
)
"""Names of pictures that are not read, but counted: no generator and no camera's JPEG is these."""

# In the order in which they are tried. Pillow would try more than 40 formats on unknown bytes,
# among them some that start other programs (EPS); only these are pictures that a generator or a
# camera writes.
PILLOW_FORMATS: Final = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA"),
)

_MAGIC: Final = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
)
_HEIC_BRANDS: Final = frozenset(
    brand.encode()
    for brand in ("heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "heif")
)
_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))
_GENERAL_BRANDS: Final = frozenset((b"mif1", b"mif2", b"msf1", b"miaf"))


def looks_like_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file without an ending starts as an image does; False where it cannot be read."""
    try:
        with open(path, "rb", buffering=0, opener=open_without_waiting) as file:
            start = file.read(64) or b""
    except OSError:
        return False
    return (
        start.startswith(_MAGIC)
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or (start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace())
        or (start[:2] == b"BM" and start[6:10] == bytes(4))
        or container(start) != ""
    )


def open_without_waiting(path: str, flags: int) -> int:
    """An opener for :func:`open`: a pipe that is named like an image would block for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def container(data: bytes) -> str:
    """Tell ``"AVIF"``, ``"HEIC"`` and ``"JXL"`` by their first bytes; others give ``""``.

    AVIF and HEIC are one container (ISO/IEC 23008-12), whose first box lists the brands that the
    file follows: its major brand may be that of any picture (``mif1``), and only the others tell.
    """
    if data[:2] == b"\xff\x0a" or data[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        return "JXL"
    if data[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & (_HEIC_BRANDS | _GENERAL_BRANDS) else ""


def is_tga(data: bytes) -> bool:
    """Whether bytes are a TGA file, which has no mark at its start.

    Taken are the files of version 2, which have one at the end, and those of true color or gray
    whose every field is in its range, and which are as long as their header says.
    """
    if len(data) < 18:
        return False
    kind, bits, descriptor = data[2], data[16], data[17]
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (12, 14))
    if data[1] > 1 or kind not in (1, 2, 3, 9, 10, 11) or not width * height or descriptor & 0xC0:
        return False
    if data.rstrip(b"\0").endswith(b"TRUEVISION-XFILE."):
        return True
    fits = bits == 8 if kind in (3, 11) else bits in (15, 16, 24, 32)
    at_least = width * height * (bits // 8) if kind in (2, 3) else width * height // 128
    return kind not in (1, 9) and data[1] == 0 and fits and len(data) >= 18 + data[0] + at_least


def what_instead(data: bytes) -> str:
    """Say what bytes are that are no readable image, and what to do."""
    start = data[:64].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image (a failed download?); download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself; run 'git lfs pull'"
    name, plugin = {
        "HEIC": ("HEIC", "pillow-heif"),
        "JXL": ("JPEG XL", "pillow-jxl-plugin"),
        "AVIF": ("AVIF", "a newer Pillow"),
    }.get(container(data), ("", ""))
    if name:
        article = "an" if name == "AVIF" else "a"
        return (
            f"{article} {name} image, which cannot be read here; convert it to PNG or JPEG, or "
            f"install {plugin}"
        )
    return "not an image in a known format; export it as PNG or JPEG"
