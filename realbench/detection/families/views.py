"""The part that families share: views of an image through one network, averaged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from functools import cache
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.cards import Card
from realbench.detection.specs import Level
from realbench.errors import RealBenchWarning


def reduced_precision(device: str) -> AbstractContextManager[object]:
    """Return a context in which products of matrices are computed in bfloat16.

    It does nothing on processors that would have to emulate it.

    Args:
        device: the type of the device that computes: ``"cpu"``, ``"cuda"``, ...
    """
    native = has_bfloat16(device)
    return torch.autocast(device if native else "cpu", torch.bfloat16, enabled=native)


def has_bfloat16(device: str) -> bool:
    """Whether a type of device multiplies in bfloat16 by itself, so that it is quick there."""
    return device == "cuda" or (device == "cpu" and _cpu_has_bfloat16())


@cache
def _cpu_has_bfloat16() -> bool:
    # Torch has no public name for this; without the question there is no speed-up, and no harm.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    known = (getattr(torch.cpu, name, None) for name in names)
    return any(ask() for ask in known if ask is not None)


# Views in one pass on a CPU; larger passes only take more memory.
_VIEWS_A_PASS = 8

# Detail below which a picture shows nothing: flat colors and gradients have at most 0.5, the least
# detailed of 260 photographs and generated images 1.3 (matched protocol).
_LEAST_DETAIL = 0.7
_BLANK_LOGIT = -20.0

Prepare = Callable[[np.ndarray], np.ndarray]


class ViewsDetector:
    """A network that scores views of an image; the image's logit is their mean.

    Args:
        network: maps uint8-valued float RGB of shape (n, 3, S, S) to logits of shape (n,).
        prepare: maps uint8 RGB (H, W, 3) to its views, uint8 of shape (views, S, S, 3).
        embedded: whether the network is one of this project's: pictures of nothing get a set
            score. A published network computes what it did where it was published, unless its
            card asks for another precision.
        preparation: names what ``prepare`` does, see :mod:`realbench.detection.detector`.
    """

    def __init__(
        self,
        card: Card,
        network: nn.Module,
        prepare: Prepare,
        *,
        embedded: bool = True,
        preparation: Hashable = None,
    ) -> None:
        self.card = card
        self.name = card.name
        self.level: Level = card.level
        self.fingerprint = card.fingerprint
        self.network = network.eval().requires_grad_(False)
        self.embedded = embedded
        self.preparation = preparation
        self.network.to(memory_format=torch.channels_last)
        self._prepare = prepare
        self._device = torch.device("cpu")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, level={self.level!r}, {self._device})"

    @property
    def _reduced(self) -> bool:
        return self.card.model.precision == "bfloat16" and not self.embedded

    def prepare(self, image: np.ndarray) -> Tensor:
        """See :meth:`realbench.detection.detector.Detector.prepare`."""
        return torch.from_numpy(self._prepare(image)).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def logits(self, batch: Tensor) -> Tensor:
        """See :meth:`realbench.detection.detector.Detector.logits`."""
        fake = self.card.output.kind == "logit-fake"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._reduced):
            raw = raw_logits(self.network, batch, self._device, fake=fake, blanks=self.embedded)
        calibration = self.card.calibration
        return ((raw + calibration.bias) / calibration.temperature).cpu()

    def to(self, device: str) -> Self:
        """See :meth:`realbench.detection.detector.Detector.to`."""
        self._device = torch.device(device)
        if self._reduced and device == "cpu" and not has_bfloat16(device):
            warnings.warn(
                f"{self.name}: this processor only imitates bfloat16, which is many times slower "
                "than float32: leave --precision out",
                RealBenchWarning,
                stacklevel=2,
            )
        self.network.to(self._device)
        return self


def raw_logits(
    network: nn.Module,
    batch: Tensor,
    device: torch.device,
    *,
    fake: bool = False,
    blanks: bool = True,
) -> Tensor:
    """Return the uncalibrated logits of P(real): the mean over the views of each image.

    Args:
        network: as for :class:`ViewsDetector`, on ``device``.
        batch: uint8 of shape (n, views, 3, S, S), on any device.
        fake: whether the network says P(fake).
        blanks: whether pictures of nothing get a set score, which is very low.

    Returns:
        float32 of shape (n,), on ``device``.
    """
    views = batch.flatten(0, 1)
    at_once = _VIEWS_A_PASS if device.type == "cpu" else len(views)

    def one_pass(part: Tensor) -> Tensor:
        floats = part.to(device, non_blocking=True).float()
        return network(floats.contiguous(memory_format=torch.channels_last))

    passes = [one_pass(part) for part in views.split(at_once)]
    mean = torch.cat(passes).float().view(batch.shape[0], -1).mean(dim=1)
    mean = -mean if fake else mean
    if not blanks:
        return mean
    return mean.masked_fill(_is_blank(batch).to(device), _BLANK_LOGIT)


def _is_blank(batch: Tensor) -> Tensor:
    """Tell which images show nothing at all: one color, or a smooth gradient.

    No camera took such a picture and no network was trained to judge it, so its score is set.
    Detail is the mean absolute second difference of green over cells of 4 x 4 pixels.

    Args:
        batch: uint8 of shape (n, views, 3, S, S).

    Returns:
        bool of shape (n,).
    """
    cells = functional.avg_pool2d(batch[:, :, 1].float(), 4)
    across = (2 * cells[..., 1:-1] - cells[..., :-2] - cells[..., 2:]).abs()
    down = (2 * cells[..., 1:-1, :] - cells[..., :-2, :] - cells[..., 2:, :]).abs()
    detail = (across.mean(dim=(1, 2, 3)) + down.mean(dim=(1, 2, 3))) / 2
    return detail < _LEAST_DETAIL
