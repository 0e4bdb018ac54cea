"""How work is shared out: threads, and images a batch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from realbench.detection.detector import is_memory_shortage

if TYPE_CHECKING:
    from realbench.detection.detector import Detector

SMALLEST, LARGEST = 8, 512  # images
# A batch twice as large must be this much faster per image to be worth its memory.
WORTHWHILE = 1.05


def find_batch_sizes(
    detectors: Mapping[str, Detector], device: str, *, most: int = LARGEST
) -> dict[str, int]:
    """Return the images a batch for each detector on ``device``; nothing for a CPU.

    Each scores blank images in batches that double, see :func:`best_batch`.

    Args:
        device: where they are, such as ``"cuda:0"``.
        most: no larger ones are tried, such as the number of images that there are.
    """
    if not device.startswith("cuda"):
        return {}
    import torch

    def timed(detector: Detector) -> Callable[[int], float]:
        one = detector.prepare(np.zeros((64, 64, 3), np.uint8))

        def seconds(images: int) -> float:
            batch = one[None].expand(images, *one.shape).contiguous()
            detector.logits(batch)  # sets up what depends on the shape
            start = time.perf_counter()
            detector.logits(batch)  # its result is on the CPU, so the time is whole
            return time.perf_counter() - start

        return seconds

    sizes = {name: best_batch(timed(one), most=most) for name, one in detectors.items()}
    torch.cuda.empty_cache()
    return sizes


def best_batch(seconds: Callable[[int], float], *, most: int = LARGEST) -> int:
    """Return the size of batch that is fast and fits, from 8 images on, a power of 2.

    Sizes double until memory is short or images are hardly scored faster. Where memory was short,
    half of what fitted is returned: other detectors, and images of other shapes, need some too.

    Args:
        seconds: scores a batch of that many images and returns how long it took; raises what
            torch does when memory is short.
        most: the largest size to try, at least 1.
    """
    size = fitted = 1 if most < SMALLEST else SMALLEST
    best = 0.0  # images a second
    while size <= most:
        speed = _speed(seconds, size)
        if speed is None:
            return max(1, fitted // 2) if best else _fitting(seconds, size // 2)
        if best and speed < WORTHWHILE * best:
            return fitted
        best, fitted, size = speed, size, 2 * size
    return fitted


def _fitting(seconds: Callable[[int], float], size: int) -> int:
    """Return the largest of ``size``, its half, its quarter and so on that fits; at least 1."""
    while size > 1 and _speed(seconds, size) is None:
        size //= 2
    return max(1, size)


def _speed(seconds: Callable[[int], float], size: int) -> float | None:
    try:
        return size / max(seconds(size), 1e-9)
    except (RuntimeError, MemoryError) as error:
        if not is_memory_shortage(error):
            raise
        return None


@dataclass(frozen=True, slots=True)
class Layout:
    """Numbers of threads and of images a batch.

    Attributes:
        forwards: threads that run forward passes, each a batch of its own.
        threads_per_forward: threads that torch uses inside one pass.
        batch_size: images a batch at most.
        views: views of images that suffice for a batch; None if only images count.
    """

    forwards: int
    threads_per_forward: int
    batch_size: int
    views: int | None = None

    def images(self, views: int) -> int:
        """Return the images a batch for a detector that sees ``views`` views of each."""
        if self.views is None:
            return self.batch_size
        return max(1, min(self.batch_size, self.views // views))


def choose_layout(device: str, batch_size: int | None = None) -> Layout:
    """Choose the layout for ``device`` (not ``"auto"``: see ``scorer.choose_device``).

    On a CPU every forward pass runs on one thread and several run at once: threads that share
    one pass wait for one another at each layer, and for the decoding threads too. Eight views a
    batch are as fast as more, and a run ends sooner when its last batches are small.
    """
    cores = core_count()
    if not device.startswith("cpu"):
        return Layout(1, cores, batch_size or 64)
    forwards = min(cores, 8)
    threads = max(1, cores // forwards)
    return Layout(forwards, threads, batch_size or 8, None if batch_size else 8)


def core_count() -> int:
    """Return the number of cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def decoding_threads(workers: int | None = None) -> int:
    """Return ``workers``, or the number of decoding threads that suits this machine."""
    return workers or min(core_count(), 16)


def use_threads(count: int) -> None:
    """Let torch compute on ``count`` threads when it is called from this thread."""
    import torch

    torch.set_num_threads(count)
