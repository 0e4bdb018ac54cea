"""``realbench quality``: measures of image quality and alignment, reported beside realism."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from realbench.cli import options
from realbench.cli.program import Program
from realbench.cli.terminal import add_texts, plain_console, show_card

if TYPE_CHECKING:
    from realbench.quality.cards import MeasureCard

app = Program(help="List and show measures of quality and alignment.")


@app.command("list")
def list_command(json_: options.Json = False) -> None:
    """List the measures, what they read, and which have their weights here."""
    from rich.table import Table

    from realbench.quality.cards import find_measure, list_measures

    cards = [find_measure(name) for name in list_measures()]
    if json_:
        keys = ("name", "reads", "description", "missing")
        rows = [(c.name, _reads(c), c.description, c.whats_missing() or None) for c in cards]
        options.Output(json_=True).show([dict(zip(keys, row, strict=True)) for row in rows])
        return
    table = Table("measure", "reads", "weights", "what it does")
    for card in cards:
        weights = "needs them" if card.whats_missing() else "here"
        add_texts(table, (card.name, _reads(card), weights, card.description))
    console = plain_console()
    console.print(table)
    console.print("Use one: realbench score FOLDER --prompts SUITE --quality NAME")


def _reads(card: MeasureCard) -> str:
    return "image, prompt" if card.needs_prompt else "image"


@app.command("show")
def show_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME|CARD_DIR", help="A measure's name, or a card's folder.")
    ],
    json_: options.Json = False,
) -> None:
    """Print a measure's card and fingerprint, and how to get what is missing."""
    from realbench.quality.cards import MEASURE_FILE, find_measure

    card = find_measure(name)
    show_card(card, card.path / MEASURE_FILE, options.Output(json_=json_))
