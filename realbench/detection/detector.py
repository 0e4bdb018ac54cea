"""What a detector is to the rest of the project."""

from __future__ import annotations

import ctypes
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import torch

    from realbench.detection.cards import Card
    from realbench.detection.specs import Level


@runtime_checkable
class Detector(Protocol):
    """Tells how likely an image is a real photograph; higher is more real, with no exception.

    ``prepare`` runs on the decoding threads and ``logits`` where the network lives, so an image
    is decoded once for all detectors and only small uint8 tensors wait in the queues.
    """

    @property
    def name(self) -> str:
        """The card's name, a column of ``scores.csv``."""

    @property
    def level(self) -> Level:
        """``"feature"`` (traces) or ``"semantic"`` (content)."""

    @property
    def card(self) -> Card: ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that decides a score: card, weights, calibration."""

    def prepare(self, image: np.ndarray) -> torch.Tensor:
        """Turn one decoded image into the network's input.

        Args:
            image: uint8 RGB of shape (H, W, 3), any size from 1 x 1.

        Returns:
            uint8 tensor of shape (views, 3, S, S), the same for every image; on the CPU.
        """

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Score a batch of prepared images.

        Args:
            batch: uint8 tensor of shape (n, views, 3, S, S), on any device.

        Returns:
            float32 tensor of shape (n,): the calibrated logit of P(real), on the CPU.
        """

    def to(self, device: str) -> Self:
        """Move the network to ``device`` and return the detector."""


def prepare_for(
    detectors: Mapping[str, Detector], names: Iterable[str], image: np.ndarray
) -> dict[str, torch.Tensor]:
    """Return the input of each detector for one image.

    A detector may have an attribute ``preparation``, which names what its ``prepare`` does with
    an image. Detectors with an equal one, such as several heads on one backbone, get the same
    tensor, which they must not change; None means a preparation like no other.

    Args:
        detectors: by name.
        names: those that the image, uint8 RGB (H, W, 3), is prepared for.

    Returns:
        uint8 tensors of shape (views, 3, S, S), by name.
    """
    shared: dict[Hashable, torch.Tensor] = {}
    prepared: dict[str, torch.Tensor] = {}
    for name in names:
        detector = detectors[name]
        kind: Hashable = getattr(detector, "preparation", None) or name
        if kind not in shared:
            shared[kind] = detector.prepare(image)
        prepared[name] = shared[kind]
    return prepared


_SIGNS = ("out of memory", "not enough memory", "can't allocate memory")


def is_memory_shortage(error: BaseException) -> bool:
    """Whether an error of torch, on a GPU or a CPU, or of Python says that memory is short."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS)


_MIB = 2**20
# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8


def keep_freed_memory() -> None:
    """Let glibc keep what a pass frees for the next one, in this process from now on.

    By default it hands the large blocks of every layer back to the system, and the page faults of
    fetching them anew take up to half of a pass's time. Call it before threads start: one arena
    is shared, since those of threads are too small for such blocks. Blocks above 256 MiB, such as
    a decoded picture of 100 megapixels, are returned as ever. No effect without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_ARENA_MAX, 1)
    if not mallopt(_M_MMAP_THRESHOLD, 256 * _MIB):  # too much for glibc before 2.35
        mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 1024 * _MIB)
