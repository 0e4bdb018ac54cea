"""What a training runs on: processes, precision, memory, trackers and the clock."""

from __future__ import annotations

import contextlib
import hashlib
import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from realbench.errors import UsageError
from realbench.train import deepspeed
from realbench.train.config import DiffusionConfig, MemoryConfig, TrackingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL import Image

    from realbench.train.flow_models.flow_model import FlowModel
    from realbench.train.records import TrainIteration


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
    half = config.model.dtype_on(state.device.type) == "bfloat16"
    passes = config.passes_per_step(state.num_processes)
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
        dtype=config.model.dtype_on(device.partition(":")[0]),
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
    for prefix, offloaded in (
        ("text_encoder", memory.offload_text_encoders),
        ("vae", memory.offload_vae),
    ):
        for part in _parts(model, prefix) if offloaded else ():
            part.to("cpu")


@contextlib.contextmanager
def moved_in(model: FlowModel, prefix: str, offloaded: bool) -> Iterator[None]:
    """Have some of a pipeline's parts on the model's device while they are at work.

    Args:
        model: whose pipeline's parts are meant.
        prefix: of the parts' names.
        offloaded: whether they are in main memory otherwise; if not, nothing happens.
    """
    parts = _parts(model, prefix) if offloaded else []
    device = next(model.transformer.parameters()).device
    for part in parts:
        part.to(device)
    try:
        yield
    finally:
        for part in parts:
            part.to("cpu")
        if parts and device.type == "cuda":
            torch.cuda.empty_cache()


def _parts(model: FlowModel, prefix: str) -> list[torch.nn.Module]:
    components = getattr(model.pipeline, "components", {})
    return [
        part
        for name, part in components.items()
        if name.startswith(prefix) and isinstance(part, torch.nn.Module)
    ]


def check_trackers(config: TrackingConfig) -> None:
    """Refuse trackers whose packages are missing.

    Raises:
        UsageError: one is; the message says how to install it.
    """
    missing = next((name for name in config.trackers if find_spec(name) is None), None)
    if missing is not None:
        raise UsageError(f"tracking.trackers: {missing} is not installed: pip install {missing}")


def start_trackers(
    accelerator: Accelerator,
    config: TrackingConfig,
    run: str,
    values: Mapping[str, Any],
    first: int,
) -> None:
    """Start the trackers that the accelerator was made with.

    Args:
        run: the run's name.
        values: the config, of which numbers and texts are shown.
        first: the first iteration that will be logged; what a killed run logged from there on is
            hidden (TensorBoard).
    """
    if not config.trackers:
        return
    # W&B goes on under the same one: of the folder's whole path
    identifier = hashlib.sha256(str(Path(run).resolve()).encode()).hexdigest()[:16]
    accelerator.init_trackers(
        config.project if config.trackers != ("tensorboard",) else "tensorboard",
        config=_flat(values),
        init_kwargs={
            "tensorboard": {"purge_step": first},
            "wandb": {"name": run, "id": identifier, "resume": "allow"},
            "trackio": {"name": run, "resume": "allow"},
        },
    )


def log_figures(accelerator: Accelerator, record: TrainIteration) -> None:
    """Log the numbers of a line of the run's log; those that are not finite are left out."""
    values = record.values_set()
    step = values.pop("iteration")
    shown = _flat(values)
    figures = {k: float(v) for k, v in shown.items() if not isinstance(v, str | bool)}
    accelerator.log({k: v for k, v in figures.items() if math.isfinite(v)}, step=step)


def log_grid(accelerator: Accelerator, grid: Image.Image, iteration: int) -> None:
    """Log the grid of samples, for the trackers that take images."""
    import numpy as np

    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.writer.add_image(
                "samples", np.asarray(grid), global_step=iteration, dataformats="HWC"
            )
        elif tracker.name == "wandb":
            tracker.log_images({"samples": [grid]}, step=iteration)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted keys; lists become text."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            found[prefix + key] = value
        elif isinstance(value, Sequence):
            found[prefix + key] = ", ".join(map(str, value))
    return found


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
