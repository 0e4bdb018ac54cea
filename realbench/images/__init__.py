"""Finds, reads, hashes and decodes image files: the only place that does.

Whatever lies in a folder, the outcome is an RGB array or :class:`UnreadableImage` with a reason.
"""

from realbench.images.decoding import (
    DEFAULT_MAX_PIXELS,
    RgbArray,
    decode,
    file_header,
    for_browser,
    format_and_size,
    image_format,
    pixel_count,
    pixel_digest,
    read_image,
    thumbnail_jpeg,
)
from realbench.images.finding import ImageFile, find_images
from realbench.images.formats import EXTENSIONS
from realbench.images.reading import MAX_FILE_BYTES, UnreadableImage, read_bytes_and_hash

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "EXTENSIONS",
    "MAX_FILE_BYTES",
    "ImageFile",
    "RgbArray",
    "UnreadableImage",
    "decode",
    "file_header",
    "find_images",
    "for_browser",
    "format_and_size",
    "image_format",
    "pixel_count",
    "pixel_digest",
    "read_bytes_and_hash",
    "read_image",
    "thumbnail_jpeg",
]
