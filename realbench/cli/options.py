"""Options that several commands have, so that they mean and say the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from realbench.seeds import MAX_SEED

Generated = Annotated[
    list[Path],
    typer.Option(metavar="DIR", help="Folder of a generator's images; may be repeated."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, …")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images a batch. (default: by device)")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Decoding threads. (default: one per core)")
]
MaxPixels = Annotated[int, typer.Option(min=1, help="Larger images are reported, not decoded.")]
MAX_PIXELS = 250_000_000  # images.DEFAULT_MAX_PIXELS, without loading numpy for a help text
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither look scores up nor keep them.")]
Matched = Annotated[
    bool,
    typer.Option(
        "--matched", help="Bring all images to one shape, size and format: 512 px, JPEG 90."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def seed(what: str) -> Any:
    """Return the option of a seed, which takes those that every library takes.

    Args:
        what: its help text: of what it is the seed.
    """
    return typer.Option(min=0, max=MAX_SEED, help=what)
