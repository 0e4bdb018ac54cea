"""Semantic level: the whole picture at low resolution, where pixel traces are gone."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from realbench.detection.cards import Card
from realbench.detection.families.network import load_network
from realbench.detection.families.views import ViewsDetector

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
_IN_TORCH = {Image.Resampling.BICUBIC: "bicubic", Image.Resampling.BILINEAR: "bilinear"}


def whole_image(image: np.ndarray, size: int, resample: Image.Resampling) -> np.ndarray:
    """Return the image, whatever its shape, as one view: uint8 (1, size, size, 3)."""
    if resample not in _IN_TORCH:
        return np.array(Image.fromarray(image).resize((size, size), resample))[None]
    # The same filter as Pillow's (values differ by 1 at most), about ten times as fast.
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    mode = _IN_TORCH[resample]
    small = functional.interpolate(pixels, size=(size, size), mode=mode, antialias=True)
    return small.permute(0, 2, 3, 1).contiguous().numpy()


def build(card: Card) -> ViewsDetector:
    """Build the detector of a ``whole-image`` card."""
    network = load_network(card)
    size, resample = card.input.size, _FILTERS[card.input.resize]
    return ViewsDetector(
        card,
        network,
        lambda image: whole_image(image, size, resample),
        preparation=("whole-image", size, resample),
    )
