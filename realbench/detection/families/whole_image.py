"""Semantic level: the whole picture at low resolution, where pixel traces are gone."""

from __future__ import annotations

import numpy as np
from PIL import Image

from realbench.detection.cards import Card
from realbench.detection.families.network import TimmNetwork
from realbench.detection.families.views import ViewsDetector
from realbench.detection.weights import load_weights

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


def whole_image(image: np.ndarray, size: int, resample: Image.Resampling) -> np.ndarray:
    """Return the image, whatever its shape, as one view: uint8 (1, size, size, 3)."""
    # reducing_gap: a fast box reduction first, which costs no visible quality at 3.
    picture = Image.fromarray(image).resize((size, size), resample, reducing_gap=3.0)
    return np.array(picture)[None]


def build(card: Card) -> ViewsDetector:
    """Build the detector of a ``whole-image`` card."""
    network = TimmNetwork(
        card.model.architecture, card.input.mean, card.input.std, **card.model.options
    )
    load_weights(network, card)
    size, resample = card.input.size, _FILTERS[card.input.resize]
    return ViewsDetector(card, network, lambda image: whole_image(image, size, resample))
