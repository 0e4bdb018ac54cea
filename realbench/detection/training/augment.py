"""How a training image becomes a view: geometry, shared processing, degradations.

Both classes go through the same scaling, cutting and re-encoding, so that size, format and
compression tell nothing. Strong degradations come to generated images alone: a picture too
blurred, noisy or compressed to judge gets no benefit of the doubt, or blur would be a way to
raise the score.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from realbench.detection import perturbations

_R = Image.Resampling
_FILTERS = (_R.LANCZOS, _R.BICUBIC, _R.BILINEAR, _R.BOX, _R.HAMMING)
_MARGIN = 16  # two JPEG blocks, so that crops fall anywhere on the block grid


def _filter(rng: np.random.Generator) -> Image.Resampling:
    return _FILTERS[rng.integers(len(_FILTERS))]


def trace_view(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    matched_size: int = perturbations.MATCHED_SIZE,
) -> np.ndarray:
    """Cut a crop as it would look after the whole image was scaled to a random size.

    Half of the crops have the scale of the matched protocol (short side 512). What is smaller
    than the crop is continued by mirroring, as :func:`native_crops` does.

    Args:
        image: uint8 RGB (H, W, 3).
        size: side of the final view; the crop is a margin larger.
        matched_size: side of a picture in the matched protocol.

    Returns:
        uint8 RGB (size + 16, size + 16, 3).
    """
    side, crop = min(image.shape[:2]), size + _MARGIN
    if rng.random() < 0.25 and side > crop + 8:
        return _crop(image, crop, rng)
    if side < crop:
        if rng.random() < 0.5:
            image = _scaled(image, rng.uniform(0.8, 1.1), _R.LANCZOS)
        return _crop(image, crop, rng)
    target: float = matched_size
    if rng.random() < 0.5:
        low, high = matched_size * (300 / 512), matched_size * (640 / 512)
        target = math.exp(rng.uniform(math.log(low), math.log(max(side, high))))
    # Never scaled up by much: it would only blur, and mostly the sources that are small.
    scale = max(min(target / side, 1.1), crop / side)
    region = min(float(side), crop / scale)
    height, width = image.shape[:2]
    left, top = rng.uniform(0, width - region), rng.uniform(0, height - region)
    resample = _R.LANCZOS if rng.random() < 0.5 else _filter(rng)
    box = (left, top, left + region, top + region)
    return np.array(Image.fromarray(image).resize((crop, crop), resample, box=box))


def _scaled(image: np.ndarray, scale: float, resample: Image.Resampling) -> np.ndarray:
    height, width = image.shape[:2]
    new = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(image).resize(new, resample))


def _crop(image: np.ndarray, crop: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a crop anywhere, mirroring what is too small for it."""
    height, width = image.shape[:2]
    if height < crop or width < crop:
        short = ((0, max(0, crop - height)), (0, max(0, crop - width)), (0, 0))
        image = np.pad(image, short, mode="symmetric")
        height, width = image.shape[:2]
    top, left = rng.integers(height - crop + 1), rng.integers(width - crop + 1)
    return image[top : top + crop, left : left + crop]


def matched_view(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    matched_size: int = perturbations.MATCHED_SIZE,
) -> np.ndarray:
    """Cut a crop anywhere from the image in the matched protocol.

    An image too small for it is not scaled up, which would only blur it, but mirrored.

    Returns:
        uint8 RGB (size + 16, size + 16, 3).
    """
    whole = perturbations.center_square(image)
    if len(whole) >= min(size, matched_size):
        whole = perturbations.matched(image, matched_size)
    else:
        whole = perturbations.jpeg(np.ascontiguousarray(whole), perturbations.MATCHED_QUALITY)
    return _crop(whole, size + _MARGIN, rng)


