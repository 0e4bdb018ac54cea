"""Ways in which a picture is degraded, for training, benchmarks and robustness curves.

Every function takes and returns uint8 RGB of shape (H, W, 3); most keep the size.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

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


def recolor(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Multiply brightness, contrast and saturation; 1 leaves each as it is."""
    picture = ImageEnhance.Brightness(Image.fromarray(image)).enhance(brightness)
    picture = ImageEnhance.Contrast(picture).enhance(contrast)
    return np.array(ImageEnhance.Color(picture).enhance(saturation))


def crop(image: np.ndarray, share: float, place: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    """Keep ``share`` of each side, at least one pixel, without scaling.

    Args:
        place: of what is kept: (0, 0) is the top left corner, (0.5, 0.5) the middle.
    """
    height, width = image.shape[:2]
    rows, columns = max(1, round(height * share)), max(1, round(width * share))
    top, left = int((height - rows) * place[0]), int((width - columns) * place[1])
    return image[top : top + rows, left : left + columns]


_STEPS: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...] = (
    lambda image, rng: rescale(image, rng.uniform(0.5, 0.9)),
    lambda image, rng: crop(image, rng.uniform(0.6, 0.95), (rng.random(), rng.random())),
    lambda image, rng: jpeg(image, int(rng.integers(40, 96))),
    lambda image, rng: webp(image, int(rng.integers(40, 96))),
    lambda image, rng: blur(image, rng.uniform(0.3, 1.5)),
    lambda image, rng: noise(image, rng.uniform(1, 8), rng),
    lambda image, rng: recolor(image, *rng.uniform(0.7, 1.3, 3)),
)


def chain(image: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Degrade a picture as its way through the web may: several changes, one after another.

    The changes are a smaller scale (50 to 90 %), a crop (60 to 95 % of each side), JPEG and WebP
    (quality 40 to 95), blur (sigma 0.3 to 1.5 px), noise (sigma 1 to 8 of 255) and color
    (brightness, contrast, saturation times 0.7 to 1.3), each at most once. A longer chain of the
    same ``rng`` begins with the shorter one.

    Args:
        steps: how many of the seven changes.
        rng: draws their order and strengths.
    """
    for which in rng.permutation(len(_STEPS))[:steps]:
        image = _STEPS[which](np.ascontiguousarray(image), rng)
    return image
