"""Settings of the C library's memory allocator, for passes through large networks."""

from __future__ import annotations

import ctypes

_MIB = 2**20
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def keep_freed_memory() -> None:
    """Ask glibc to reuse freed blocks of up to 32 MiB instead of returning them to the system.

    Every forward pass allocates the same activations. Giving their pages back after each layer
    and faulting them in again costs a quarter of the processor's time, and makes threads wait for
    one another in the kernel. Larger blocks (a decoded photograph, the caller's own arrays) are
    returned as ever. It holds for the whole process; no effect without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
    mallopt(_M_TRIM_THRESHOLD, 512 * _MIB)
    mallopt(_M_TOP_PAD, 64 * _MIB)
