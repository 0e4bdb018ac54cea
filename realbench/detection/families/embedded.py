"""The embedded families: timm's networks on the whole picture, or on crops at native resolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.cards import Card
from realbench.detection.families.patch_statistics import PatchStatistics
from realbench.detection.families.views import ViewsDetector
from realbench.detection.specs import InputSpec, ModelSpec
from realbench.detection.weights import load_weights
from realbench.errors import UsageError


class TimmNetwork(nn.Module):
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


def build_network(model: ModelSpec, input: InputSpec) -> nn.Module:
    """Build the network of a card with random weights: a classifier, or patch statistics."""
    if model.blocks:
        return PatchStatistics(
            model.architecture,
            input.size,
            model.blocks,
            class_token=bool(model.class_token),
            tuned=model.tuned,
            **model.options,
        )
    return TimmNetwork(model.architecture, input.mean, input.std, **model.options)


def load_network(card: Card) -> nn.Module:
    """Build the network that ``card`` describes and load its weights.

    Raises:
        RealBenchError: the weights are missing, altered or do not fit.
    """
    network = build_network(card.model, card.input)
    load_weights(network, card)
    return network


def _fast_network(card: Card) -> nn.Module:
    network = load_network(card)
    return network.ready() if isinstance(network, PatchStatistics) else network


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


def build_native_crops(card: Card) -> ViewsDetector:
    """Build the detector of a ``native-crops`` card; its views are a square number."""
    per_side = math.isqrt(card.input.views)
    if per_side**2 != card.input.views:
        raise UsageError(f"{card.path}: input.views must be a square number (a grid of crops)")
    network = _fast_network(card)
    size = card.input.size
    return ViewsDetector(card, network, lambda image: native_crops(image, size, per_side))


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


def build_whole_image(card: Card) -> ViewsDetector:
    """Build the detector of a ``whole-image`` card."""
    network = _fast_network(card)
    size, resample = card.input.size, _FILTERS[card.input.resize]
    return ViewsDetector(
        card,
        network,
        lambda image: whole_image(image, size, resample),
        preparation=("whole-image", size, resample),
    )
