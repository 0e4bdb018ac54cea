"""The options of the commands, declared once, so that they mean and say the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from realbench.seeds import MAX_SEED

# --- What is read ------------------------------------------------------------------------------

Folders = Annotated[
    list[Path], typer.Argument(metavar="FOLDER", help="A folder of images per model, or set:NAME.")
]
_PHOTOS = "Folder of photographs to compare with, or set:NAME"
Reference = Annotated[Path | None, typer.Option(metavar="PHOTOS", help=f"{_PHOTOS}.")]
ReferenceNeeded = Annotated[Path, typer.Option("--reference", metavar="PHOTOS", help=f"{_PHOTOS}.")]
References = Annotated[
    list[Path], typer.Option("--reference", metavar="PHOTOS", help=f"{_PHOTOS}; may be repeated.")
]
Generated = Annotated[
    list[Path],
    typer.Option(
        metavar="DIR", help="Folder of a generator's images, or set:NAME; may be repeated."
    ),
]
SUITE = "SUITE|FILE"
_SUITE = "A suite's name, set:NAME, or a file of prompts (JSONL, CSV, TSV, JSON, TXT, Parquet)"
Prompts = Annotated[
    str | None, typer.Option(metavar=SUITE, help=f"{_SUITE}; an image's stem is its prompt's id.")
]
PromptsNeeded = Annotated[str, typer.Option("--prompts", metavar=SUITE, help=f"{_SUITE}.")]
Suite = Annotated[str, typer.Argument(metavar=SUITE, help=f"{_SUITE}.")]

# --- What judges -------------------------------------------------------------------------------

Detector = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME|CARD_DIR",
        help="Detector to use, or ensemble:NAME; may be repeated. (default: the embedded pair)",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE",
        help="Weights of a detector or measure that come from elsewhere; may be repeated. "
        "(see: realbench detectors list)",
    ),
]

# --- How it is computed ------------------------------------------------------------------------

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, …")]
Precision = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(help="bfloat16 for published networks on GPUs: scores move a little."),
]
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


@dataclass(frozen=True)
class Computing:
    """How detectors score files: a command takes these options as its own."""

    weights: Weights = None
    device: Device = "auto"
    precision: Precision = "float32"
    batch_size: BatchSize = None
    workers: Workers = None
    max_pixels: MaxPixels = MAX_PIXELS
    no_cache: NoCache = False
    matched: Matched = False

    def settings(self) -> dict[str, Any]:
        """Return them as the functions that score take them."""
        from realbench.detection.weight_files import parse_weights

        found = dict(vars(self), weights=parse_weights(self.weights or []))
        found.pop("detector", None)
        return found | {"cache": not found.pop("no_cache")}


@dataclass(frozen=True)
class Scoring(Computing):
    """Which detectors score files, and how."""

    detector: Detector = None


def seed(what: str) -> Any:
    """Return the option of a seed, which takes those that every library takes.

    Args:
        what: its help text: of what it is the seed.
    """
    return typer.Option("--seed", min=0, max=MAX_SEED, help=what)


# --- What is written and printed ---------------------------------------------------------------


def out(what: str, metavar: str = "RUN") -> Any:
    """Return the option of what a command writes.

    Args:
        what: its help text.
        metavar: ``RUN``, ``DIR`` or ``FILE``.
    """
    return typer.Option("--out", metavar=metavar, help=what)


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


@dataclass(frozen=True)
class Output:
    """What a command prints: a command takes these options as its own."""

    quiet: Quiet = False
    json_: Json = False

    @property
    def in_words(self) -> bool:
        """Whether there is room for a bar of progress and for words."""
        return not self.quiet and not self.json_

    def show(self, found: Any, lines: Iterable[str] = (), *, indent: int | None = None) -> None:
        """Print what a command found: as JSON, in lines, or not at all."""
        if self.json_:
            typer.echo(json.dumps(found, indent=indent))
        elif not self.quiet:
            for line in lines:
                typer.echo(line)
