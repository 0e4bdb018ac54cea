"""Checkpoints: everything that the next iteration depends on.

A checkpoint is a folder ``checkpoints/000012`` that is written beside its place and renamed, so
that it is whole or absent. Weights are safetensors, the rest tensors that ``torch.load`` reads
with ``weights_only=True``: nothing in it can run code. Parameters that are sharded over processes
(FSDP2, DeepSpeed) are gathered, so that a run can go on with another number of processes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from realbench.errors import RealBenchError
from realbench.text import printable
from realbench.train.sharding import gathered, optimizer_states, restore, restore_optimizer

if TYPE_CHECKING:
    from accelerate import Accelerator

    from realbench.train.ema import Ema

FOLDER = "checkpoints"


@dataclass
class State:
    """What a checkpoint holds and restores.

    Attributes:
        parameters: the trained ones, by name.
        optimizer: over them.
        ema: their running mean, or None.
        extra: whatever else has ``state_dict`` and ``load_state_dict``: of tensors, numbers,
            strings, lists and dicts.
    """

    parameters: Mapping[str, nn.Parameter]
    optimizer: Any
    ema: Ema | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(
    out: Path, iteration: int, state: State, *, accelerator: Accelerator, keep: int
) -> None:
    """Write the checkpoint after an iteration, and delete old ones.

    All processes must call it.

    Raises:
        RealBenchError: it cannot be written.
    """
    from accelerate.utils import gather_object

    weights = gathered(state.parameters)
    mean = gathered(state.ema.mean) if state.ema is not None else None
    moments = optimizer_states(state.optimizer, state.parameters)
    generators = gather_object([random_state()])
    if accelerator.is_main_process:
        folder = out / FOLDER
        target = folder / f"{iteration:06}"
        partial = folder / f".{target.name}.part"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file(weights, partial / "weights.safetensors")
            if mean is not None:
                save_file(mean, partial / "ema.safetensors")
            torch.save(moments, partial / "optimizer.pt")
            torch.save(generators, partial / "random.pt")
            extra = {name: one.state_dict() for name, one in state.extra.items()}
            torch.save(extra, partial / "extra.pt")
            facts = {
                "iteration": iteration,
                "ema_steps": state.ema.steps if state.ema is not None else None,
                "processes": accelerator.num_processes,
            }
            (partial / "checkpoint.json").write_text(json.dumps(facts) + "\n")
            _to_disk(partial)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            for old in _found(out)[:-keep]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise RealBenchError(
                f"cannot write {printable(target)}: {error.strerror or error}; earlier "
                "checkpoints are kept"
            ) from error
    accelerator.wait_for_everyone()


def latest_checkpoint(out: Path) -> Path | None:
    """Return the newest checkpoint of a run, None where there is none."""
    found = _found(out)
    return found[-1] if found else None


def load_checkpoint(path: Path, state: State, *, accelerator: Accelerator) -> int:
    """Bring everything back to where it was, and return the iteration after which that was.

    Raises:
        RealBenchError: a file is missing, damaged or of another model.
    """
    try:
        facts = json.loads((path / "checkpoint.json").read_bytes())
        _put(load_file(path / "weights.safetensors"), state.parameters)
        if state.ema is not None:
            _put(load_file(path / "ema.safetensors"), state.ema.mean)
            state.ema.steps = int(facts["ema_steps"])
        restore_optimizer(state.optimizer, state.parameters, _load(path / "optimizer.pt"))
        extra = _load(path / "extra.pt")
        for name, one in state.extra.items():
            one.load_state_dict(extra[name])
        generators = _load(path / "random.pt")
        set_random_state(generators[accelerator.process_index % len(generators)])
        return int(facts["iteration"])
    except Exception as error:  # damage shows itself in many ways
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RealBenchError(
            f"the checkpoint {printable(path)} cannot be loaded ({reason}): delete it to go on "
            "from the one before"
        ) from error


def random_state() -> dict[str, Any]:
    """Return the states of the global generators, as tensors and numbers."""
    version, internal, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=True)
    _, keys, position, has_gauss, cached = legacy
    return {
        "python": [version, list(internal), gauss],
        "numpy": [torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set the global generators to what :func:`random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _found(out: Path) -> list[Path]:
    return sorted(
        path for path in (out / FOLDER).glob("[0-9]*") if (path / "checkpoint.json").is_file()
    )


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _put(values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    if values.keys() != targets.keys():
        raise ValueError("its layers are not those of the model")
    for name, value in values.items():
        restore(targets[name], value)


def _to_disk(folder: Path) -> None:
    """Have the files on the disk before the rename is: power may fail between the two."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
