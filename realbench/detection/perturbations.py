"""Ways in which a picture is degraded, for training, benchmarks and robustness curves.

Every function takes and returns uint8 RGB of shape (H, W, 3) and keeps the size.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

MATCHED_SIZE = 512
MATCHED_QUALITY = 90
NATIVE_QUALITY = 92


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode as JPEG (4:2:0) at ``quality`` (1 to 95 or so) and decode again."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))


def webp(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode as lossy WebP at ``quality`` (1 to 100) and decode again."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=0)
    return np.array(Image.open(buffer).convert("RGB"))


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a Gaussian of ``sigma`` pixels."""
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add independent Gaussian noise of ``sigma`` (of 255) to every pixel and channel."""
    added = rng.standard_normal(image.shape, dtype=np.float32) * sigma
    return np.clip(np.rint(image + added), 0, 255).astype(np.uint8)


def sharpen(image: np.ndarray, percent: int, radius: float = 1.5) -> np.ndarray:
    """Unsharp mask of ``percent`` strength."""
    mask = ImageFilter.UnsharpMask(radius=radius, percent=percent, threshold=0)
    return np.array(Image.fromarray(image).filter(mask))


def down_up(
    image: np.ndarray,
    factor: float,
    *,
    down: Image.Resampling = Image.Resampling.BICUBIC,
    up: Image.Resampling = Image.Resampling.BICUBIC,
) -> np.ndarray:
    """Scale down by ``factor`` (above 1) and back to the size it had."""
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    return np.array(Image.fromarray(image).resize(small, down).resize((width, height), up))


def up_down(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale up by ``factor`` (above 1) and back, which smooths a little."""
    height, width = image.shape[:2]
    large = (round(width * factor), round(height * factor))
    picture = Image.fromarray(image).resize(large, Image.Resampling.BICUBIC)
    return np.array(picture.resize((width, height), Image.Resampling.LANCZOS))


def rescale(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale by ``factor`` with Lanczos; unlike the others, the size is not kept."""
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def center_square(image: np.ndarray) -> np.ndarray:
    """Cut the largest centred square."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def matched(image: np.ndarray, size: int = MATCHED_SIZE) -> np.ndarray:
    """The matched protocol: centred square, 512 px (``size``) by Lanczos, JPEG quality 90.

    Size, shape and format tell a detector nothing once both classes went through it.
    """
    square = Image.fromarray(np.ascontiguousarray(center_square(image)))
    square = square.resize((size, size), Image.Resampling.LANCZOS)
    return jpeg(np.asarray(square), MATCHED_QUALITY)


def native(image: np.ndarray, size: int = MATCHED_SIZE) -> np.ndarray:
    """The native protocol: ``size`` px from the middle at the picture's own scale, JPEG quality 92.

    A picture that is smaller is not enlarged: its centred square is taken whole.
    """
    square = center_square(image)
    margin = max(0, len(square) - size) // 2
    middle = square[margin : margin + size, margin : margin + size]
    return jpeg(np.ascontiguousarray(middle), NATIVE_QUALITY)