def whole_view(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the whole picture, scaled to uint8 RGB (size, size, 3); nothing is drawn."""
    return np.array(Image.fromarray(image).resize((size, size), _R.BICUBIC))


def semantic_view(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a large part of the picture at a random shape and scale it to the view.

    Returns:
        uint8 RGB (size, size, 3), with brightness, contrast and colour changed at random.
    """
    return recolor(random_part(image, size, (0.55, 1.0), 0.35, rng), rng)


def random_part(
    image: np.ndarray,
    size: int,
    areas: tuple[float, float],
    stretch: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Cut a part of the picture anywhere and scale it, with a random filter, to a square.

    Args:
        image: uint8 RGB (H, W, 3).
        areas: least and greatest share of the picture's area.
        stretch: at most, the log of the square root of width to height is this far from 0.

    Returns:
        uint8 RGB (size, size, 3).
    """
    height, width = image.shape[:2]
    area, shape = rng.uniform(*areas), math.exp(rng.uniform(-stretch, stretch))
    w = min(width, width * math.sqrt(area * shape))
    h = min(height, height * math.sqrt(area / shape))
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    box = (left, top, left + w, top + h)
    return np.array(Image.fromarray(image).resize((size, size), _filter(rng), box=box))


def recolor(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, white balance and saturation at random."""
    x: np.ndarray = image.astype(np.float32)
    if rng.random() < 0.5:
        x = (x - 128) * rng.uniform(0.75, 1.25) + 128 + rng.uniform(-25, 25)
    if rng.random() < 0.5:
        x = x * rng.uniform(0.9, 1.1, 3)
    if rng.random() < 0.4:
        gray = x.mean(axis=2, keepdims=True)
        saturation = 0.0 if rng.random() < 0.15 else rng.uniform(0.5, 1.4)
        x = gray + (x - gray) * saturation
    return np.clip(x, 0, 255).astype(np.uint8)


def shared_processing(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What may happen to any published picture, drawn alike for both classes."""
    if rng.random() < 0.12:
        image = perturbations.blur(image, rng.uniform(0.2, 0.8))
    if rng.random() < 0.12:
        image = perturbations.noise(image, rng.uniform(0.5, 3), rng)
    if rng.random() < 0.06:
        image = perturbations.sharpen(image, int(rng.uniform(20, 80)))
    draw = rng.random()
    if draw < 0.30:
        return perturbations.jpeg(image, perturbations.MATCHED_QUALITY)
    if draw < 0.85:
        return perturbations.jpeg(image, int(rng.uniform(50, 98)))
    if draw < 0.92:
        return perturbations.webp(image, int(rng.uniform(50, 95)))
    return image


def degrade(
    image: np.ndarray,
    reduction: float,
    strongest_noise: float,
    rng: np.random.Generator,
    weakest_noise: float | None = None,
) -> np.ndarray:
    """Blur, noise, compress, scale or sharpen strongly; one or two of them.

    Args:
        reduction: how much smaller the view is than a 512-pixel image, which is the scale at
            which the strengths are meant.
        strongest_noise: its standard deviation at most, in 8-bit levels, above 2.
        weakest_noise: at least; strengths are then drawn by their logarithm, else evenly from 2.
    """
    for _ in range(1 + int(rng.random() < 0.25)):
        kind = rng.integers(5)
        if kind == 0:
            image = perturbations.blur(image, rng.uniform(0.7, 3.2) / reduction)
        elif kind == 1:
            image = noisy(image, reduction, (weakest_noise, strongest_noise), rng)
        elif kind == 2:
            image = perturbations.jpeg(image, int(rng.uniform(25, 75)))
        elif kind == 3:
            image = coarser(image, (1.3 / reduction**0.7, 4 / reduction**0.7), rng)
        else:
            strength = int(rng.uniform(60, 300))
            image = perturbations.sharpen(image, strength, rng.uniform(0.6, 2.5))
    return image


def coarser(
    image: np.ndarray, between: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Scale down by a factor from ``between``, of at least 1.1, and up again."""
    factor = max(1.1, rng.uniform(*between))
    return perturbations.down_up(image, factor, down=_filter(rng), up=_filter(rng))


def noisy(
    image: np.ndarray,
    reduction: float,
    between: tuple[float | None, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Add Gaussian noise; ``reduction`` and the strengths are those of :func:`degrade`."""
    weakest, strongest = between
    if weakest is None:
        sigma = rng.uniform(2, strongest)
    else:
        sigma = math.exp(rng.uniform(math.log(weakest), math.log(strongest)))
    return perturbations.noise(image, sigma / reduction, rng)


def synthetic(size: int, rng: np.random.Generator) -> np.ndarray:
    """Make a picture of nothing: flat colour, gradient, noise, blobs, grid; grain on some.

    Returns:
        uint8 RGB (size, size, 3).
    """
    image: np.ndarray
    kind = rng.integers(6)
    if kind == 0:
        image = np.full((size, size, 3), rng.integers(0, 256, 3), np.float32)
    elif kind == 1:
        image = _gradient(size, rng)
    elif kind == 2:
        channels = 3 if rng.random() < 0.7 else 1
        image = rng.normal(rng.uniform(60, 190), rng.uniform(5, 80), (size, size, channels))
        image = image * np.ones(3)
    elif kind == 3:
        image = rng.uniform(0, 255, (size, size, 3))
    elif kind == 4:
        image = _blobs(size, rng)
    else:
        image = _grid(size, rng)
    if kind != 3 and rng.random() < 0.3:
        image = image + rng.normal(0, rng.uniform(1, 20), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:size, 0:size] / size
    t = (np.cos(angle) * x + np.sin(angle) * y)[..., None]
    if rng.random() < 0.3:
        t = np.hypot(x - rng.random(), y - rng.random())[..., None]
    first = rng.integers(0, 256, 3)
    # Often a slight one: a crop sees but a part of a gradient.
    reach = rng.random() ** 2
    return first + (rng.integers(0, 256, 3) - first) * reach * t


def _blobs(size: int, rng: np.random.Generator) -> np.ndarray:
    cells = int(rng.integers(2, 40))
    grid = rng.integers(0, 256, (cells, cells, 3), np.uint8)
    resample = (_R.NEAREST, _R.BILINEAR, _R.BICUBIC)[rng.integers(3)]
    return np.array(Image.fromarray(grid).resize((size, size), resample), np.float32)


def _grid(size: int, rng: np.random.Generator) -> np.ndarray:
    """One small cell again and again, here stronger and there weaker: what broken decoders make.

    Transposed convolutions whose strides overlap leave such patterns (Odena et al. 2016, Distill,
    Deconvolution and Checkerboard Artifacts).
    """
    side = int(rng.integers(2, 17))
    cell = rng.uniform(-1, 1, (side, side, 3 if rng.random() < 0.7 else 1))
    count = size // side + 1
    cells = rng.random((count, count, 1)) ** rng.uniform(0, 6)  # alike, or few that stand out
    strength = cells.repeat(side, axis=0).repeat(side, axis=1)
    repeated = np.tile(cell, (count, count, 1)) * strength
    color = rng.uniform(0, 255, 3) * (rng.random(3) < 0.6) * rng.random()  # garish, or dark
    return color + rng.uniform(30, 200) * repeated[:size, :size]


def cut(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a view of ``size`` at a random offset and mirror half of the views."""
    top = rng.integers(image.shape[0] - size + 1)
    left = rng.integers(image.shape[1] - size + 1)
    view = image[top : top + size, left : left + size]
    return view[:, ::-1] if rng.random() < 0.5 else view
