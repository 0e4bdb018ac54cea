"""Similarity of an image and its prompt in a CLIP model of open_clip.

CLIP score (Hessel et al., EMNLP 2021), Long-CLIP (Zhang et al., ECCV 2024) and HPS v2 (Wu et al.,
2023) are this cosine; they differ in the model, the preprocessing and the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from realbench.detection.families.clip import clip_model
from realbench.quality.cards import MeasureCard
from realbench.quality.measure import normalized


class Similarity:
    """The cosine of the embeddings of an image and of its prompt, in [-1, 1]."""

    def __init__(self, card: MeasureCard, model: Any) -> None:
        import open_clip

        self._card = card
        self._model = model
        self._tokenizer = open_clip.get_tokenizer(
            card.model.architecture, context_length=model.context_length
        )
        self._device = torch.device("cpu")

    @property
    def context(self) -> int:
        """See :class:`~realbench.quality.measure.Network`."""
        return int(self._model.context_length)

    def length(self, prompt: str) -> int:
        """See :class:`~realbench.quality.measure.Network`."""
        return len(self._tokenizer.encode(prompt)) + 2  # start and end

    def prepare(self, image: np.ndarray) -> Tensor:
        """See :class:`~realbench.quality.measure.Network`."""
        return normalized(image, self._card.input)

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """See :class:`~realbench.quality.measure.Network`."""
        each = list(dict.fromkeys(prompts))  # images of one prompt share its embedding
        texts = self._model.encode_text(self._tokenizer(each).to(self._device), normalize=True)
        own = texts[[each.index(prompt) for prompt in prompts]]
        return (self._model.encode_image(pixels, normalize=True) * own).sum(dim=1)

    def to(self, device: str) -> None:
        """See :class:`~realbench.quality.measure.Network`."""
        self._device = torch.device(device)
        self._model.to(self._device)


def build(card: MeasureCard) -> Similarity:
    """Build the network of a ``clip-similarity`` card: its ``weights`` are the CLIP model's."""
    return Similarity(card, clip_model(card, "weights"))
