"""The running mean of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class Ema:
    """An exponential moving average of parameters.

    The n-th update makes the mean d·mean + (1 - d)·weights with d = min(decay, (1 + n)/(10 + n)):
    the first weights, which are the base model's, do not weigh on it for long. Parameters may be
    sharded (DTensor); the mean is then sharded alike.

    Args:
        parameters: by name; float32.
        decay: in [0, 1).
        every: optimiser steps between updates.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], *, decay: float, every: int = 1
    ) -> None:
        self.parameters = dict(parameters)
        self.decay = decay
        self.every = every
        self.steps = 0
        self.mean: dict[str, Tensor] = {
            name: value.detach().clone() for name, value in self.parameters.items()
        }

    def update(self) -> None:
        """Take an optimiser step into account."""
        self.steps += 1
        if self.steps % self.every:
            return
        n = self.steps // self.every
        weight = 1 - min(self.decay, (1 + n) / (10 + n))
        for name, value in self.parameters.items():
            self.mean[name].lerp_(value.detach(), weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the mean in the parameters' place, and them back afterwards."""
        kept = {name: value.detach().clone() for name, value in self.parameters.items()}
        try:
            for name, value in self.parameters.items():
                value.data.copy_(self.mean[name])
            yield
        finally:
            for name, value in self.parameters.items():
                value.data.copy_(kept[name])
