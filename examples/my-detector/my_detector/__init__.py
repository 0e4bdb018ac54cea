"""A detector for RealBench that needs no weights: how much fine detail does a picture hold?

A camera's sensor adds noise at every frequency. Many generators paint smooth surfaces, so the
share of energy at high spatial frequencies is lower in their pictures. Compression, scaling and
blur lower it too: this is a worked example of a plug-in, not a detector to rely on.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch

from realbench.detection.cards import Card


class HighFrequency:
    """Log10 of the share of a picture's energy above a spatial frequency, as a logit of P(real)."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.name, self.level, self.fingerprint = card.name, card.level, card.fingerprint
        size = card.input.size
        radius = torch.fft.fftfreq(size)[:, None].hypot(torch.fft.rfftfreq(size)[None])
        self.fine = radius > card.model.options["cutoff"]
        self.window = torch.hann_window(size, periodic=False).outer(
            torch.hann_window(size, periodic=False)
        )
        self.device = torch.device("cpu")

    def prepare(self, image: np.ndarray) -> torch.Tensor:
        """Return the middle of a picture, never scaled: uint8 (1, 3, size, size)."""
        size = self.card.input.size
        lacking = [max(0, size - side) for side in image.shape[:2]]
        if any(lacking):
            image = np.pad(image, [(0, lacking[0]), (0, lacking[1]), (0, 0)], mode="symmetric")
        top, left = ((side - size) // 2 for side in image.shape[:2])
        crop = np.ascontiguousarray(image[top : top + size, left : left + size])
        return torch.from_numpy(crop).permute(2, 0, 1)[None]

    @torch.inference_mode()
    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Score uint8 pictures (n, 1, 3, size, size); returns float32 (n,)."""
        grey = batch.to(self.device).float().mean(dim=(1, 2))
        grey = (grey - grey.mean(dim=(1, 2), keepdim=True)) * self.window
        power = torch.fft.rfft2(grey).abs().square()
        share = power[:, self.fine].sum(dim=1) / power.sum(dim=(1, 2)).clamp(min=1e-6)
        raw = share.clamp(min=1e-8).log10()
        calibration = self.card.calibration
        return ((raw + calibration.bias) / calibration.temperature).cpu()

    def to(self, device: str) -> Self:
        self.device = torch.device(device)
        self.fine, self.window = self.fine.to(device), self.window.to(device)
        return self


def build(card: Card) -> HighFrequency:
    """What the entry point names: takes the card beside this file, returns the detector."""
    return HighFrequency(card)
