"""What the commands of ``realgen-train`` share: their options, the bar, what must be installed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.progress import stage_bar
from realbench.errors import RealBenchError
from realbench.report import wording
from realbench.runs.versions import install_command

if TYPE_CHECKING:
    from realbench.train.progress import Progress

INSTALL = install_command("train")

Out = Annotated[
    Path | None,
    options.out("The run's folder; goes on there. (default: CONFIG-run)"),
]
Seed = Annotated[int | None, options.seed("Of every random choice. (default: the config's)")]


def overrides(given: Sequence[str] | None, seed: int | None) -> list[str]:
    """Return the values of ``--set`` and ``--seed`` as a config takes them."""
    return [*(given or []), *([f"seed={seed}"] if seed is not None else [])]


def check_installed(
    packages: Sequence[str] = ("diffusers", "peft", "accelerate"), *, command: str = "realgen-train"
) -> None:
    """Say how to install what trains.

    Raises:
        RealBenchError: a package is missing.
    """
    from importlib.util import find_spec

    missing = [one for one in packages if find_spec(one) is None]
    if missing:
        raise RealBenchError(f"{command} needs {', '.join(missing)}: {INSTALL}")


def is_first_process() -> bool:
    """Return whether this is the process that prints: of several, accelerate numbers them."""
    return os.environ.get("RANK", "0") == "0"


def print_json(summary: Mapping[str, Any]) -> None:
    """Print a run's summary as JSON."""
    import json

    typer.echo(json.dumps(summary, indent=1))


@contextlib.contextmanager
def progress_bar(*, shown: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Yield a callback that draws a bar with time left, on a terminal alone."""
    with stage_bar(shown=shown, stage="loading") as bar:
        if bar is None:
            yield None
            return

        def update(progress: Progress) -> None:
            bar.enter(progress.stage, progress.total or None)
            reward = "" if progress.reward is None else f"reward {progress.reward:.3f}"
            bar.show(progress.done, progress.total or None, reward)

        yield update


def figure(summary: Mapping[str, Any], name: str) -> str:
    """Format a figure of a training's summary, such as ``reward_start``, with its interval."""
    low, high = summary[f"{name}_interval"]
    return wording.figure({"estimate": summary[name], "low": low, "high": high}, 3, inline=True)
