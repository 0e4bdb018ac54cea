"""The commands of ``realbench``."""

from __future__ import annotations

from realbench.cli import arena, detectors, judges, leaderboard, prompts, quality, sets, train
from realbench.cli.generate import generate
from realbench.cli.program import Program, add_version
from realbench.cli.score import demo, score
from realbench.cli.serve import serve

app = Program(
    name="realbench",
    help="How photoreal are these generated images?",
    epilog="Start with: realbench demo",
)
add_version(app, "realbench")
app.command()(score)
app.command()(demo)
app.command()(generate)
app.command()(serve)
app.add_typer(arena.app, name="arena")
app.add_typer(detectors.app, name="detectors")
app.add_typer(judges.app, name="judges")
app.add_typer(leaderboard.app, name="leaderboard")
app.add_typer(prompts.app, name="prompts")
app.add_typer(quality.app, name="quality")
app.add_typer(sets.app, name="sets")
app.add_typer(train.app, name="realgen-train")
