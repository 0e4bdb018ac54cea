"""Feature level: crops at native resolution, never resized, so that pixel traces are intact."""

from __future__ import annotations

import math

import numpy as np

from realbench.detection.cards import Card
from realbench.detection.families.network import load_network
from realbench.detection.families.views import ViewsDetector
from realbench.errors import UsageError


def crop_offsets(length: int, size: int, count: int) -> list[int]:
    """Return ``count`` starts of crops of ``size`` along ``length`` pixels.

    They are the middles of as many equal parts of where a crop can start, so the crops lie nearer
    to the centre than to the edges, which are often out of focus.
    """
    room = max(0, length - size)
    return [int((2 * i + 1) * room / (2 * count)) for i in range(count)]


def native_crops(image: np.ndarray, size: int, per_side: int) -> np.ndarray:
    """Cut a ``per_side`` by ``per_side`` grid of crops, without resizing.

    Args:
        image: uint8 RGB (H, W, 3); a side below ``size`` is continued by mirroring.
        size: side of a crop in pixels.

    Returns:
        uint8 of shape (per_side², size, size, 3).
    """
    height, width = image.shape[:2]
    if height < size or width < size:
        short = ((0, max(0, size - height)), (0, max(0, size - width)), (0, 0))
        image = np.pad(image, short, mode="symmetric")
        height, width = image.shape[:2]
    rows = crop_offsets(height, size, per_side)
    columns = crop_offsets(width, size, per_side)
    return np.stack([image[y : y + size, x : x + size] for y in rows for x in columns])


def build(card: Card) -> ViewsDetector:
    """Build the detector of a ``native-crops`` card; its views are a square number."""
    per_side = math.isqrt(card.input.views)
    if per_side**2 != card.input.views:
        raise UsageError(f"{card.path}: input.views must be a square number (a grid of crops)")
    network = load_network(card)
    size = card.input.size
    return ViewsDetector(card, network, lambda image: native_crops(image, size, per_side))
