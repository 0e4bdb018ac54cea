"""``realbench detectors fuse``: weights of an ensemble, fitted on images whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.calibrate import number
from realbench.cli.score import progress_bar
from realbench.text import printable


def fuse_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the ensemble is called.")],
    reference: options.References,
    generated: options.Generated,
    detector: options.Detector = None,
    weights: options.Weights = None,
    out: Annotated[
        Path | None,
        options.out("File that receives it. (default: ensembles.toml in this folder)", "FILE"),
    ] = None,
    matched: options.Matched = False,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    max_pixels: options.MaxPixels = options.MAX_PIXELS,
    no_cache: options.NoCache = False,
    seed: Annotated[int, options.seed("Of the bootstrap.")] = 0,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> None:
    """Fit the weights of an ensemble, and compare it with the plain average on held-out images.

    realbench detectors fuse mine --detector trace-lite --detector ./my_detectors/mine
    --reference photos --generated flux-dev --generated sdxl

    realbench score ./new --detector ensemble:mine

    Weights are at least 0. Use images that the detectors did not learn from.
    """
    from realbench.bench.fuse import fuse
    from realbench.detection.ensembles import own_file
    from realbench.detection.registry import DEFAULT_DETECTORS
    from realbench.detection.weight_files import parse_weights

    with progress_bar(shown=not quiet and not json_) as progress:
        found = fuse(
            detector or DEFAULT_DETECTORS,
            reference,
            generated,
            name=name,
            out=out or own_file(),
            matched=matched,
            weights=parse_weights(weights or []),
            device=device,
            batch_size=batch_size,
            workers=workers,
            max_pixels=max_pixels,
            cache=not no_cache,
            seed=seed,
            progress=progress,
        )
    if json_:
        import json

        typer.echo(json.dumps(found))
        return
    if quiet:
        return
    for line in _lines(found):
        typer.echo(line)


_VERDICTS = {
    (True, True): "The fusion is better than the plain average, in ranks and probabilities.",
    (True, False): "The fusion ranks better than the plain average; its probabilities are no "
    "better.",
    (False, True): "The fusion is not better at ranking than the plain average, but its "
    "probabilities are: for rankings and rewards the average will do.",
    (False, False): "The fusion is not better than the plain average on these images: prefer that.",
}


def _lines(found: dict[str, Any]) -> Iterator[str]:
    shown = ", ".join(f"{name} {weight:g}" for name, weight in found["weights"].items())
    yield f"ensemble:{found['name']}: {shown}, bias {found['bias']:g}"
    for key, label in (("average", "plain average"), ("fusion", "fusion")):
        one = found[key]
        yield f"  {label}: AUC {number(one['auc'])}, log loss {number(one['log_loss'])}"
    yield (
        f"  the fusion gains {number(found['auc_gained'])} of AUC and saves "
        f"{number(found['log_loss_saved'])} of log loss"
    )
    yield (
        f"  ({found['n_real']} photographs, {found['n_generated']} generated images, fitted "
        f"without their {found['held_out']}; 95 % intervals over prompts)"
    )
    yield f"  {_VERDICTS[found['ranks_better'], found['better_probabilities']]}"
    yield from (f"  Note: {note}" for note in found["notes"])

    yield f"  Saved in {printable(found['path'])}; use: --detector ensemble:{found['name']}"
