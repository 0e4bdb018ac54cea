"""``realgen-train``: the scorers as a reward that trains image models."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.program import Program, add_version
from realbench.cli.program import run as run_command
from realbench.cli.terminal import StageBar, progress_bar
from realbench.errors import RealBenchError
from realbench.report import wording
from realbench.runs.folder import install_command

if TYPE_CHECKING:
    from realbench.config.config_files import Configs
    from realbench.train.diffusion import TrainResult
    from realbench.train.prompt.run import PromptTrainResult
    from realbench.train.run import Progress

_SECONDS_A_LINE = 15.0


@dataclass(frozen=True)
class Training:
    """What is trained, and where: a command takes these options as its own."""

    config: Annotated[
        str,
        typer.Option(
            "--config", metavar="FILE|NAME", help="A TOML file, or one of: realgen-train configs"
        ),
    ]
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TABLE.KEY=VALUE",
            help="Another value than the config's; may be repeated.",
        ),
    ] = None
    out: Annotated[
        Path | None, options.out("The run's folder; goes on there. (default: CONFIG-run)")
    ] = None
    seed: Annotated[int | None, options.seed("Of every random choice. (default: the config's)")] = (
        None
    )

    @property
    def folder(self) -> Path:
        return self.out or Path(f"{Path(self.config).stem}-run")

    @property
    def overrides(self) -> list[str]:
        """The values of ``--set`` and ``--seed`` as a config takes them."""
        return [*(self.set_ or []), *([f"seed={self.seed}"] if self.seed is not None else [])]


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
        raise RealBenchError(f"{command} needs {', '.join(missing)}: {install_command('train')}")


def training_bar(output: options.Output) -> Any:
    """Return what yields a callback that shows how far a training is.

    It draws a bar with time left on a terminal, and elsewhere writes a line now and then.
    """
    shown = _is_first_process() and output.in_words
    if shown and not sys.stderr.isatty():
        return contextlib.nullcontext(_Lines())
    return progress_bar(_draw, shown=shown, stage="loading")


def _draw(bar: StageBar, progress: Progress) -> None:
    bar.enter(progress.stage, progress.total or None)
    bar.show(progress.done, progress.total or None, _reward(progress))


def _reward(progress: Progress) -> str:
    return "" if progress.reward is None else f"reward {progress.reward:.3f}"


class _Lines:
    """Writes a progress to the standard error output, at most every few seconds."""

    def __init__(self) -> None:
        self._told = -math.inf

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self._told >= _SECONDS_A_LINE:
            self._told = time.monotonic()
            far = f" {progress.done} of {progress.total}" if progress.total else ""
            typer.echo(f"{progress.stage}{far} {_reward(progress)}".rstrip(), err=True)


def _is_first_process() -> bool:
    """Return whether this is the process that prints: of several, accelerate numbers them."""
    return os.environ.get("RANK", "0") == "0"


def show_training(summary: Mapping[str, Any], lines: Iterable[str], output: options.Output) -> None:
    """Print a training's summary, in the first process."""
    if _is_first_process():
        output.show(summary, lines, indent=1)


def _figure(summary: Mapping[str, Any], name: str) -> str:
    low, high = summary[f"{name}_interval"]
    return wording.figure({"estimate": summary[name], "low": low, "high": high}, 3, inline=True)


app = Program(
    name="realgen-train",
    help="Train image models and prompt writers with the scorers as the reward.",
)
add_version(app, "realgen-train")


_NEEDED = ("trl", "peft", "datasets", "accelerate", "diffusers", "filelock")


@app.command("prompt")
def prompt(
    *,
    training: Training,
    output: options.Output,
) -> None:
    """Train a language model to rewrite prompts, by GRPO on the images of its rewrites.

    Run the same command again to go on after an interruption. On several GPUs:
    accelerate launch -m realbench.cli.train prompt ...
    """
    from realbench.train.prompt.config import load_config

    if not output.in_words:
        warnings.simplefilter("ignore")
    settings = load_config(training.config, training.overrides)
    check_installed(_NEEDED, command="realgen-train prompt")
    from realbench.train.prompt.run import train

    with training_bar(output) as progress:
        result = train(settings, out=training.folder, progress=progress)
    lines = _rewriter_lines(result, has_images=settings.pipeline is not None)
    show_training(result.summary, lines, output)


