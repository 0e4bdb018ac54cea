"""What a training runs on: processes, precision, memory, trackers and the clock."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from realbench.errors import UsageError
from realbench.train.config import DiffusionConfig, MemoryConfig, TrackingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState
    from accelerate.utils import DeepSpeedPlugin
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
    sharded = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    state = _start_deepspeed(cpu) if sharded else PartialState(cpu=cpu)
    half = config.model.dtype_on(state.device.type) == "bfloat16"
    passes = config.passes_per_step(state.num_processes)
    plugin = _deepspeed_plugin(passes, config.training.max_grad_norm, half) if sharded else None
    AcceleratorState._reset_state()  # else a second training in a process could not differ
    accelerator = Accelerator(
        cpu=cpu and not sharded,  # with it accelerate leaves DeepSpeed out
        mixed_precision="bf16" if half and not sharded else "no",
        gradient_accumulation_steps=passes,
        log_with=list(config.tracking.trackers) or None,
        project_dir=str(out),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        deepspeed_plugins=plugin,
    )
    set_seed(config.seed)
    try:
        yield accelerator
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.free_memory()


def _start_deepspeed(cpu: bool) -> PartialState:
    """Return accelerate's view of processes that DeepSpeed joins."""
    from accelerate import PartialState

    if cpu and torch.cuda.is_available():
        raise UsageError("DeepSpeed would train on the GPU: leave model.device out")
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"DeepSpeed cannot be loaded ({error}): pip install deepspeed, or launch without it"
        ) from error
    return PartialState() if torch.cuda.is_available() else PartialState(backend="gloo")


def _deepspeed_plugin(passes: int, max_grad_norm: float, half: bool) -> DeepSpeedPlugin:
    """Return accelerate's settings of DeepSpeed as launched, the training's put in.

    With ``half`` products of matrices are computed in bfloat16; weights stay as they are.
    """
    from accelerate.utils import DeepSpeedPlugin

    if os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none") != "none":
        raise UsageError(
            "a file of DeepSpeed's settings is not read, [training] and [model] decide: launch "
            "with --use_deepspeed --zero_stage 1 or 2"
        )
    made = DeepSpeedPlugin(gradient_accumulation_steps=passes, gradient_clipping=max_grad_norm)
    offloads = (made.offload_optimizer_device, made.offload_param_device)
    if made.zero_stage not in (1, 2) or offloads != ("none", "none"):
        raise UsageError(
            f"DeepSpeed's ZeRO stage {made.zero_stage} and offloading ({offloads[0]}, {offloads[1]}"
            ") cannot be trained with: give --zero_stage 1 or 2 and no offloading, or shard the "
            "weights with FSDP (see docs/train.md)"
        )
    settings = made.deepspeed_config
    settings["train_micro_batch_size_per_gpu"] = 1  # it only counts with it
    del settings["train_batch_size"]
    # Its own bfloat16 would round the trained weights; this leaves them in single precision. Left
    # without names of modules, it rounds the gradients of linear layers before their sum.
    settings["torch_autocast"] = {
        "enabled": half,
        "dtype": "bfloat16",
        "lower_precision_safe_modules": [],
    }
    return made


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
    """Have the parts of a pipeline whose names begin with ``prefix`` where the model is, meanwhile.

    Args:
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
