"""Packages with detectors as pip leaves them: a package and its metadata in a folder."""

from __future__ import annotations

from pathlib import Path

from realbench.detection.plugins import GROUP

CARD = """name = "{name}"
level = "feature"
family = "{name}"
description = "Made in a test"
licence = "Apache-2.0"

[model]
architecture = "mean color"

[weights]
source = "none"
"""

CODE = """import torch

class Mean:
    def __init__(self, card):
        self.card = card
        self.name, self.level, self.fingerprint = card.name, card.level, card.fingerprint

    def prepare(self, image):
        return torch.full((1, 3, 2, 2), int(image.mean()), dtype=torch.uint8)

    def logits(self, batch):
        return batch.float().mean(dim=(1, 2, 3, 4)) / 32 - 4

    def to(self, device):
        return self

def build(card):
    return Mean(card)
"""


def make_package(
    site: Path,
    name: str,
    *,
    package: str | None = None,
    version: str = "1.0",
    code: str = CODE,
    card: str | None = CARD,
    target: str = "build",
) -> Path:
    """Put a package with a detector called ``name`` into ``site``; returns its folder.

    Args:
        package: the module's and the distribution's name, by default ``name`` with underscores.
        card: its text, with ``{name}`` in it, or none.
        target: of the entry point, within the package.
    """
    package = package or name.replace("-", "_")
    folder = site / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(code)
    if card is not None:
        (folder / "card.toml").write_text(card.replace("{name}", name))
    info = site / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {package}:{target}\n")
    return folder
