"""DeepSpeed's ZeRO stages 1 and 2, as accelerate launches them.

The trained weights are whole in every process; gradients (stage 2) and the optimiser's state are
shared out. DeepSpeed's engine clips gradients and steps by itself. Its own checkpoints are pickles;
ours hold whole tensors under the parameters' names, as without it, so that a run can go on with
another number of processes, or without DeepSpeed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from realbench.errors import UsageError

if TYPE_CHECKING:
    from accelerate import PartialState
    from accelerate.utils import DeepSpeedPlugin

_INSTALL = "pip install deepspeed, or launch without it"
_STAGES = (1, 2)


def launched() -> bool:
    """Whether ``accelerate launch`` was told to use DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def start_processes(cpu: bool) -> PartialState:
    """Return accelerate's view of the processes.

    Args:
        cpu: whether the model is to be on the processor, where accelerate would choose no way for
            processes to talk.

    Raises:
        UsageError: DeepSpeed is not installed, or the model is to be on a processor and there is a
            GPU.
    """
    from accelerate import PartialState

    if cpu and torch.cuda.is_available():
        raise UsageError("DeepSpeed trains on the GPU: set model.device to cuda")
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise UsageError(f"DeepSpeed cannot be loaded ({error}): {_INSTALL}") from error
    return PartialState() if torch.cuda.is_available() else PartialState(backend="gloo")


def plugin(passes: int, max_grad_norm: float, half: bool) -> DeepSpeedPlugin:
    """Return accelerate's settings of DeepSpeed, the training's put in.

    Args:
        passes: of a process for one optimiser step.
        max_grad_norm: to which DeepSpeed clips gradients.
        half: whether products of matrices are computed in bfloat16; weights stay as they are.

    Raises:
        UsageError: a setting of the launch cannot be trained with.
    """
    from accelerate.utils import DeepSpeedPlugin

    try:
        made = DeepSpeedPlugin(gradient_accumulation_steps=passes, gradient_clipping=max_grad_norm)
    except (OSError, ValueError) as error:
        raise UsageError(f"DeepSpeed's settings: {error}") from error
    settings = made.deepspeed_config
    _check(settings)
    settings["gradient_accumulation_steps"] = passes
    settings["gradient_clipping"] = max_grad_norm
    settings["train_micro_batch_size_per_gpu"] = 1  # it only counts with it
    settings.pop("train_batch_size", None)
    # Its own bfloat16 would round the trained weights; this leaves them in single precision.
    settings["torch_autocast"] = {"enabled": half, "dtype": "bfloat16"}
    return made


def _check(settings: Mapping[str, Any]) -> None:
    zero = settings.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    if stage not in _STAGES:
        raise UsageError(
            f"DeepSpeed's ZeRO stage {stage} cannot be trained with: give --zero_stage 1 or 2, or "
            "shard the weights with FSDP (see docs/train.md)"
        )
    for part in ("offload_optimizer", "offload_param"):
        if zero.get(part, {}).get("device", "none") not in ("none", None):
            raise UsageError(
                f"DeepSpeed's {part} cannot be trained with: leave it out (the optimiser is of "
                "LoRA alone, and small)"
            )
    for kind in ("fp16", "bf16"):
        if str(settings.get(kind, {}).get("enabled", False)).lower() == "true":
            raise UsageError(
                f"DeepSpeed's {kind} cannot be trained with: leave it out, and give model.dtype"
            )
    for part in ("optimizer", "scheduler"):
        if part in settings:
            raise UsageError(
                f"DeepSpeed's {part} cannot be trained with: leave it out, [training] decides"
            )


def zero(optimizer: object) -> Any | None:
    """Return DeepSpeed's optimiser inside of accelerate's, None where there is none."""
    inner = getattr(optimizer, "optimizer", None)
    return inner if hasattr(inner, "single_partition_of_fp32_groups") else None


def optimizer_states(
    optimizer: Any, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    """Return the optimiser's state by the parameters' names, as whole tensors in main memory.

    All processes must call it. Before the first step there is none.

    Args:
        optimizer: from :func:`zero`.
        parameters: the trained ones.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    flat, state = _partition(optimizer)
    if not state:
        return {}
    shared = {key: value.cpu().clone() for key, value in state.items() if value.shape != flat.shape}
    moments = [key for key in state if key not in shared]
    return {
        name: {key: safe_get_full_optimizer_state(parameter, key).cpu() for key in moments} | shared
        for name, parameter in parameters.items()
    }


def restore_optimizer(
    optimizer: Any,
    parameters: Mapping[str, nn.Parameter],
    states: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Put back what :func:`optimizer_states` returned."""
    from deepspeed.utils import (
        lazy_init_hp_params_optimizer_state,
        safe_set_full_optimizer_state,
    )

    if not states:
        return
    flat, _ = _partition(optimizer)
    first = next(iter(states.values()))
    optimizer.optimizer.state[flat] = {
        key: torch.zeros_like(flat) if value.ndim else value.clone() for key, value in first.items()
    }
    # It makes this link after its first step, and only then are the moments known by parameter.
    lazy_init_hp_params_optimizer_state(optimizer.bit16_groups[0], flat, optimizer.optimizer.state)
    for name, values in states.items():
        for key, value in values.items():
            if value.ndim:
                moved = value.to(device=flat.device, dtype=flat.dtype)
                safe_set_full_optimizer_state(parameters[name], moved, key)


def restore_weights(parameters: Mapping[str, nn.Parameter]) -> None:
    """Have DeepSpeed step from the parameters as they are now."""
    from deepspeed.utils import safe_set_full_fp32_param

    for parameter in parameters.values():
        safe_set_full_fp32_param(parameter, parameter.detach().float())


def _partition(optimizer: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this process's share of the weights, flat, and the state that belongs to it."""
    flat = optimizer.single_partition_of_fp32_groups[0]
    return flat, optimizer.optimizer.state.get(flat, {})
