"""Cards of the project, changed for a test: a smaller network, other labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from realbench.content import content_path
from realbench.detection.detector import Detector


def changed_card(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    """Write the project's card ``name`` with some texts replaced, and return its folder."""
    text = (content_path("detectors") / name / "card.toml").read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "card.toml").write_text(text)
    return place


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    """Return pictures of smooth color with texture, uint8 RGB, of (height, width) each."""
    made = []
    for seed, (height, width) in enumerate(sizes):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:height, 0:width][..., None] / 60
        waves = 128 + 90 * np.sin(x * rng.uniform(1, 5, 3) + y * rng.uniform(1, 5, 3))
        noise = rng.normal(0, 12, (height, width, 3))
        made.append(np.clip(waves + noise, 0, 255).astype(np.uint8))
    return made


def logits(detector: Detector, images: list[np.ndarray]) -> np.ndarray:
    """Score images as the pipeline does: prepared one by one, together in a batch."""
    import torch

    batch = torch.stack([detector.prepare(image) for image in images])
    assert batch.dtype == torch.uint8
    return detector.logits(batch).numpy()
