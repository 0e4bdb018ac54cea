"""Feature level: crops at native resolution, never resized, judged by their noise residual."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.cards import Card
from realbench.detection.families.views import ViewsDetector
from realbench.detection.weights import load_weights

_WINDOW = 5  # two box means of 5 px: a smooth low-pass of 9 px


class ResidualNetwork(nn.Module):
    """A timm classifier on the high-pass residual of its input; one output, a logit of P(real).

    The residual (pixel minus a 9-pixel local mean) keeps noise, texture and up-sampling traces
    and drops brightness, colour and large shapes, that is, most of what an image shows.

    Input: float RGB in [0, 255], shape (n, 3, S, S); output: logits of shape (n,).
    """

    def __init__(self, architecture: str, gain: float = 4.0, **options: Any) -> None:
        super().__init__()
        self.backbone = timm.create_model(architecture, num_classes=1, **options)
        self.gain = gain / 255

    def residual(self, x: Tensor) -> Tensor:
        pad = (_WINDOW // 2) * 2
        low = functional.pad(x, (pad, pad, pad, pad), mode="reflect")
        low = functional.avg_pool2d(functional.avg_pool2d(low, _WINDOW, 1), _WINDOW, 1)
        return (x - low) * self.gain

    def forward(self, x: Tensor) -> Tensor:
        residual = self.residual(x).contiguous(memory_format=torch.channels_last)
        return self.backbone(residual).squeeze(1)


def crop_offsets(length: int, size: int, count: int) -> list[int]:
    """Return ``count`` evenly spread starts of crops of ``size`` along ``length`` pixels."""
    centers = ((i + 0.5) * length / count for i in range(count))
    return [int(min(max(0, round(c - size / 2)), max(0, length - size))) for c in centers]


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
    network = ResidualNetwork(card.model.architecture, **card.model.options)
    load_weights(network, card)
    size = card.input.size
    return ViewsDetector(card, network, lambda image: native_crops(image, size, per_side))
