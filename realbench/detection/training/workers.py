"""Worker processes for training: one thread each, which two fits share better than one fit two."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes in which torch computes on a single thread."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_set_up)


def _set_up() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    _keep_freed_memory()
    import torch

    torch.set_num_threads(1)


def _keep_freed_memory() -> None:
    """Ask glibc to reuse large freed blocks instead of returning them to the system.

    Every training step allocates the same activations; giving the pages back and faulting them
    in again costs system time at each step. No effect elsewhere.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)
