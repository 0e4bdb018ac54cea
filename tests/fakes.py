"""Real detector folders, made in a test: a tiny timm network with random weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from realbench.detection.families.network import TimmNetwork

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
