"""Checkpoints: everything that the next iteration depends on.

A checkpoint is a folder ``checkpoints/000012`` that is written beside its place and renamed, so
that it is whole or absent. Weights are safetensors, the rest tensors that ``torch.load`` reads
with ``weights_only=True``: nothing in it can run code. What is sharded over processes (FSDP2 by
torch's distributed state dicts, DeepSpeed's optimiser by its own functions) is gathered, so that a
run can go on with another number of processes, or without them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from realbench.errors import RealBenchError
from realbench.runs.files import write_folder
from realbench.text import printable
from realbench.train.run import CHECKPOINTS

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers.training_utils import EMAModel

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_FROM_WHOLE = StateDictOptions(full_state_dict=True, strict=False)


@dataclass
class State:
    """What a checkpoint holds and restores.

    Attributes:
        model: whose weights are trained, as accelerate prepared it, without its wrapper.
        optimizer: over them, as accelerate prepared it.
        ema: their running mean, or None.
        extra: whatever else has ``state_dict`` and ``load_state_dict``: of tensors, numbers,
            strings, lists and dicts.
    """

    model: nn.Module
    optimizer: Any
    ema: EMAModel | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained ones, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the running mean in the weights' place, where there is one."""
        weights = list(self.parameters.values())
        if self.ema is None:
            yield
            return
        self.ema.store(weights)
        self.ema.copy_to(weights)
        try:
            yield
        finally:
            self.ema.restore(weights)

    def weights(self) -> dict[str, Tensor]:
        """Return whole weights by name, in main memory of the first process; all must call it."""
        found: Any = get_model_state_dict(self.model, options=_WHOLE)
        names = self.parameters.keys() & found.keys()  # buffers are in it, too
        return {name: found[name].clone().contiguous() for name in sorted(names)}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set the weights to what :meth:`weights` returned.

        Raises:
            ValueError: they are of other layers.
        """
        if weights.keys() != self.parameters.keys():
            raise ValueError("its layers are not those of the model")
        set_model_state_dict(self.model, dict(weights), options=_FROM_WHOLE)

    def optimizer_state(self) -> dict[str, dict[str, Tensor]]:
        """Return moments and steps by the weights' names, as :meth:`weights` does; {} at first."""
        inner = self.optimizer.optimizer
        if _is_deepspeeds(inner):
            return _deepspeed_state(inner, self.parameters)
        if not inner.state:  # torch would take a step to have some
            return {}
        found: Any = get_optimizer_state_dict(self.model, inner, options=_WHOLE)
        return dict(found.get("state", {}))  # the other processes have nothing

    def load_optimizer_state(self, states: dict[str, dict[str, Tensor]]) -> None:
        """Put back what :meth:`optimizer_state` returned; the weights must be back already."""
        inner = self.optimizer.optimizer
        if _is_deepspeeds(inner):
            _load_deepspeed_state(inner, self.parameters, states)
        elif states:
            groups = [group | {"params": list(states)} for group in inner.param_groups]
            # clones, since a file of DeepSpeed's has one tensor of steps for all weights
            states = {n: {k: v.clone() for k, v in one.items()} for n, one in states.items()}
            whole: Any = {"state": states, "param_groups": groups}
            set_optimizer_state_dict(self.model, inner, whole, options=_FROM_WHOLE)


def save_checkpoint(
    out: Path, iteration: int, state: State, *, accelerator: Accelerator, keep: int
) -> None:
    """Write the checkpoint after an iteration, and delete old ones.

    All processes must call it.

    Raises:
        RealBenchError: it cannot be written.
    """
    weights, moments = state.weights(), state.optimizer_state()
    with state.averaged():
        mean = state.weights() if state.ema is not None else None

    def fill(partial: Path) -> None:
        save_file(weights, partial / "weights.safetensors")
        if mean is not None:
            save_file(mean, partial / "ema.safetensors")
        torch.save(moments, partial / "optimizer.pt")
        extra = {name: one.state_dict() for name, one in state.extra.items()}
        torch.save(extra, partial / "extra.pt")
        facts = {"iteration": iteration, "processes": accelerator.num_processes}
        (partial / "checkpoint.json").write_text(json.dumps(facts) + "\n")
        _to_disk(partial)

    if accelerator.is_main_process:
        write_folder(out / CHECKPOINTS / f"{iteration:06}", fill)
        for old in _found(out)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def latest_checkpoint(out: Path) -> Path | None:
    """Return the newest checkpoint of a run, None where there is none."""
    return next(reversed(_found(out)), None)


def load_checkpoint(path: Path, state: State) -> int:
    """Bring everything back to where it was, and return the iteration after which that was.

    Raises:
        RealBenchError: a file is missing, damaged or of another model.
    """
    try:
        facts = json.loads((path / "checkpoint.json").read_bytes())
        if state.ema is not None:
            state.load_weights(load_file(path / "ema.safetensors"))
            weights = state.parameters.values()
            for mean, weight in zip(state.ema.shadow_params, weights, strict=True):
                mean.copy_(weight.detach())
        state.load_weights(load_file(path / "weights.safetensors"))
        state.load_optimizer_state(_load(path / "optimizer.pt"))
        extra = _load(path / "extra.pt")
        for name, one in state.extra.items():
            one.load_state_dict(extra[name])
        return int(facts["iteration"])
    except Exception as error:  # damage shows itself in many ways
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RealBenchError(
            f"the checkpoint {printable(path)} cannot be loaded ({reason}): delete it to go on "
            "from the one before"
        ) from error


def _found(out: Path) -> list[Path]:
    return sorted(
        path for path in (out / CHECKPOINTS).glob("[0-9]*") if (path / "checkpoint.json").is_file()
    )


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _to_disk(folder: Path) -> None:
    """Have the files on the disk before the rename is: power may fail between the two."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# --- DeepSpeed, whose own checkpoints are pickles ------------------------------------------------


def _is_deepspeeds(optimizer: object) -> bool:
    return hasattr(optimizer, "single_partition_of_fp32_groups")


def _deepspeed_state(
    optimizer: Any, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    from deepspeed.utils import safe_get_full_optimizer_state

    flat = optimizer.single_partition_of_fp32_groups[0]  # this process's share of the weights
    state = optimizer.optimizer.state.get(flat, {})
    if not state:
        return {}
    shared = {key: value.cpu().clone() for key, value in state.items() if value.shape != flat.shape}
    moments = [key for key in state if key not in shared]
    return {
        name: {key: safe_get_full_optimizer_state(parameter, key).cpu() for key in moments} | shared
        for name, parameter in parameters.items()
    }


def _load_deepspeed_state(
    optimizer: Any,
    parameters: Mapping[str, nn.Parameter],
    states: Mapping[str, Mapping[str, Tensor]],
) -> None:
    from deepspeed import utils

    for parameter in parameters.values():  # it steps from the parameters as they are now
        utils.safe_set_full_fp32_param(parameter, parameter.detach().float())
    if not states:
        return
    flat = optimizer.single_partition_of_fp32_groups[0]
    first = next(iter(states.values()))
    optimizer.optimizer.state[flat] = {
        key: torch.zeros_like(flat) if value.ndim else value.clone() for key, value in first.items()
    }
    # It makes this link after its first step, and only then are the moments known by parameter.
    utils.lazy_init_hp_params_optimizer_state(
        optimizer.bit16_groups[0], flat, optimizer.optimizer.state
    )
    for name, values in states.items():
        for key, value in values.items():
            if value.ndim:
                moved = value.to(device=flat.device, dtype=flat.dtype)
                utils.safe_set_full_optimizer_state(parameters[name], moved, key)