def _rewriter_lines(result: PromptTrainResult, *, has_images: bool) -> Iterator[str]:
    summary = result.summary
    yield from _rewards(summary, 12)
    for name, before in summary["components_start"].items():
        ends = (before, summary["components_end"][name])
        start, end = (wording.figure(one, 3, inline=True) for one in ends)
        yield f"  {name:10} {start} -> {end}"
    yield (
        f"On {summary['n_prompts']} prompts that were not trained on, the same before and after "
        f"{summary['iterations']} iterations; in brackets 95 % intervals"
    )
    if not has_images:
        yield "No image was made: the reward is of the texts alone"
    if result.stop_reason == "hacking":
        yield _HACKED
    yield f"Rewriter: {result.rewriter}"
    yield f"Report: {result.out / 'report.html'}"
    yield f"Next: realbench generate --rewriter {result.out} --prompts ... --model ... --out ..."


@app.command("demo")
def demo(
    *,
    out: Annotated[Path, options.out("The run's folder; goes on there.")] = Path("realgen-demo"),
    seed: Annotated[int, options.seed("Of every random choice.")] = 0,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Fewer or more than the config's.")
    ] = None,
    output: options.Output,
) -> None:
    """Improve a small text-to-image model by Flow-GRPO, on a CPU in minutes.

    The model (32 pixels), the detector that rewards it and the judge that does not are shipped;
    nothing is downloaded.
    """
    check_installed()
    if not output.in_words:
        warnings.simplefilter("ignore")
    from realbench.train.demo.run import run_demo

    with training_bar(output) as progress:
        summary = run_demo(out, seed=seed, iterations=iterations, progress=progress)
    show_training(summary, _demo_lines(summary, out), output)


def _demo_lines(summary: dict[str, Any], out: Path) -> Iterator[str]:
    yield from _rewards(summary, 9)
    quality = summary["quality"]
    failed = [name for name, one in quality["measures"].items() if not one["passed"]]
    yield (
        f"{'quality':9} {quality['usual_start']:.3f} -> {quality['usual_end']:.3f} of a picture's "
        "measures are within the range of photographs; "
        + (f"further from it than before: {', '.join(failed)}" if failed else "none got worse")
    )
    yield (
        f"On {summary['n_images']} pictures of {summary['n_prompts']} prompts that were not "
        f"trained on, before and after {summary['iterations']} iterations; in "
        "brackets 95 % intervals"
    )
    yield (
        f"Iterations and evaluations took {summary['seconds']:.0f} s, this command "
        f"{summary['wall_seconds']:.0f} s in all; made again by: {summary['command']}"
    )
    for one in summary["warnings"]:
        yield f"warning: iteration {one['iteration']}: {one['warning']}"
    yield f"Report: {out / 'report.html'}"


@app.command()
def diffusion(
    *,
    training: Training,
    paired: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Real images with captions: the reward's detectors train, too."
        ),
    ] = None,
    output: options.Output,
) -> None:
    """Train a flow-matching image model by Flow-GRPO.

    Run the same command again to go on after an interruption. On several GPUs:
    accelerate launch -m realbench.cli.train diffusion ...
    """
    from realbench.train.config import load_config

    if not output.in_words:
        warnings.simplefilter("ignore")
    values = [f"cotraining.paired={str(paired)!r}"] if paired is not None else []
    settings = load_config(training.config, [*training.overrides, *values])
    check_installed()
    from realbench.train.diffusion import train

    with training_bar(output) as progress:
        result = train(settings, out=training.folder, progress=progress)
    show_training(result.summary, print_result(result), output)


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
    from realbench.train.report import write_report

    typer.echo(f"Report: {write_report(run)}")


_HACKED = "Stopped: the reward rose while the held-out score fell (stop_on_hacking)"


def print_result(result: TrainResult) -> Iterator[str]:
    """Yield where the rewards began and ended, and where the files are."""
    summary = result.summary
    yield from _rewards(summary, 9)
    yield (
        f"On {summary['n_images']} images of {summary['n_prompts']} prompts, the same before and "
        f"after {summary['iterations']} iterations; in brackets 95 % intervals"
    )
    if result.stop_reason == "hacking":
        yield _HACKED
    yield f"LoRA: {result.out / 'lora'}"
    yield f"Report: {result.out / 'report.html'}"


def _rewards(summary: Mapping[str, Any], width: int) -> Iterator[str]:
    for label, name in (("reward", "reward"), ("held-out", "heldout")):
        if summary[f"{name}_start"] is not None:
            start, end = (_figure(summary, f"{name}_{when}") for when in ("start", "end"))
            yield f"{label:{width}} {start} -> {end}"


def main() -> None:
    """Run ``realgen-train`` and exit: 0 done, 1 failed, 2 misuse, 130 interrupted."""
    run_command(app, "realgen-train")


if __name__ == "__main__":
    main()
