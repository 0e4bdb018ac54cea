"""``realbench detectors``: list and show the cards, train the embedded families."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from realbench.cli.bench import bench_command

app = typer.Typer(no_args_is_help=True, help="List, show, measure and train detectors.")
app.command("bench")(bench_command)


@app.command("list")
def list_command() -> None:
    """List the detectors that have a card, and which of them have their weights here."""
    from rich.console import Console
    from rich.table import Table

    from realbench.detection.registry import (
        DEFAULT_DETECTORS,
        find_card,
        list_detectors,
        plugin_cards,
    )

    table = Table("detector", "level", "family", "weights", "what it does")
    cards = [find_card(name) for name in list_detectors()]
    missing = {card.name for card in cards if card.whats_missing()}
    plugins, left_out = plugin_cards()
    for card in sorted(cards, key=lambda card: card.name in missing):
        weights = "needs them" if card.name in missing else "here"
        if card.name in DEFAULT_DETECTORS:
            weights = "bundled, default"
        table.add_row(card.name, card.level, card.family, weights, card.description)
        elif card.name in plugins and not card.parts:
            weights = "none needed"
    console = Console()
    console.print(table)
    if missing:
        console.print("realbench detectors show NAME tells how to get the weights of one.")

    for line in left_out:
        typer.echo(f"warning: {line}", err=True)

@app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="A detector's name, or a card's folder.")],
) -> None:
    """Print a detector's card and fingerprint."""
    from realbench.detection.cards import CARD_FILE
    from realbench.detection.registry import find_card

    card = find_card(name)
    typer.echo((card.path / CARD_FILE).read_text(encoding="utf-8").rstrip())
    missing = card.whats_missing()
    state = f"not usable here yet: {missing}" if missing else f"fingerprint {card.fingerprint}"
    typer.echo(f"\n# {state}\n# in {card.path}")


@app.command("train")
def train_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Detectors whose recipe.toml to follow (default: the embedded pair)."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with a manifest.csv (path,label,source,prompt_id).")
    ] = None,
    photos: Annotated[
        list[Path] | None, typer.Option(help="Folder of photographs; may be repeated.")
    ] = None,
    generated: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of generated images, a sub-folder per model; repeatable."),
    ] = None,
    autoencoder: Annotated[
        Path | None, typer.Option(help="Folder of the TAEF2 weights, for round trips.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Another recipe.toml, with exactly one name.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Receives a folder per detector.")] = Path(
        "trained-detectors"
    ),
    work: Annotated[
        Path | None, typer.Option(help="What is done so far [default: OUT/.work].")
    ] = None,
    training_views: Annotated[
        int | None, typer.Option(min=1, help="Fewer or more views of an image than the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the recipe's.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at a time [default: one per core].")
    ] = None,
    keep_folds: Annotated[
        Path | None,
        typer.Option(help="Receives each fold's networks as detectors, for cross-fitting."),
    ] = None,
) -> None:
    """Train, cross-validate and calibrate the embedded families on photographs and fakes.

    Run it again with the same OUT to go on after an interruption.
    """
    import sys

    from realbench.content import content_path
    from realbench.detection.registry import DEFAULT_DETECTORS
    from realbench.detection.training.recipe import read_recipe
    from realbench.detection.training.train import train_detectors
    from realbench.errors import UsageError

    chosen = names or list(DEFAULT_DETECTORS)
    if recipe is not None and len(chosen) != 1:
        raise UsageError("--recipe goes with exactly one detector name")
    recipes = {
        name: read_recipe(recipe or content_path("detectors") / name / "recipe.toml")
        for name in chosen
    }
    changes = {
        k: v for k, v in (("training_views", training_views), ("seed", seed)) if v is not None
    }
    train_detectors(
        {name: one.model_copy(update=changes) for name, one in recipes.items()},
        out=out,
        work=work or out / ".work",
        data=data,
        photos=photos or (),
        generated=generated or (),
        autoencoder=autoencoder,
        workers=workers,
        keep_folds=keep_folds,
        command=_without_paths(sys.argv[1:]),
        report=lambda line: typer.echo(line, err=True),
    )


def _without_paths(arguments: list[str]) -> str:
    """Return the command line without the folders that decide nothing."""
    import shlex

    names = ("--work", "--keep-folds")
    kept = [one for one in arguments if not one.startswith(tuple(f"{n}=" for n in names))]
    for name in names:
        if name in kept:
            del kept[(at := kept.index(name)) : at + 2]
    return shlex.join(["realbench", *kept])
