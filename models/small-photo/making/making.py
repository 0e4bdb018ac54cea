"""Makes all that the demo ships: the model, what is usual for photographs, and the two judges.

``python models/small-photo/making/making.py --data PHOTOS --out FOLDER [--detectors FOLDER]``
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from photographs import captioned_photographs, centre_crop, read_small
from pretrain import PretrainSettings, pretrain

from realbench.cli import options
from realbench.cli.program import run
from realbench.cli.terminal import stage_bar
from realbench.generation.small_photo import load_small_photo
from realbench.train.demo.quality import QualityGuard
from realbench.train.demo.run import GUARD_FILE


def make_demo(
    data: Path,
    out: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    work: Path | None = None,
    detectors: Path | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train the model, and the judges where a folder is given for them; what is done stays.

    Args:
        data: Folder with captioned photographs.
        out: Folder of the model.
        steps: Of the model's training, other than the default.
        work: Folder of what is done so far, ``<out>-training`` by default.
        detectors: Folder that receives the judges' folders.
        on_step: Called with the step, the number of steps and the loss.
        report: Receives a line per finished part.

    Returns:
        The record of the model's training.

    Raises:
        UsageError: there are no photographs, or ``work`` is of another run.
    """
    settings = PretrainSettings(seed=seed)
    if steps is not None:
        settings = PretrainSettings(seed=seed, steps=steps)
    work = work or out.with_name(f"{out.name}-training")
    torch.set_num_threads(1)
    record = pretrain(data, out, settings, work=work, on_step=on_step)
    photographs = captioned_photographs(data)
    crops = np.stack([centre_crop(read_small(one.path), settings.size) for one in photographs])
    QualityGuard.of_photographs(crops.transpose(0, 3, 1, 2)).write(out / GUARD_FILE)
    if detectors is not None:
        from judges import train_heldout, train_reward

        pipeline = load_small_photo(out)
        pipeline.set_progress_bar_config(disable=True)
        train_reward(pipeline, photographs, detectors, work / "judges", report=report)
        train_heldout(pipeline, photographs, detectors)
    return record


def main(
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Photographs with a prompts.jsonl beside them.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives the model.")],
    detectors: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also train the demo's two judges; receives their folders."
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Checkpoint and samples [default: OUT-training]."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Other than 3200.")] = None,
    seed: Annotated[int, options.seed("Of every random choice.")] = 0,
    quiet: options.Quiet = False,
) -> None:
    """Make the demo's small model from captioned photographs (about 40 minutes on one core).

    Run it again with the same OUT to go on after an interruption.
    """
    with stage_bar(shown=not quiet, stage="photographs") as bar:

        def on_step(done: int, total: int, loss: float) -> None:
            if bar is not None:
                bar.enter("training", total)
                bar.show(done, total, f"loss {loss:.3f}")

        record = make_demo(
            data,
            out,
            steps=steps,
            seed=seed,
            work=work,
            detectors=detectors,
            on_step=on_step,
            report=(lambda _: None) if quiet else typer.echo,
        )
    if not quiet:
        loss, seconds = record["loss"][-1][1], record["seconds"]
        typer.echo(
            f"{record['photographs']} photographs, {record['settings']['steps']} steps, "
            f"loss {loss:.3f}, {seconds:.0f} s: {out}"
        )


if __name__ == "__main__":
    app = typer.Typer()
    app.command()(main)
    run(program=app, name="making.py")
