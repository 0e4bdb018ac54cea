"""``realgen-train``: the scorers as a reward that trains image models."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options, training
from realbench.cli.ending import run as run_command
from realbench.cli.program import Program, add_version
from realbench.cli.train_demo import demo
from realbench.cli.train_prompt import prompt

if TYPE_CHECKING:
    from realbench.config.config_files import Configs
    from realbench.train.diffusion import TrainResult

app = Program(
    name="realgen-train",
    help="Train image models and prompt writers with the scorers as the reward.",
)
add_version(app, "realgen-train")
app.command("prompt")(prompt)
app.command("demo")(demo)


@app.command()
def diffusion(
    config: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="A TOML file, or one of: realgen-train configs")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TABLE.KEY=VALUE",
            help="Another value than the config's; repeatable.",
        ),
    ] = None,
    paired: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Real images with captions: the reward's detectors train, too."
        ),
    ] = None,
    out: training.Out = None,
    seed: training.Seed = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> None:
    """Train a flow-matching image model by Flow-GRPO.

    Run the same command again to go on after an interruption. On several GPUs:
    accelerate launch -m realbench.cli.train diffusion ...
    """
    from realbench.train.config import load_config

    if quiet or json_:
        warnings.simplefilter("ignore")
    values = training.overrides(set_, seed)
    if paired is not None:
        values.append(f"cotraining.paired={str(paired)!r}")
    settings = load_config(config, values)
    training.check_installed()
    from realbench.train.diffusion import train

    folder = out or Path(f"{Path(config).stem}-run")
    first = training.is_first_process()
    with training.progress_bar(shown=first and not quiet and not json_) as progress:
        result = train(settings, out=folder, progress=progress)
    if first and json_:
        training.print_json(result.summary)
    elif first and not quiet:
        print_result(result)


@app.command()
def configs(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Print this one, to be changed.")
    ] = None,
) -> None:
    """List the configs that are shipped, or print one."""
    from realbench.train import config as of_diffusion
    from realbench.train.prompt import config as of_prompts

    kinds: dict[str, Configs[Any]] = {
        "diffusion": of_diffusion.CONFIGS,
        "prompt": of_prompts.CONFIGS,
    }
    found = {kind: one.shipped() for kind, one in kinds.items()}
    if name is not None:
        kind = next((kind for kind, names in found.items() if name in names), "diffusion")
        typer.echo(kinds[kind].text(name), nl=False)
        return
    width = max(len(name) for names in found.values() for name in names)
    for kind, names in found.items():
        typer.echo(f"realgen-train {kind} --config ...")
        for one, description in names.items():
            typer.echo(f"  {one:{width}}  {description}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, finished or not.")],
) -> None:
    """Write a run's report.html anew."""
    from realbench.train.record import TrainRun
    from realbench.train.report.diffusion import write_train_report
    from realbench.train.report.prompt import write_prompt_report

    kind = TrainRun.read(run).manifest.kind
    write = write_prompt_report if kind == "prompt" else write_train_report
    typer.echo(f"Report: {write(run)}")


def print_result(result: TrainResult) -> None:
    """Print where the rewards began and ended, warnings, and where the files are."""
    summary = result.summary
    for label, name in {"reward": "reward", "held-out": "heldout"}.items():
        if summary[f"{name}_start"] is None:
            continue
        start, end = (training.figure(summary, f"{name}_{when}") for when in ("start", "end"))
        typer.echo(f"{label:9} {start} -> {end}")
    typer.echo(
        f"On {summary['n_images']} images of {summary['n_prompts']} prompts, the same before and "
        f"after {summary['iterations']} iterations; in brackets 95 % intervals"
    )
    if result.stop_reason == "hacking":
        typer.echo("Stopped: the reward rose while the held-out score fell (stop_on_hacking)")
    typer.echo(f"LoRA: {result.out / 'lora'}")
    typer.echo(f"Report: {result.out / 'report.html'}")


def main() -> None:
    """Run ``realgen-train`` and exit: 0 done, 1 failed, 2 misuse, 130 interrupted."""
    run_command(app, "realgen-train")


if __name__ == "__main__":
    main()
