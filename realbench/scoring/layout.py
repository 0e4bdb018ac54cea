"""How a run shares the processor between decoding and forward passes."""

from __future__ import annotations

import os
from dataclasses import dataclass


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
