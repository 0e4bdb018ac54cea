"""Image files that Pillow does not write, made by hand for the reader's tests.

The formats are written from their specifications, so that a reader and a writer that share a
mistake cannot hide it: PNG (ISO/IEC 15948), TIFF 6.0, ICC.1:2001-04.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

PNG_COLOR_TYPES = {"gray": 0, "rgb": 2, "palette": 3, "gray+alpha": 4, "rgb+alpha": 6}


def png_chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(
    pixels: np.ndarray,
    kind: str,
    *,
    size: tuple[int, int] | None = None,
    chunks: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """Return a PNG of uint8 or uint16 pixels (H, W) or (H, W, C).

    Args:
        kind: A key of PNG_COLOR_TYPES.
        size: Width and height that the header claims, if not the true ones.
        chunks: Further chunks, between the header and the pixels.
    """
    height, width = pixels.shape[:2]
    depth = 8 * pixels.dtype.itemsize
    header = struct.pack(
        ">IIBBBBB", *(size or (width, height)), depth, PNG_COLOR_TYPES[kind], 0, 0, 0
    )
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + b"".join(png_chunk(name, content) for name, content in chunks)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def tiff(
    pixels: np.ndarray,
    *,
    big_endian: bool = False,
    white_is_zero: bool = False,
    bits: int | None = None,
) -> bytes:
    """Return an uncompressed TIFF of pixels (H, W) or (H, W, 3): integers of any kind, or floats.

    With ``bits=12``, uint16 gray pixels below 4,096 are packed two in three bytes.
    """
    order = ">" if big_endian else "<"
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    if bits == 12:
        pairs = pixels.reshape(-1, 2).astype(np.uint32)
        packed = pairs[:, 0] << 12 | pairs[:, 1]
        content = np.stack([packed >> 16, packed >> 8, packed], axis=1).astype(np.uint8).tobytes()
    else:
        bits = 8 * pixels.dtype.itemsize
        content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    photometric = 2 if samples == 3 else 0 if white_is_zero else 1
    sample_format = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    short, long = 3, 4
    start = 8
    bits_at, entries_at = (
        start + len(content),
        start + len(content) + 2 * samples + len(content) % 2,
    )
    entries = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, samples, bits if samples == 1 else bits_at),
        (259, short, 1, 1),
        (262, short, 1, photometric),
        (273, long, 1, start),
        (277, short, 1, samples),
        (278, long, 1, height),
        (279, long, 1, len(content)),
        (339, short, 1, sample_format),
    ]
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        # A short lies in the first two of the four bytes, whatever the order of bytes.
        inline = kind == short and count == 1
        field = struct.pack(order + "HH", value, 0) if inline else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, count) + field
    return (
        (b"MM\0*" if big_endian else b"II*\0")
        + struct.pack(order + "I", entries_at)
        + content
        + struct.pack(order + f"{samples}H", *[bits] * samples)
        + b"\0" * (len(content) % 2)
        + directory
        + b"\0\0\0\0"
    )


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A gray progressive JPEG; all scans but the first say in a few bytes that nothing changes."""

    def part(marker: int, content: bytes) -> bytes:
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content

    blocks = (side // 8) ** 2
    data = b"\xff\xd8" + part(0xDB, b"\0" + b"\1" * 64)
    data += part(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    data += part(0xC4, b"\x00\1" + bytes(15) + b"\0")  # code 0: no difference
    data += part(0xC4, b"\x10\1\1" + bytes(14) + b"\xe0\0")  # codes 0: a run of blocks, 10: one
    data += part(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
    bits = ""
    while blocks >= 2**14:
        run = min(blocks, 2**15 - 1)
        bits, blocks = f"{bits}0{run - 2**14:014b}", blocks - run
    bits += "10" * blocks
    bits += "1" * (-len(bits) % 8)
    content = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    for n in range(scans - 1):
        band = [1 + n % 63] * 2 if n else [1, 63]
        data += part(0xDA, bytes([1, 1, 0, *band, 0])) + content
    return data + b"\xff\xd9"


# --- ICC profiles ------------------------------------------------------------------------------

# CIE XYZ (D50) of the primaries of Display P3, as in the profile that macOS carries.
DISPLAY_P3 = np.array(
    [[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]]
)


def _fixed(values: tuple[float, ...]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _profile(color_space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + _fixed((0.9642, 1.0, 0.8249)),
        **tags,
    }
    table, content = struct.pack(">I", len(tags)), b""
    first = 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        table += name + struct.pack(">II", first + len(content), len(tag))
        content += tag + b"\0" * (-len(tag) % 4)
    size = first + len(content)
    header = (
        struct.pack(">I", size) + b"\0\0\0\0" + b"\x02\x40\0\0" + b"mntr" + color_space + b"XYZ "
    )
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + _fixed((0.9642, 1.0, 0.8249)) + b"\0" * 48
    return header + table + content


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def rgb_profile(primaries: np.ndarray, gamma: float) -> bytes:
    """Return an ICC profile of an RGB display, from primaries (3, 3), XYZ in rows, and gamma."""
    tags = {}
    for name, xyz in zip(b"rgb", primaries, strict=True):
        tags[bytes([name]) + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(tuple(xyz))
        tags[bytes([name]) + b"TRC"] = _gamma(gamma)
    return _profile(b"RGB ", tags)


def gray_profile(gamma: float) -> bytes:
    """Return an ICC profile of a gray display."""
    return _profile(b"GRAY", {b"kTRC": _gamma(gamma)})
