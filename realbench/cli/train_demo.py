"""``realgen-train demo``: a small model that is trained on the spot."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.training import check_installed, figure, print_json, progress_bar


def demo(
    out: Annotated[Path, options.out("The run's folder; goes on there.")] = Path("realgen-demo"),
    seed: Annotated[int, options.seed("Of every random choice.")] = 0,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Fewer or more than the config's.")
    ] = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> None:
    """Improve a small text-to-image model by Flow-GRPO, on a CPU in minutes.

    The model (32 pixels), the detector that rewards it and the judge that does not are shipped;
    nothing is downloaded.
    """
    check_installed()
    shown = not quiet and not json_
    if not shown:
        warnings.simplefilter("ignore")
    from realbench.train.demo.run import run_demo

    with progress_bar(shown=shown) as progress:
        summary = run_demo(out, seed=seed, iterations=iterations, progress=progress)
    if json_:
        print_json(summary)
    elif shown:
        _print_summary(summary, out)


def _print_summary(summary: dict[str, Any], out: Path) -> None:
    for label, name in (("reward", "reward"), ("held-out", "heldout")):
        start, end = (figure(summary, f"{name}_{when}") for when in ("start", "end"))
        typer.echo(f"{label:9} {start} -> {end}")
    quality = summary["quality"]
    failed = [name for name, one in quality["measures"].items() if not one["passed"]]
    typer.echo(
        f"{'quality':9} {quality['usual_start']:.3f} -> {quality['usual_end']:.3f} of a picture's "
        "measures are within the range of photographs; "
        + (f"further from it than before: {', '.join(failed)}" if failed else "none got worse")
    )
    typer.echo(
        f"On {summary['n_images']} pictures of {summary['n_prompts']} prompts that were not "
        f"trained on, before and after {summary['iterations']} iterations; in "
        "brackets 95 % intervals"
    )
    typer.echo(
        f"Iterations and evaluations took {summary['seconds']:.0f} s, this command "
        f"{summary['wall_seconds']:.0f} s in all; made again by: {summary['command']}"
    )
    for one in summary["warnings"]:
        typer.echo(f"warning: iteration {one['iteration']}: {one['warning']}")
    typer.echo(f"Report: {out / 'report.html'}")
