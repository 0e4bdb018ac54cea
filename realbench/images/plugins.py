"""HEIC and JPEG XL, which Pillow does not read, by packages that the user may have installed.

They are called directly: as plug-ins of Pillow they would be seen by the whole process.
"""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from typing import Any

from realbench.images.pillow import Image

_PACKAGES = {"HEIC": "pillow_heif", "JXL": "pillow_jxl"}


def can_read(name: str) -> bool:
    """Whether the package for ``"HEIC"`` or ``"JXL"`` is installed."""
    return find_spec(_PACKAGES[name]) is not None


class HeicImage(Image.Image):
    """The primary picture of a HEIC file, upright; opened by its head, and decoded when loaded.

    Raises:
        Exception: whatever pillow-heif raises on damaged data.
    """

    format = "HEIF"

    def __init__(self, data: bytes) -> None:
        import pillow_heif

        super().__init__()
        frames = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
        self._frame: Any = frames[frames.primary_index]
        self._size, self._mode = self._frame.size, self._frame.mode
        info: dict[Any, Any] = dict(self._frame.info)
        self.info = info
        pillow_heif.set_orientation(self.info)  # the library has turned it

    def load(self) -> Any:
        if self._frame is not None:
            frame, self._frame = self._frame, None
            pixels = (frame.mode, frame.size, bytes(frame.data), "raw", frame.mode, frame.stride)
            self.im = Image.frombytes(*pixels).im
        return super().load()


class JxlImage(Image.Image):
    """A JPEG XL file's picture, upright; its head has the size, and it is decoded when loaded.

    Raises:
        Exception: whatever pillow-jxl-plugin raises on damaged data.
    """

    format = "JXL"

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self._size = jxl_size(data)

    def load(self) -> Any:
        if self._data:
            import pillow_jxl

            data, self._data = self._data, b""
            is_jpeg, about, content, profile, _ = pillow_jxl.Decoder(num_threads=1)(data)
            image: Image.Image
            if is_jpeg:  # the very JPEG file that this one was made from
                image = Image.OPEN["JPEG"][0](BytesIO(bytes(content)), "")
            else:
                size = about.width, about.height
                image = Image.frombytes(about.mode, size, bytes(content), "raw", about.mode)
                image.info["icc_profile"] = bytes(profile) if profile else None
            image.load()
            self._size, self._mode = image.size, image.mode
            self.info, self.im = image.info, image.im
        return super().load()


def jxl_size(data: bytes) -> tuple[int, int]:
    """Read width and height from a JPEG XL file's head (ISO/IEC 18181-1, SizeHeader).

    Raises:
        ValueError: it has none.
    """
    start = 0
    while data[start : start + 2] != b"\xff\x0a":  # through the boxes, to the codestream
        length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        if kind in (b"jxlc", b"jxlp"):
            start += 8 if kind == b"jxlc" else 12
        elif length < 8:
            raise ValueError("no codestream")
        else:
            start += length
    bits = int.from_bytes(data[start + 2 : start + 18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    if not ratio:
        return side(), height
    over, under = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * over // under, height
