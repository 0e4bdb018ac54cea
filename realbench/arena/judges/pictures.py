"""Pictures as every model judge sees them: decoded alike, at one stated size."""

from __future__ import annotations

from PIL import Image

from realbench.arena.judges.judge import Picture
from realbench.images import DEFAULT_MAX_PIXELS, UnreadableImage, decode, read_bytes_and_hash

DEFAULT_IMAGE_SIZE = 1024
"""Longest side in pixels up to which a model is shown a picture at its own size."""


def shown_picture(
    picture: Picture,
    size: int = DEFAULT_IMAGE_SIZE,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
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
