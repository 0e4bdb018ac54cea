"""A training's model on its machine: processes, precision, weights, memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from realbench.errors import UsageError
from realbench.train import deepspeed
from realbench.train.config import DiffusionConfig, MemoryConfig
from realbench.train.update import passes_per_step

if TYPE_CHECKING:
    from accelerate import Accelerator

    from realbench.train.flow_models.flow_model import FlowModel


@contextlib.contextmanager
def start_accelerator(config: DiffusionConfig, out: Path) -> Iterator[Accelerator]:
    """Yield accelerate's view of the processes, and end its trackers.

    Raises:
        UsageError: it was launched with DeepSpeed in a way that cannot be trained with.
    """
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, set_seed

    cpu = config.model.device == "cpu"
    sharded = deepspeed.launched()
    state = deepspeed.start_processes(cpu) if sharded else PartialState(cpu=cpu)
    half = _dtype(config, state.device.type) == "bfloat16"
    passes = passes_per_step(config, state.num_processes)
    clip = config.training.max_grad_norm
    AcceleratorState._reset_state()  # else a second training in a process could not differ
    accelerator = Accelerator(
        cpu=cpu and not sharded,  # with it accelerate leaves DeepSpeed out
        mixed_precision="bf16" if half and not sharded else "no",
        gradient_accumulation_steps=passes,
        log_with=list(config.tracking.trackers) or None,
        project_dir=str(out),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        deepspeed_plugins=deepspeed.plugin(passes, clip, half) if sharded else None,
    )
    set_seed(config.seed)
    try:
        yield accelerator
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.free_memory()


def load_model(config: DiffusionConfig, device: str) -> FlowModel:
    """Load the config's model in its precision, without LoRA."""
    from realbench.train.flow_models import load_flow_model

    return load_flow_model(
        config.model.source,
        dtype=_dtype(config, device.partition(":")[0]),
        device=device,
        revision=config.model.revision,
        adapter=config.model.adapter,
    )


def save_memory(model: FlowModel, memory: MemoryConfig) -> None:
    """Switch on what the config asks for.

    Raises:
        UsageError: the model has no such thing.
    """
    vae = getattr(model.pipeline, "vae", None)
    for wanted, owner, method in (
        (memory.gradient_checkpointing, model.transformer, "enable_gradient_checkpointing"),
        (memory.vae_tiling, vae, "enable_tiling"),
        (memory.vae_slicing, vae, "enable_slicing"),
    ):
        if wanted and not hasattr(owner, method):
            raise UsageError(f"{type(owner).__name__} has no {method}: change [memory]")
        if wanted:
            getattr(owner, method)()
    components = getattr(model.pipeline, "components", {})
    for wanted, prefix in (
        (memory.offload_text_encoders, "text_encoder"),
        (memory.offload_vae, "vae"),
    ):
        for name, part in components.items():
            if wanted and name.startswith(prefix) and isinstance(part, torch.nn.Module):
                part.to("cpu")


def _dtype(config: DiffusionConfig, device: str) -> str:
    if config.model.dtype != "auto":
        return config.model.dtype
    return "bfloat16" if device == "cuda" else "float32"
