"""Semantic level: the whole picture at low resolution, where pixel traces are gone."""

from __future__ import annotations

from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from realbench.detection.cards import Card
from realbench.detection.families.views import ViewsDetector
from realbench.detection.weights import load_weights

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


class WholeImageNetwork(nn.Module):
    """A timm classifier with one output, the logit of P(real).

    Input: float RGB in [0, 255], shape (n, 3, S, S); output: logits of shape (n,).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: str,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
        **options: Any,
    ) -> None:
        super().__init__()
        self.backbone = timm.create_model(architecture, num_classes=1, **options)
        for name, triple in (("mean", mean), ("std", std)):
            value = torch.tensor(triple).view(1, 3, 1, 1) * 255
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone((x - self.mean) / self.std).squeeze(1)


def whole_image(image: np.ndarray, size: int, resample: Image.Resampling) -> np.ndarray:
    """Return the image, whatever its shape, as one view: uint8 (1, size, size, 3)."""
    # reducing_gap: a fast box reduction first, which costs no visible quality at 3.
    picture = Image.fromarray(image).resize((size, size), resample, reducing_gap=3.0)
    return np.array(picture)[None]


def build(card: Card) -> ViewsDetector:
    """Build the detector of a ``whole-image`` card."""
    network = WholeImageNetwork(
        card.model.architecture, card.input.mean, card.input.std, **card.model.options
    )
    load_weights(network, card)
    size, resample = card.input.size, _FILTERS[card.input.resize]
    return ViewsDetector(card, network, lambda image: whole_image(image, size, resample))
