"""``realgen-train prompt``: trains the language model that rewrites prompts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options, training

if TYPE_CHECKING:
    from realbench.train.prompt.run import PromptTrainResult

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
            help="Another value than the config's, such as model=FILE.gguf; may be repeated.",
        ),
    ] = None,
    out: training.Out = None,
    seed: training.Seed = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> None:
    """Train a language model to rewrite prompts, by GRPO on the images of its rewrites.

    Run the same command again to go on after an interruption. On several GPUs:
    accelerate launch -m realbench.cli.train prompt ...
    """
    from realbench.train.prompt.config import load_config

    if quiet or json_:
        warnings.simplefilter("ignore")
    settings = load_config(config, training.overrides(set_, seed))
    training.check_installed(_NEEDED, command="realgen-train prompt")
    from realbench.train.prompt.run import train

    first = training.is_first_process()
    with training.progress_bar(shown=first and not quiet and not json_) as progress:
        result = train(settings, out=out or Path(f"{Path(config).stem}-run"), progress=progress)
    if first and json_:
        training.print_json(result.summary)
    elif first and not quiet:
        print_result(result, has_images=settings.pipeline is not None)


def print_result(result: PromptTrainResult, *, has_images: bool) -> None:
    """Print where the rewards began and ended, and where the files are."""
    summary = result.summary
    names = {"reward": "reward", "heldout": "held-out"}
    for name, label in names.items():
        if summary[f"{name}_start"] is not None:
            start, end = (training.figure(summary, f"{name}_{when}") for when in ("start", "end"))
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
        f"Next: realbench generate --rewriter {result.out} --prompts ... --model ... --out ..."
    )


def _estimate(value: dict[str, Any]) -> str:
    if value["low"] is None:
        return f"{value['mean']:.3f} (no interval)"
    return f"{value['mean']:.3f} ({value['low']:.3f}–{value['high']:.3f})"
