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
# What may be in a DeepSpeed file: what [training] decides, and what is of speed, memory and logs.
_TABLES = ("zero_optimization", "fp16", "bf16")
_KEYS = (
    *_TABLES,
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "zero_allow_untested_optimizer",
    "steps_per_print",
    "wall_clock_breakdown",
    "memory_breakdown",
    "comms_logger",
    "flops_profiler",
)
_SWITCHES = (
    "allgather_partitions",
    "overlap_comm",
    "reduce_scatter",
    "contiguous_gradients",
    "round_robin_gradients",
)
_SIZES = ("allgather_bucket_size", "reduce_bucket_size")


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
        raise UsageError("DeepSpeed would train on the GPU: leave model.device out")
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
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:  # as a file is bad
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"DeepSpeed's settings{_source()}: {reason}") from error
    settings = made.deepspeed_config
    _check(settings, passes, max_grad_norm)
    sharing = settings["zero_optimization"]
    for key in [key for key, value in sharing.items() if value == "auto"]:
        del sharing[key]  # accelerate would compute it of a language model's width
    settings["gradient_accumulation_steps"] = passes
    settings["gradient_clipping"] = max_grad_norm
    settings["train_micro_batch_size_per_gpu"] = 1  # it only counts with it
    settings.pop("train_batch_size", None)
    # Its own bfloat16 would round the trained weights; this leaves them in single precision. Left
    # without names of modules, it rounds the gradients of linear layers before their sum.
    settings["torch_autocast"] = {
        "enabled": half,
        "dtype": "bfloat16",
        "lower_precision_safe_modules": [],
    }
    return made


def _source() -> str:
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    return "" if file == "none" else f" in {file}"


def _refusal(what: str, remedy: str) -> UsageError:
    return UsageError(f"DeepSpeed's {what}{_source()} cannot be trained with: {remedy}")


def _check(settings: Mapping[str, Any], passes: int, max_grad_norm: float) -> None:
    for part in ("optimizer", "scheduler"):
        if part in settings:
            raise _refusal(part, "leave it out, [training] decides")
    for key, value in settings.items():
        if key not in _KEYS:
            raise _refusal(key, "leave it out")
        if key in _TABLES and not isinstance(value, dict):
            raise _refusal(f"{key} {value!r}", "it must be a table")
    for kind in ("fp16", "bf16"):
        if str(settings.get(kind, {}).get("enabled", False)).lower() == "true":
            raise _refusal(kind, "leave it out, and give model.dtype")
    for key, ours, setting in (
        ("gradient_clipping", max_grad_norm, "training.max_grad_norm"),
        ("gradient_accumulation_steps", passes, "one optimiser step's passes"),
    ):
        # accelerate gives 1 step of accumulation where nobody asked for any
        theirs = {str(settings.get(key)), os.environ.get(f"ACCELERATE_{key.upper()}", "none")}
        for value in sorted(theirs - {"None", "none", "auto", "1", str(ours)}):
            if not _is_number(value, ours):
                raise _refusal(f"{key} {value}", f"leave it out, or have it be {ours} ({setting})")
    _check_zero(settings["zero_optimization"])


def _check_zero(settings: Mapping[str, Any]) -> None:
    stage = settings.get("stage", 0)
    if stage not in _STAGES:
        raise _refusal(
            f"ZeRO stage {stage}",
            "give --zero_stage 1 or 2, or shard the weights with FSDP (see docs/train.md)",
        )
    for part in ("offload_optimizer", "offload_param"):
        offload = settings.get(part) or {}
        if not isinstance(offload, dict) or offload.get("device", "none") not in ("none", None):
            raise _refusal(part, "leave it out (the optimiser is of LoRA alone, and small)")
    for key, value in settings.items():
        if key in _SWITCHES:
            fits = isinstance(value, bool)
        elif key in _SIZES:
            fits = isinstance(value, int | float) and value >= 2 and value % 2 == 0
        else:
            fits = key in ("stage", "offload_optimizer", "offload_param") or _is_of_stage_3(key)
        if not fits and value != "auto":
            raise _refusal(f"zero_optimization.{key} {value!r}", "leave it out")


def _is_of_stage_3(key: str) -> bool:
    """Whether stages 1 and 2 do not look at a key."""
    return key.startswith("stage3_") or key == "sub_group_size"


def _is_number(text: str, value: float) -> bool:
    try:
        return float(text) == value
    except ValueError:
        return False


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
