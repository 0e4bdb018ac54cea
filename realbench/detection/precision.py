"""Half the precision and more than twice the speed, where the processor has it built in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import torch


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
    known = (getattr(torch.cpu, name, None) for name in _QUESTIONS)
    return any(ask() for ask in known if ask is not None)


_QUESTIONS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
