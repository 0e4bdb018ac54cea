"""Tiny detectors of the embedded families, with random weights, in folders of their own."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from realbench.detection.families.embedded import build_network
from realbench.detection.specs import InputSpec, ModelSpec
from realbench.files import file_sha256

MODELS = {
    "statistics": ('architecture = "deit_tiny_patch16_224"\nblocks = [0, 1]', (0, 1)),
    "convolutions": ('architecture = "test_efficientnet.r160_in1k"', ()),
}


def save_tiny_detector(folder: Path, kind: str, *, seed: int = 0, size: int = 32) -> Path:
    """Save patch statistics, or a classifier with batch norms, that sees one crop."""
    text, blocks = MODELS[kind]
    torch.manual_seed(seed)
    architecture = text.split('"')[1]
    network = build_network(
        ModelSpec(architecture=architecture, blocks=blocks), InputSpec(size=size)
    )
    if blocks:  # what is neither blank nor broken is judged by the first layer alone
        for guard in (network.taken, network.usual):
            torch.nn.init.zeros_(guard.weight)
            torch.nn.init.constant_(guard.bias, 6.0)
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    (folder / "card.toml").write_text(
        f"""name = "{folder.name}"
level = "feature"
family = "native-crops"
description = "tiny"
licence = "none"
citation = ""

[input]
size = {size}
views = 1
resize = "none"

[model]
{text}

[weights]
source = "local"
file = "weights.safetensors"
sha256 = "{file_sha256(folder / "weights.safetensors")}"

[output]
kind = "logit-real"

[calibration]
temperature = 1.5
bias = 0.25
"""
    )
    return folder
