"""What an iteration takes of time and memory."""

from __future__ import annotations

import resource
import sys
import time

import torch


class Clock:
    """The seconds that the parts of an iteration take, the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._laps: dict[str, float] = {}
        self._last = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def lap(self, name: str) -> None:
        """End a part."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self._laps[name], self._last = now - self._last, now

    def seconds(self) -> dict[str, float]:
        """Return the seconds by part, to the millisecond."""
        return {name: round(value, 3) for name, value in self._laps.items()}


def peak_memory(device: torch.device) -> float:
    """Return the peak in MiB: of the device in this iteration, on a CPU of the process so far."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
