"""Aesthetic predictors on CLIP's image features, such as LAION's (Schuhmann, 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.checkpoints import read_checkpoint
from realbench.detection.families.clip import image_encoder
from realbench.errors import RealBenchError, UsageError
from realbench.quality.cards import MeasureCard
from realbench.quality.measure import normalized


class Aesthetic:
    """Linear layers, one after the other, on image features of length 1; no prompt is read."""

    context = 0

    def __init__(self, card: MeasureCard, encoder: nn.Module, layers: nn.Sequential) -> None:
        self._card = card
        self._encoder = encoder
        self._layers = layers

    def length(self, prompt: str) -> int:
        """See :class:`~realbench.quality.measure.Network`."""
        return 0

    def prepare(self, image: np.ndarray) -> Tensor:
        """See :class:`~realbench.quality.measure.Network`."""
        return normalized(image, self._card.input)

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """See :class:`~realbench.quality.measure.Network`."""
        features = functional.normalize(self._encoder(pixels), dim=1)
        scores: Tensor = self._layers(features).squeeze(1)
        return scores

    def to(self, device: str) -> None:
        """See :class:`~realbench.quality.measure.Network`."""
        self._encoder.to(device)
        self._layers.to(device)


def build(card: MeasureCard) -> Aesthetic:
    """Build the network of a ``clip-aesthetic`` card.

    Its ``backbone`` is the CLIP model, its ``weights`` the layers: one linear layer, or several
    whose names hold their numbers (``layers.0.weight``, ``layers.2.weight``, ...) with nothing
    but dropout between them.
    """
    if card.backbone is None:
        raise UsageError(f"{card.path}: a clip-aesthetic card says where CLIP is: [backbone]")
    layers = _layers(card)  # before the large file, so that a wrong small one shows at once
    encoder = image_encoder(card, "backbone")
    first = layers[0]
    assert isinstance(first, nn.Linear)
    width = getattr(encoder, "output_dim", first.in_features)
    if width != first.in_features:
        raise RealBenchError(
            f"{card.weights_path} takes {first.in_features} features, but "
            f"{card.model.architecture!r} of its card gives {width}"
        )
    return Aesthetic(card, encoder, layers)


def _layers(card: MeasureCard) -> nn.Sequential:
    card.check_weights()
    spec = card.weights
    state = read_checkpoint(card.weights_path, key=spec.key, strip_prefix=spec.strip_prefix)
    stems = {name.rpartition(".")[0] for name in state}
    numbers = {stem: [int(part) for part in stem.split(".") if part.isdigit()] for stem in stems}
    layers: list[nn.Linear] = []
    for stem in sorted(stems, key=lambda stem: numbers[stem]):
        parts = {
            name.rpartition(".")[2]: value.float()
            for name, value in state.items()
            if name.rpartition(".")[0] == stem
        }
        if set(parts) != {"weight", "bias"} or parts["weight"].ndim != 2:
            raise RealBenchError(f"{card.weights_path}: {stem or 'it'} is no linear layer")
        outputs, inputs = parts["weight"].shape
        if layers and layers[-1].out_features != inputs:
            raise RealBenchError(
                f"{card.weights_path}: {stem} takes {inputs} values, but the layer before it "
                f"gives {layers[-1].out_features}"
            )
        layer = nn.Linear(inputs, outputs)
        layer.load_state_dict(parts)
        layers.append(layer)
    if layers[-1].out_features != 1:
        raise RealBenchError(f"{card.weights_path}: its last layer must give one score")
    return nn.Sequential(*layers).eval().requires_grad_(False)
