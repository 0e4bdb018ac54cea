"""The images of a request: PNG, JPEG or NPY bytes, measured before they are decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO

import numpy as np

from realbench.images import UnreadableImage, decode, pixel_count
from realbench.serve.reward_limits import Limits, Refusal

NPY_MAGIC = b"\x93NUMPY"
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_HEADER_BYTES = 4096
_SLOW_PIXELS = 50_000_000


class SentImages:
    """The files of a request, measured by their heads.

    Args:
        files: What was sent: each a PNG, a JPEG, or an NPY file of one image or several.
        limits: What is taken.

    Attributes:
        count: Images in all files.
        pixels: Width times height of them all.

    Raises:
        Refusal: a file is none of these, or a limit is exceeded.
    """

    def __init__(self, files: Sequence[bytes], limits: Limits) -> None:
        self._files = files
        self._limits = limits
        self.count = self.pixels = 0
        self._slow: list[bool] = []
        for n, data in enumerate(files):
            count, pixels = _measured(data, n, limits)
            self.count += count
            self.pixels += count * pixels
            # Each scan of a JPEG passes over all of its pixels.
            scans = data.count(b"\xff\xda") if data.startswith(_JPEG) else 1
            self._slow.append(pixels * scans > _SLOW_PIXELS)
            if self.count > limits.max_images:
                raise Refusal(
                    413, f"more than {limits.max_images} images in one request", "too-large"
                )
            if self.pixels > limits.max_request_pixels:
                raise Refusal(
                    413,
                    f"more than {limits.max_request_pixels:,} pixels in one request: send fewer "
                    "images at once",
                    "too-large",
                )

    def slow(self, n: int) -> bool:
        """Whether decoding file ``n`` may take a second and more."""
        return self._slow[n]

    def decode(self, n: int) -> list[np.ndarray]:
        """Return the images of file ``n``, uint8 RGB arrays (H, W, 3).

        Raises:
            Refusal: the file is damaged; the reason says which.
        """
        data = self._files[n]
        if not data.startswith(NPY_MAGIC):
            try:
                return [decode(data, max_pixels=self._limits.max_pixels)]
            except UnreadableImage as error:
                raise Refusal(422, f"file {n}: {error.reason}", "unreadable") from error
        try:
            array = np.load(BytesIO(data), allow_pickle=False)
        except Exception as error:  # numpy raises many kinds on damaged headers
            raise Refusal(422, f"file {n}: damaged NPY file", "unreadable") from error
        array = np.ascontiguousarray(array)
        return [array] if array.ndim == 3 else list(array)


def _measured(data: bytes, n: int, limits: Limits) -> tuple[int, int]:
    if data.startswith(NPY_MAGIC):
        count, height, width = _npy_shape(data, n)
        pixels = height * width
    elif data.startswith((_PNG, _JPEG)):
        try:
            # Without a limit of its own, so that too large a picture is told from a damaged one.
            count, pixels = 1, pixel_count(data, max_pixels=2**62)
        except UnreadableImage as error:
            raise Refusal(422, f"file {n}: {error.reason}", "unreadable") from error
    else:
        raise Refusal(415, f"file {n} is neither PNG nor JPEG nor NPY", "unreadable")
    if pixels > limits.max_pixels:
        raise Refusal(
            413, f"file {n}: {pixels:,} pixels are more than {limits.max_pixels:,}", "too-large"
        )
    return count, pixels


def _npy_shape(data: bytes, n: int) -> tuple[int, int, int]:
    """Read an NPY file's head alone; return its images' number, height and width.

    What numpy would do with the rest is then known: an array of Python objects would be
    unpickled, and one that claims to be huge would be allocated before the end is found missing.
    """
    file = BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(file, max_header_size=_HEADER_BYTES)
    except Exception as error:  # numpy raises many kinds on damaged headers
        raise Refusal(422, f"file {n}: damaged NPY file", "unreadable") from error
    if dtype != np.uint8:
        raise Refusal(
            422, f"file {n}: an array of {str(dtype)[:20]}: send uint8, from 0 to 255", "unreadable"
        )
    if len(shape) not in (3, 4) or shape[-1] != 3 or not all(0 < side < 2**31 for side in shape):
        raise Refusal(
            422,
            f"file {n}: an array of shape {str(shape)[:60]}: send (H, W, 3) or (n, H, W, 3)",
            "unreadable",
        )
    if math.prod(shape) != len(data) - file.tell():
        raise Refusal(
            422,
            f"file {n}: truncated or too long NPY file: {len(data) - file.tell():,} bytes for "
            f"shape {shape}",
            "unreadable",
        )
    count, height, width = (1, *shape[:2]) if len(shape) == 3 else shape[:3]
    return count, height, width
