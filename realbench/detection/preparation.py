"""Prepares an image for several detectors, the work that they share once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from realbench.detection.detector import Detector


def prepare_for(
    detectors: Mapping[str, Detector], names: Iterable[str], image: np.ndarray
) -> dict[str, torch.Tensor]:
    """Return the input of each detector for one image.

    A detector may have an attribute ``preparation``, which names what its ``prepare`` does with
    an image. Detectors with an equal one, such as several heads on one backbone, get the same
    tensor, which they must not change; None means a preparation like no other.

    Args:
        detectors: by name.
        names: those that the image is prepared for.
        image: uint8 RGB of shape (H, W, 3).

    Returns:
        uint8 tensors of shape (views, 3, S, S), by name.
    """
    shared: dict[Hashable, torch.Tensor] = {}
    prepared: dict[str, torch.Tensor] = {}
    for name in names:
        detector = detectors[name]
        kind: Hashable = getattr(detector, "preparation", None)
        if kind is None:
            prepared[name] = detector.prepare(image)
            continue
        if kind not in shared:
            shared[kind] = detector.prepare(image)
        prepared[name] = shared[kind]
    return prepared
