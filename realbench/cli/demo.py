"""``realbench demo``: the main job on pictures that need no download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from realbench.cli import options


def demo(
    out: Annotated[Path, options.out("Receives the pictures and the run.", "DIR")] = Path(
        "realbench-demo"
    ),
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> int:
    """Score sample photographs against rendered pictures: no data, no download needed."""
    from realbench.cli.score import finish, progress_bar
    from realbench.demo import make_demo_folders
    from realbench.scoring.run import score

    photographs, renders = make_demo_folders(out)
    shown = not quiet and not json_
    if shown:
        typer.echo(
            "Two sample photographs (scikit-learn) against six pictures rendered "
            "just now: it shows how a run looks. The detectors know such renders from their "
            "training, and these are far too few images to conclude from."
        )
    with progress_bar(shown=shown) as progress:
        run = score(renders, reference=photographs, out=out / "run", progress=progress)
    return finish(run, out=out / "run", quiet=quiet, json_=json_)
