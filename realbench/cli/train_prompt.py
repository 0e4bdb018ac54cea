"""``realgen-train prompt``: trains the language model that rewrites prompts."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli.progress import stage_bar
from realbench.errors import RealBenchError

if TYPE_CHECKING:
    from realbench.train.prompt.run import Progress, PromptTrainResult

_NEEDED = ("trl", "peft", "datasets", "accelerate", "diffusers", "filelock")


def prompt(
    config: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="A TOML file, or qwen3-4b or smollm2-demo.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TABLE.KEY=VALUE",
            help="Another value than the config's, such as model=FILE.gguf; repeatable.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The run's folder; goes on there. (default: CONFIG-run)"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of every random choice. (default: the config's)")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Train a language model to rewrite prompts, by GRPO on the images of its rewrites.

    Run the same command again to go on after an interruption. On several GPUs:
    accelerate launch -m realbench.cli.train prompt ...
    """
    from realbench.cli.train import INSTALL, is_first_process
    from realbench.train.prompt.config import load_config

    if quiet:
        warnings.simplefilter("ignore")
    overrides = list(set_ or [])
    if seed is not None:
        overrides.append(f"seed={seed}")
    settings = load_config(config, overrides)
    _check_installed(INSTALL)
    from realbench.train.prompt.run import train

    first = is_first_process()
    with progress_bar(shown=first and not quiet) as progress:
        result = train(settings, out=out or Path(f"{Path(config).stem}-run"), progress=progress)
    if first and not quiet:
        print_result(result, has_images=settings.pipeline is not None)


def _check_installed(install: str) -> None:
    from importlib.util import find_spec

    missing = [one for one in _NEEDED if find_spec(one) is None]
    if missing:
        raise RealBenchError(f"realgen-train prompt needs {', '.join(missing)}: {install}")


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


def print_result(result: PromptTrainResult, *, has_images: bool) -> None:
    """Print where the rewards began and ended, and where the files are."""
    summary = result.summary
    names = {"reward": "reward", "heldout": "held-out"}
    for name, label in names.items():
        if summary[f"{name}_start"] is not None:
            start, end = (_figure(summary, name, when) for when in ("start", "end"))
            typer.echo(f"{label:12} {start} -> {end}")
    for name, before in summary["components_start"].items():
        after = summary["components_end"][name]
        typer.echo(f"  {name:10} {_estimate(before)} -> {_estimate(after)}")
    typer.echo(
        f"On {summary['n_prompts']} prompts that were not trained on, the same before and after "
        f"{summary['iterations']} iterations; in brackets 95 % intervals"
    )
    if not has_images:
        typer.echo("No image was made: the reward is of the texts alone")
    if result.stop_reason == "hacking":
        typer.echo("Stopped: the reward rose while the held-out score fell (stop_on_hacking)")
    typer.echo(f"Rewriter: {result.rewriter}")
    typer.echo(f"Report: {result.out / 'report.html'}")
    typer.echo(
        f"Next: realbench generate --rewriter {result.out} --suite ... --model ... --out ..."
    )


def _figure(summary: dict[str, Any], name: str, when: str) -> str:
    low, high = summary[f"{name}_{when}_interval"]
    return _estimate({"mean": summary[f"{name}_{when}"], "low": low, "high": high})


def _estimate(value: dict[str, Any]) -> str:
    if value["low"] is None:
        return f"{value['mean']:.3f} (no interval)"
    return f"{value['mean']:.3f} ({value['low']:.3f}–{value['high']:.3f})"
