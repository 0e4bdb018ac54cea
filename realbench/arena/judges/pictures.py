"""Pictures as every model judge sees them: decoded alike, at one stated size."""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import Any, Literal

from PIL import Image

from realbench.arena.judges.judge import Picture
from realbench.images import DEFAULT_MAX_PIXELS, UnreadableImage, decode, read_bytes_and_hash

DEFAULT_IMAGE_SIZE = 1024
"""Longest side in pixels up to which a model is shown a picture at its own size."""


def shown_picture(
    picture: Picture, size: int = DEFAULT_IMAGE_SIZE, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Image.Image:
    """Decode a picture and bring its longest side down to ``size`` pixels by Lanczos, never up.

    Returns:
        A picture of mode RGB: upright, transparency on white, sRGB.

    Raises:
        UnreadableImage: it cannot be decoded, or the file is no longer the one that ``picture``
            names by its hash.
    """
    data, sha256 = read_bytes_and_hash(picture.path)
    if sha256 != picture.sha256:
        raise UnreadableImage("the file has changed since the run began", picture.path)
    try:
        image = Image.fromarray(decode(data, max_pixels=max_pixels))
    except UnreadableImage as error:
        raise UnreadableImage(error.reason, picture.path) from error
    # A gap would first shrink by a coarser filter, which leaves traces of its own.
    image.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=None)
    return image


ImageFormat = Literal["jpeg", "png"]

JPEG_QUALITY = 90
"""Quality of the JPEGs that are sent, without chroma subsampling."""

# About a thousand pictures: one comes back in the other order and against every other contestant.
_KEPT_BYTES = 256 * 2**20
_THREADS = 2


def describe_encoding(size: int, image_format: ImageFormat) -> dict[str, Any]:
    """Return what decides how a judge sees a picture, for fingerprints and ``run.json``."""
    quality = {"quality": JPEG_QUALITY} if image_format == "jpeg" else {}
    return {"longest_side": size, "format": image_format, **quality}


_Key = tuple[str, str]


class PictureEncoder:
    """Encodes pictures in the background and keeps the latest ones, so that each is decoded once.

    Every picture gets the same treatment, whatever file it comes from: decoded in full by
    :func:`realbench.images.decode` (upright, alpha on white, sRGB), scaled down by Lanczos so that
    its longest side is at most ``size`` pixels, never up, and encoded anew without metadata.

    Args:
        size: Longest side in pixels.
        image_format: ``"jpeg"`` (quality :data:`JPEG_QUALITY`) or ``"png"``.
        max_pixels: Larger images are refused before they are decoded.
        kept_bytes: How many bytes of encoded pictures are remembered.
    """

    def __init__(
        self,
        size: int = DEFAULT_IMAGE_SIZE,
        image_format: ImageFormat = "jpeg",
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        kept_bytes: int = _KEPT_BYTES,
    ) -> None:
        self._size = size
        self._format: ImageFormat = image_format
        self._max_pixels = max_pixels
        self._most_bytes = kept_bytes
        self._kept: OrderedDict[_Key, Future[str]] = OrderedDict()
        self._sizes: dict[_Key, int] = {}  # of those that are encoded
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="encode")

    def submit(self, picture: Picture) -> Future[str]:
        """Start to encode a picture, unless it is there already; the result is its data URL.

        The future raises :class:`UnreadableImage` where the file cannot be decoded, or is no
        longer the one that ``picture`` names by its hash.
        """
        key = (str(picture.path), picture.sha256)
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
                return known
            future = self._kept[key] = self._pool.submit(self._encoded, picture, key)
        return future

    def _encoded(self, picture: Picture, key: _Key) -> str:
        """Encode a picture, and forget those that were not asked for longest."""
        buffer = BytesIO()
        shown = shown_picture(picture, self._size, max_pixels=self._max_pixels)
        lossy = {"quality": JPEG_QUALITY, "subsampling": 0} if self._format == "jpeg" else {}
        shown.save(buffer, self._format, **lossy)
        url = f"data:image/{self._format};base64,{base64.b64encode(buffer.getvalue()).decode()}"
        with self._lock:
            self._sizes[key] = len(url)
            while sum(self._sizes.values()) > self._most_bytes:
                oldest = next(one for one in self._kept if one in self._sizes)
                del self._kept[oldest], self._sizes[oldest]
        return url

    def close(self) -> None:
        """Begin no further picture; those under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)
