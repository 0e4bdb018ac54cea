"""Worker processes for training: one thread each, which two fits share better than one fit two."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

from realbench.detection.detector import keep_freed_memory


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes in which torch computes on a single thread."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_set_up)


def _set_up() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    keep_freed_memory()
    import torch

    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A command that is killed must not leave its workers waiting for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
