"""Tells errors of a memory that is too small from other ones."""

from __future__ import annotations

_SIGNS = ("out of memory", "not enough memory", "can't allocate memory")


def is_memory_shortage(error: BaseException) -> bool:
    """Whether an error of torch, on a GPU or a CPU, or of Python says that memory is short."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS)
