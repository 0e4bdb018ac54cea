"""Detectors made in a test: folders with a tiny network of random weights, and one without."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import save_file

from realbench.detection.cards import Card
from realbench.detection.families.embedded import TimmNetwork
from realbench.detection.specs import Level

ARCHITECTURE = "test_efficientnet"  # timm's own network for tests

CARD = """name = "{name}"
level = "{level}"
family = "{family}"
description = "A tiny detector with random weights"
licence = "Apache-2.0"

[input]
size = 64
views = {views}

[model]
architecture = "{architecture}"

[weights]
file = "weights.safetensors"
sha256 = "{sha256}"
"""


def make_card(folder: Path, name: str, *, level: str = "semantic", seed: int = 0) -> Path:
    """Write a card folder ``folder/name`` with its weights and return it."""
    place = folder / name
    place.mkdir(parents=True)
    torch.manual_seed(seed)
    network = TimmNetwork(ARCHITECTURE)
    # A head that spreads its logits, so that scores of different images differ.
    torch.nn.init.normal_(network.backbone.classifier.weight, std=3.0)
    weights = place / "weights.safetensors"
    save_file(network.state_dict(), weights)
    semantic = level == "semantic"
    text = CARD.format(
        name=name,
        level=level,
        family="whole-image" if semantic else "native-crops",
        views=1 if semantic else 4,
        architecture=ARCHITECTURE,
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
    )
    (place / "card.toml").write_text(text)
    return place


class FakeDetector:
    """A detector without a network: the logit is a known function of an image's mean color.

    Attributes:
        batches: how many images each call of :meth:`logits` had.
        prepared: how many images were prepared.
    """

    def __init__(self, name: str, level: Level = "semantic", *, sign: float = 1.0) -> None:
        self.name = name
        self.level: Level = level
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()
        self.sign = sign
        self.batches: list[int] = []
        self.prepared = 0
        self._lock = threading.Lock()

    @property
    def card(self) -> Card:
        raise NotImplementedError

    def expected(self, image: np.ndarray) -> float:
        """Return the logit of an image, uint8 (H, W, 3)."""
        return self.sign * (float(np.rint(image.mean())) - 128) / 32

    def prepare(self, image: np.ndarray) -> torch.Tensor:
        with self._lock:
            self.prepared += 1
        return torch.full((1, 3, 2, 2), int(np.rint(image.mean())), dtype=torch.uint8)

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        with self._lock:
            self.batches.append(len(batch))
        return self.sign * (batch.float().mean(dim=(1, 2, 3, 4)) - 128) / 32

    def to(self, device: str) -> Self:
        return self
