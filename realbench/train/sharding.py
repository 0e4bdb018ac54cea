"""Whole tensors out of sharded ones and back: plain parameters, FSDP2 (DTensor), DeepSpeed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from realbench.train import deepspeed


def whole(value: Tensor) -> Tensor:
    """Return a tensor, gathered from all processes where it is a DTensor, in main memory."""
    value = value.detach()
    gather = getattr(value, "full_tensor", None)
    return (gather() if gather is not None else value).cpu().clone().contiguous()


def gathered(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors in main memory; all processes must call it."""
    return {name: whole(value) for name, value in values.items()}


def restore(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded.

    Raises:
        ValueError: the shapes differ.
    """
    if tuple(target.shape) != tuple(value.shape):
        raise ValueError(f"a shape is {tuple(value.shape)}, not {tuple(target.shape)}")
    with torch.no_grad():
        target.data.copy_(_sharded_like(target, value))


def optimizer_states(
    optimizer: Any, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    """Return an optimiser's state (moments, steps) by the parameters' names, as whole tensors."""
    zero = deepspeed.zero(optimizer)
    if zero is not None:
        return deepspeed.optimizer_states(zero, parameters)
    states = _inner(optimizer).state
    return {
        name: {key: whole(value) for key, value in states[parameter].items()}
        for name, parameter in parameters.items()
        if parameter in states
    }


def restore_optimizer(
    optimizer: Any,
    parameters: Mapping[str, nn.Parameter],
    states: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Put back what :func:`optimizer_states` returned; the parameters must be back already."""
    zero = deepspeed.zero(optimizer)
    if zero is not None:
        deepspeed.restore_weights(parameters)
        deepspeed.restore_optimizer(zero, parameters, states)
        return
    inner = _inner(optimizer)
    for name, values in states.items():
        parameter = parameters[name]
        inner.state[parameter] = {
            key: _sharded_like(parameter, value).clone() if value.ndim else value.clone()
            for key, value in values.items()
        }


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    """Return torch's optimiser inside of accelerate's."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def _sharded_like(target: Any, value: Tensor) -> Tensor:
    value = value.to(device=target.device, dtype=target.dtype)
    if hasattr(target, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value, target.device_mesh, target.placements)
    return value
