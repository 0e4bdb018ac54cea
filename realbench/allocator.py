"""Settings of the C library's memory allocator, for passes through large networks."""

from __future__ import annotations

import ctypes

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
