"""What is checked of a file's bytes before and after Pillow decodes them.

Pillow bounds neither the time nor the memory that a file may ask for: a JPEG of 100 KB may have a
thousand scans, each of which passes over all pixels, and a TIFF of a few bytes a tile of gigabytes.
Nor does it check all that a file has to tell of its own damage. Every check costs far less than
decoding does, and each raises :class:`UnreadableImage`, or what Pillow would (OSError), with words
that :mod:`realbench.images.decoding` completes.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

from realbench.images.reading import UnreadableImage

BYTES_PER_PIXEL = 16
"""Memory that decoding may take for each pixel of the limit; most formats take 7 to 16."""

# The libraries of these formats keep integers or floats of 32 bits for each channel.
_HUNGRY = {"JPEG2000": 28, "JXL": 32}

_SCANS = range(20, 65)
_SCAN_PIXELS = 500_000_000
_HEADER_BYTES = 32 * 2**20
_PARTS = 10_000
_TILES = 2**18
_TILE_PIXELS = 2**24
_ZEROS = 16
_HOLE = 64
_TEXT_BYTES = 2**20
_PROFILE_BYTES = 16 * 2**20


def check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    """Refuse an image by its size, before it is decoded.

    The limit is one of pixels, and of 16 bytes of memory for each of them.

    Raises:
        UnreadableImage: it is larger; the reason says so and names the limit.
    """
    width, height = size
    raise_it = "raise --max-pixels if you trust the file"
    if width * height > max_pixels:
        raise UnreadableImage(
            f"{width} x {height} pixels are more than the limit of {max_pixels:,}; {raise_it}"
        )
    needed = width * height * _HUNGRY.get(name, BYTES_PER_PIXEL)
    if needed > max_pixels * BYTES_PER_PIXEL:
        raise UnreadableImage(
            f"{width} x {height} pixels of {name} take about {needed / 2**30:.1f} GiB to decode, "
            f"more than the limit of {max_pixels * BYTES_PER_PIXEL / 2**30:.1f} GiB "
            f"({max_pixels:,} pixels of {BYTES_PER_PIXEL} bytes); {raise_it}"
        )


def _too_much(name: str, what: str) -> UnreadableImage:
    return UnreadableImage(f"a {name} file with {what}; export it again")


def _ends_in_zeros(name: str) -> OSError:
    return OSError(f"the end of its {name} data is zeros: an unfinished download")


# --- PNG ---------------------------------------------------------------------------------------

# Besides the pixels, what color.py asks for: the profile and the orientation, which Pillow finds
# in any of these texts. acTL tells an animation.
_PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_TURNING_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"exif\0")
_CHUNK = struct.Struct(">I4s")


def checked_png(data: bytes, *, whole: bool) -> bytes:
    """Return a PNG without what does not show: texts of any length, further frames, unknown chunks.

    Generation workflows put megabytes into texts, which Pillow takes for an attack.

    Args:
        whole: Whether the pixels are to be decoded, so that their checksums must be right; else
            the file may be a beginning alone.

    Raises:
        OSError: the file is cut off, or a checksum is wrong.
        UnreadableImage: the file has more chunks than its length justifies.
    """
    view, kept, seen = memoryview(data), list[memoryview](), set[bytes]()
    at, start, chunks = 8, 0, 0
    while at + 8 <= len(data):
        length, kind = _CHUNK.unpack_from(data, at)
        end = at + 12 + length
        chunks += 1
        if chunks > _PARTS + len(data) // 1024:
            raise _too_much("PNG", f"more than {chunks - 1:,} parts")
        if end > len(data):
            if whole and kind in _PIXEL_CHUNKS and not (kind == b"IEND" and length == 0):
                raise OSError("image file is truncated")
            break
        if kind in _PIXEL_CHUNKS:
            keep = kind in (b"IDAT", b"IEND") or kind not in seen
            checksum = zlib.crc32(view[at + 4 : end - 4]) if whole else None
            if whole and checksum != int.from_bytes(view[end - 4 : end], "big"):
                raise OSError(f"wrong checksum in its {kind.decode()} data")
        else:
            keep = kind not in seen and _shows(kind, data, at + 8, end - 4)
        if not keep:
            if start < at:
                kept.append(view[start:at])
            start = end
        else:
            seen.add(kind)
        at = end
        if kind == b"IEND":
            break
    if not kept and start == 0 and at == len(data):
        return data
    # What is cut off behind the last whole chunk stays, for Pillow to judge.
    kept.append(view[start : at if b"IEND" in seen else len(data)])
    return b"".join(kept)


def _shows(kind: bytes, data: bytes, start: int, end: int) -> bool:
    """Whether an ancillary chunk can have a say in the pixels."""
    if kind in (b"acTL", b"fcTL"):
        return True
    if kind == b"eXIf":
        return end - start <= _PROFILE_BYTES
    if kind == b"iCCP":
        name_end = data.find(b"\0", start, end)
        return name_end >= 0 and _inflates(data[name_end + 2 : end], _PROFILE_BYTES)
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or end - start > _TEXT_BYTES:
        return False
    if not data.startswith(_TURNING_TEXTS, start, end):
        return False
    name_end = data.find(b"\0", start, end)
    if kind == b"zTXt":
        return _inflates(data[name_end + 2 : end], _TEXT_BYTES)
    # A text that is deflated in an iTXt has this flag; XMP must not be (its specification, part 3).
    return kind == b"tEXt" or data[name_end + 1 : name_end + 2] == b"\0"


def _inflates(deflated: bytes, limit: int) -> bool:
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(deflated, limit)
    except zlib.error:
        return False
    return inflater.eof


# --- JPEG --------------------------------------------------------------------------------------

# Of several 0xFF the last one counts; a pattern that took them all would try each of their runs.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))
_SCAN, _END = 0xDA, b"\xff\xd9"
_PROGRESSIVE = frozenset((0xC2, 0xCA))
_HUFFMAN = frozenset((0xC0, 0xC1, 0xC2))
# Neither zeros, which may be padding, nor the beginning of a marker.
_NONSENSE = bytes((89 * n + 37) % 254 + 1 for n in range(64))
TOO_SHORT = "its data end before the picture does"


def first_scan(data: bytes) -> int:
    """Return where a JPEG's pixels begin, having counted how often they are passed over.

    Raises:
        UnreadableImage: the metadata or the scans are too many.
    """
    at = first = scans = parts = pixels = 0
    components, sequential, allowed = 255, False, _SCANS.stop - 1
    while found := _MARKER.search(data, at):
        code, at = found[1][0], found.end()
        if code == _END[1]:
            break
        if code in _FRAMES:
            height, width = struct.unpack_from(">HH", data[at : at + 8].ljust(8, b"\0"), 3)
            pixels, sequential = width * height, code in _SEQUENTIAL
            components = data[at + 7] if at + 7 < len(data) else 255
            allowed = max(_SCANS[0], min(allowed, _SCAN_PIXELS // max(1, pixels)))
        elif code == _SCAN:
            scans += 1
            first = first or at
            if scans == 1 and sequential and data[at + 2 : at + 3] >= bytes([components]):
                return first  # the one scan has all the pixels
            if scans == 1 and data.count(b"\xff\xda", at) < allowed:
                return first
            if scans > allowed:
                raise _too_much("JPEG", f"more than {allowed} scans of {pixels:,} pixels")
        parts += 1
        if parts > _PARTS or (not first and at > _HEADER_BYTES):
            raise _too_much("JPEG", "more metadata than any picture has")
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return first


def jpeg_doubles(data: bytes, scans: list[tuple[int, int]], gray_end: bool) -> tuple[bytes, bytes]:
    """Return what tells whether a JPEG's pixels have come to their end.

    Zeros are valid code, and libjpeg makes up what is missing before the mark of the end: gray
    where one scan has all, and what nobody sees where there are several. A picture is whole if
    bytes that are put behind the data of its scans are passed over. If a scan has a run of zeros,
    which a flat picture may have as well, its end must also have a say in the pixels: code that
    begins anew behind a hole seldom ends with the data.

    Args:
        scans: Where the data of its scans are.
        gray_end: Whether the last pixel is of middle gray.

    Returns:
        A file that decodes to other pixels if this one is whole, and one that decodes to the same,
        each empty where nothing hints at damage.

    Raises:
        OSError: it ends in zeros, without the mark of the end.
    """
    if not scans:
        if data.endswith(bytes(_ZEROS)):
            raise _ends_in_zeros("JPEG")
        return b"", b""
    zeros = [
        end
        for start, end in scans
        if data.endswith(bytes(_ZEROS), start, end) or data.find(bytes(_HOLE), start, end) >= 0
    ]
    changed = longer = b""
    if zeros and not gray_end:  # which may have a single code, so that all other bits are none
        end = zeros[0]
        changed = data[: end - _ZEROS] + _changed(data[end - _ZEROS : end]) + data[end:]
    if len(scans) > 1 or gray_end or zeros:
        ends = [end for _, end in scans]
        parts = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
        longer = _NONSENSE.join(parts)
    return changed, longer


def jpeg_scans(data: bytes) -> list[tuple[int, int]]:
    """Return where the data of each scan are; none where the mark of the end is missing.

    None either for arithmetic codes and pictures without loss, whose decoders do not pad.

    Raises:
        OSError: scans are missing that bring coefficients, or their last bits.
    """
    at, frame, start = 2, 0, 0
    scans: list[tuple[int, int]] = []
    missing: set[tuple[int, int]] = set()  # components, each with the numbers of its coefficients
    while found := _MARKER.search(data, at):
        if start:
            scans.append((start, start + len(data[start : found.start()].rstrip(b"\xff"))))
        code, at = found[1][0], found.end()
        if code == _END[1]:
            break
        segment = data[at : at + max(2, int.from_bytes(data[at : at + 2], "big"))]
        at += len(segment)
        start = at if code == _SCAN else 0
        if code in _FRAMES:
            frame = code
            missing = {(one, k) for one in segment[8::3] for k in range(64)}
        if start and len(segment) > 2 and len(segment) == 6 + 2 * segment[2]:
            first, last, bits = segment[-3:] if frame in _PROGRESSIVE else (0, 63, 0)
            if not bits & 15:
                band = range(first, last + 1)
                missing -= {(one, k) for one in segment[3:-3:2] for k in band}
    else:
        return []
    if missing and frame in _PROGRESSIVE | _SEQUENTIAL:
        raise OSError(TOO_SHORT)
    return scans if frame in _HUFFMAN else []


def _changed(code: bytes) -> bytes:
    """Return other bytes of a scan's data, among which there is no marker, either."""
    other = bytearray(code)
    for n, byte in enumerate(code):
        if byte != 0xFF and code[n - 1] != 0xFF:
            other[n] ^= 0x2A if byte in (0x55, 0xAA) else 0x55
    return bytes(other)


