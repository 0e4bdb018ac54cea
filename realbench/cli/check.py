"""``realbench detectors check``: which detectors work on this machine, and how fast?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options

if TYPE_CHECKING:
    from realbench.bench.check import Checked


def check_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|CARD_DIR|ensemble:NAME", help="Detectors to try. (default: all)"
        ),
    ] = None,
    weights: options.Weights = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> int:
    """Load each detector that is complete here and have it score a test card.

    realbench detectors check

    realbench detectors check npr ./my_detectors/mine --device cuda

    Prints P(real) of the test card (a rendered picture), images/s and memory; for a detector that
    lacks something, what. Nothing is downloaded. The exit code is 1 if one fails that is complete.
    """
    from realbench.bench.check import check_detectors
    from realbench.detection.registry import list_detectors
    from realbench.detection.weight_files import parse_weights
    from realbench.scoring.run import find_cards

    cards = find_cards(names or list_detectors(), parse_weights(weights or []))
    cards = sorted(cards, key=lambda card: bool(card.whats_missing()))
    shown = not quiet and not json_
    found = check_detectors(cards, device=device, report=_report if shown else None)
    failed = [one.name for one in found if one.failure]
    usable = sum(not one.missing and not one.failure for one in found)
    if json_:
        import json

        typer.echo(json.dumps([_as_json(one) for one in found]))
    elif not quiet:
        typer.echo(f"{usable} of {len(found)} can be used here")
    if failed:
        typer.echo(f"error: failed though complete: {', '.join(failed)}", err=True)
    return 1 if failed else 0


def _as_json(one: Checked) -> dict[str, Any]:
    tried = not (one.missing or one.failure)
    return {
        "name": one.name,
        "missing": one.missing or None,
        "failure": one.failure or None,
        "realism": one.realism if tried else None,
        "images_per_second": one.speed if tried else None,
        "memory_bytes": one.memory if tried else None,
    }


def _report(one: Checked) -> None:
    if one.missing:
        typer.echo(f"{one.name}: not here: {one.missing}")
    elif one.failure:
        typer.echo(f"{one.name}: FAILED: {one.failure}")
    else:
        memory = one.memory / 2**20
        typer.echo(
            f"{one.name}: works: P(real) {one.realism:.3f}, {one.speed:.1f} images/s, "
            f"{memory:.0f} MiB"
        )
