"""The network that the embedded families share."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from realbench.detection.cards import Card
from realbench.detection.families.patch_statistics import PatchStatistics
from realbench.detection.specs import InputSpec, ModelSpec
from realbench.detection.weights import load_weights


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