# --- WebP and AVIF -----------------------------------------------------------------------------


def check_webp(data: bytes) -> None:
    """Raise OSError where the first frame's data end in zeros, which would be decoded to noise."""
    at = 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        start = at + 8
        if kind == b"ANMF":
            at = start + 16
            continue
        if kind in (b"VP8 ", b"VP8L"):
            if length > 2 * _ZEROS and data.endswith(bytes(_ZEROS), start, start + length):
                raise _ends_in_zeros("WebP")
            return
        at = start + length + length % 2


def check_avif(data: bytes) -> None:
    """Raise OSError where the file's last box has pixels and ends in zeros."""
    at, kind = 0, b""
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length < 8 or at + length >= len(data):
            break
        at += length
    if kind == b"mdat" and data.endswith(bytes(4 * _ZEROS)):
        raise _ends_in_zeros("AVIF")


# --- TIFF and JPEG 2000 ------------------------------------------------------------------------

_STRIP_OFFSETS, _TILE_OFFSETS, _TILE_WIDTH, _TILE_HEIGHT = 273, 324, 322, 323


def check_tiff(data: bytes, tags: Any, pixels: int, compression: str) -> None:
    """Refuse a TIFF whose tiles are far larger than it, or too many, or have too many scans.

    Raises:
        UnreadableImage: it asks for too much.
    """
    area = 1
    for tag in (_TILE_WIDTH, _TILE_HEIGHT):
        side = tags.get(tag, 0)
        area *= side if isinstance(side, int) else 1
    if area > max(_TILE_PIXELS, 4 * pixels):
        raise _too_much("TIFF", f"tiles of {area:,} pixels for a picture of {pixels:,}")
    offsets = tags.get(_STRIP_OFFSETS) or tags.get(_TILE_OFFSETS) or ()
    count = len(offsets) if isinstance(offsets, tuple) else 1
    if count > _TILES:
        raise _too_much("TIFF", f"{count:,} strips or tiles")
    if compression in ("jpeg", "tiff_jpeg") and data.count(b"\xff\xda") > _SCANS[0] * (count + 1):
        raise _too_much("TIFF", f"more than {_SCANS[0]} JPEG scans in each strip or tile")


