"""What a loaded quality measure is, and how one is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from realbench.detection.families.published import letterbox, view
from realbench.detection.specs import InputSpec
from realbench.errors import RealBenchError, UsageError
from realbench.quality.cards import MeasureCard

FAMILIES = {
    "clip-similarity": "realbench.quality.similarity",
    "clip-preference": "realbench.quality.preference",
    "clip-aesthetic": "realbench.quality.aesthetic",
}


class Network(Protocol):
    """What a family builds of a card."""

    def prepare(self, image: np.ndarray) -> Tensor:
        """Turn uint8 RGB (H, W, 3) into normalised float32 (3, S, S)."""

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the unscaled scores (n,) of pixels (n, 3, S, S); prompts may be empty texts."""

    def length(self, prompt: str) -> int:
        """Return the number of tokens that the network would need for ``prompt``."""

    @property
    def context(self) -> int:
        """Return the number of tokens that it reads; 0 where it reads none."""

    def to(self, device: str) -> Any:
        """Move it to ``device``."""


class Measure:
    """A loaded measure: scores images, with their prompts where it needs them.

    Args:
        card: says scale and floor.
        network: of its family.
    """

    def __init__(self, card: MeasureCard, network: Network) -> None:
        self.card = card
        self.name = card.name
        self._network = network
        self._device = torch.device("cpu")

    def prepare(self, image: np.ndarray) -> Tensor:
        """Return what the network sees of an image: float32 (3, S, S), on the CPU.

        Args:
            image: uint8 RGB of shape (H, W, 3), any size from 1 x 1.
        """
        return self._network.prepare(image)

    @torch.inference_mode()
    def scores(self, pixels: Tensor, prompts: Sequence[str]) -> np.ndarray:
        """Score a batch; higher is better, on the measure's own scale.

        Args:
            pixels: float32 (n, 3, S, S), of :meth:`prepare`.
            prompts: n of them; empty texts where the measure needs none.

        Returns:
            float64 of shape (n,).
        """
        raw = self._network.score(pixels.to(self._device), prompts)
        scores = raw.double().cpu().numpy() * self.card.scale
        return scores if self.card.floor is None else np.maximum(scores, self.card.floor)

    def cuts(self, prompt: str) -> bool:
        """Whether the network reads the beginning of ``prompt`` alone, since it is too long."""
        return 0 < self._network.context < self._network.length(prompt)

    def to(self, device: str) -> Self:
        """Move the network to ``device`` and return the measure."""
        self._device = torch.device(device)
        self._network.to(device)
        return self


def load_measure(card: MeasureCard, device: str = "cpu") -> Measure:
    """Build and load the measure that ``card`` describes.

    Raises:
        UsageError: the card names an unknown family, or a network that cannot be built.
        RealBenchError: the weights are missing, altered or do not fit.
    """
    if card.family not in FAMILIES:
        raise UsageError(
            f"{card.path}: unknown family {card.family!r} (known: {', '.join(sorted(FAMILIES))})"
        )
    build: Callable[[MeasureCard], Network] = import_module(FAMILIES[card.family]).build
    try:
        return Measure(card, build(card)).to(device)
    except RealBenchError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError) as error:  # the libraries'
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{card.path}: the network {card.model.architecture!r} of its card cannot be built "
            f"({reason}): correct [model] and [input]"
        ) from error


def normalized(image: np.ndarray, spec: InputSpec) -> Tensor:
    """Return the view that a published network sees of an image, normalised: float32 (3, S, S).

    Args:
        image: uint8 RGB (H, W, 3).
        spec: how it is scaled, cut and normalised.

    Raises:
        UsageError: the card does not say how.
    """
    if spec.fit is None:
        raise UsageError("the card does not say how a picture becomes a view: give input.fit")
    if spec.fit == "letterbox":  # padded and scaled between levels, as its authors do
        pixels = letterbox(image, spec.size)
    else:
        pixels = torch.from_numpy(view(image, spec)[0]).permute(2, 0, 1).float()
    mean, std = (torch.tensor(triple).view(3, 1, 1) for triple in (spec.mean, spec.std))
    return (pixels / 255 - mean) / std
