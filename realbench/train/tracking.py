"""Curves for TensorBoard, W&B and trackio, through accelerate's trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realbench.errors import UsageError
from realbench.train.config import TrackingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL import Image


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
    accelerator.init_trackers(
        config.project if config.trackers != ("tensorboard",) else "tensorboard",
        config=flat(values),
        init_kwargs={
            "tensorboard": {"purge_step": first},
            "wandb": {"name": run, "id": _identifier(run), "resume": "allow"},
            "trackio": {"name": run, "resume": "allow"},
        },
    )


def log_figures(accelerator: Accelerator, record: Mapping[str, Any]) -> None:
    """Log the numbers of a line of the run's log; those that are not finite are left out."""
    from math import isfinite

    shown = flat({key: value for key, value in record.items() if key != "iteration"})
    figures = {k: float(v) for k, v in shown.items() if not isinstance(v, str | bool)}
    accelerator.log({k: v for k, v in figures.items() if isfinite(v)}, step=record["iteration"])


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


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted keys; lists become text."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            found[prefix + key] = value
        elif isinstance(value, Sequence):
            found[prefix + key] = ", ".join(map(str, value))
    return found


def _identifier(run: str) -> str:
    """Return a name for W&B under which a run goes on: of the folder's whole path."""
    import hashlib

    return hashlib.sha256(str(Path(run).resolve()).encode()).hexdigest()[:16]