def check_jpeg2000(data: bytes, pixels: int) -> None:
    """Refuse a JPEG 2000 file of too many tiles or precincts, each of which takes memory.

    Raises:
        UnreadableImage: it asks for too much.
    """
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 42:
        return
    right, bottom, left, top, width, height, tiles_left, tiles_top = struct.unpack_from(
        ">8I", data, at + 8
    )
    components = int.from_bytes(data[at + 40 : at + 42], "big")
    if not width or not height:
        return
    tiles = -(-(right - tiles_left) // width) * -(-(bottom - tiles_top) // height)
    if components > 16 or tiles > _PARTS or tiles * components > _PARTS + pixels // 1024:
        raise _too_much("JPEG 2000", f"{tiles:,} tiles of {components} components")
    at, tile_end = at + 2, 0
    # The main header, and those of the tiles' parts, which may have a coding of their own.
    while data[at : at + 1] == b"\xff" and len(data) >= at + 4:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        coding = data[at + 4 : at + 2 + length]
        if kind == 0x52 and len(coding) >= 10 and coding[0] & 1:
            precincts = tiles * sum(
                1 + ((right - left) * (bottom - top) >> (2 * level + (size & 15) + (size >> 4)))
                for level, size in enumerate(reversed(coding[10:]))
            )
            if precincts > _TILES:
                raise _too_much("JPEG 2000", f"{precincts:,} precincts")
        if kind == 0x90:  # a part of a tile, and its length
            tile_end = at + int.from_bytes(data[at + 6 : at + 10], "big")
        if kind == 0x93:  # its data
            if tile_end <= at:
                return
            at = tile_end
        else:
            at += 2 + max(2, length)
