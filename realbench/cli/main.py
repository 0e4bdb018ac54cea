"""The commands of ``realbench``."""

from __future__ import annotations

from typing import Annotated

import typer

from realbench.cli import arena, detectors, leaderboard, prompts, quality, train
from realbench.cli.demo import demo
from realbench.cli.generate import generate
from realbench.cli.score import score
from realbench.cli.serve import serve
from realbench.version import __version__

app = typer.Typer(
    name="realbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How photoreal are these generated images?",
    epilog="Start with: realbench demo",
)
app.command()(score)
app.command()(demo)
app.command()(generate)
app.command()(serve)
app.add_typer(arena.app, name="arena")
app.add_typer(detectors.app, name="detectors")
app.add_typer(leaderboard.app, name="leaderboard")
app.add_typer(prompts.app, name="prompts")
app.add_typer(quality.app, name="quality")
app.add_typer(train.app, name="realgen-train")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"realbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
) -> None:
    pass
