"""``realbench leaderboard``: entries from runs, verified and built into tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realbench.cli import options
from realbench.cli.program import Program
from realbench.text import printable

if TYPE_CHECKING:
    from realbench.leaderboard.standings import Standings

app = Program(help="Start, add to, verify and build leaderboards.")

BoardDir = Annotated[Path, typer.Argument(metavar="BOARD_DIR", help="Folder with a board.toml.")]


@app.command("new")
def new_command(
    *,
    board: Annotated[Path, typer.Argument(metavar="BOARD_DIR", help="The board's new folder.")],
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="A score run, an arena run, or one each.")
    ],
    prompts: options.PromptsNeeded,
    title: Annotated[str, typer.Option(help="The board's title.")],
    min_prompts: Annotated[
        int | None, typer.Option(min=2, help="Least number of prompts. (default: nine in ten)")
    ] = None,
    output: options.Output,
) -> int:
    """Start a board whose entries are made as these runs were: writes its board.toml."""
    from realbench.leaderboard.entry import start_board

    start_board(board, runs, suite=prompts, title=title, min_prompts=min_prompts)
    path = printable(board / "board.toml")
    lines = [f"Wrote {path}: add its limits, and entries with leaderboard add"]
    output.show({"board": path}, lines)
    return 0


@app.command("add")
def add_command(
    *,
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Folder of a score run, an arena run, or one each. An anchor with cross_fit takes "
            "a score run of each fold.",
        ),
    ],
    board: Annotated[Path, typer.Option(metavar="BOARD_DIR", help="Folder with a board.toml.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="The model's name on the board.")],
    meta: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="version, organisation, licence, parameters (12B), date (2026-01), link "
            "(https://…), or sampler.KEY such as sampler.steps; may be repeated.",
        ),
    ] = None,
    folder: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's folder in the runs.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER=NAME", help="An opponent's name on the board; may be repeated."
        ),
    ] = None,
    anchor: Annotated[
        bool, typer.Option("--anchor", help="It is an anchor of the board, such as photographs.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the entry of the same name.")
    ] = False,
    output: options.Output,
) -> int:
    """Write a model's entry: its figures, scores of every image, and how it was made."""
    from realbench.errors import RealBenchError, UsageError
    from realbench.leaderboard.board import ANCHORS, RESULTS, load_board
    from realbench.leaderboard.entry import Description, make_entry, parse_meta, write_entry
    from realbench.leaderboard.names import slug
    from realbench.leaderboard.verify import check_name, entry_problems

    fields, sampler = parse_meta(meta or [])
    renamed = {}
    for pair in rename or []:
        old, sign, new = pair.partition("=")
        if not (old and sign and new):
            raise UsageError(f"--rename takes FOLDER=NAME, not {pair!r}")
        renamed[old] = new
    described = Description({"name": model, **fields}, sampler, folder, renamed, anchor)
    found = load_board(board)
    entry = make_entry(runs, found, described)
    path = board / (ANCHORS if anchor else RESULTS) / f"{slug(model)}.json"
    problem = next(entry_problems(found, entry, path.name, is_anchor=anchor), None)
    if problem is not None:
        raise RealBenchError(f"the board would not take this entry: {problem}")
    check_name(found, entry, path)
    if path.exists() and not replace:
        raise UsageError(
            f"{printable(path)} is there already: give --replace, or the model another name"
        )
    write_entry(entry, path)
    output.show({"entry": printable(path)}, [f"Wrote {printable(path)}"])
    return 0


@app.command("verify")
def verify_command(*, board: BoardDir, output: options.Output) -> int:
    """Verify a board: formats, hashes, figures computed again, duplicates.

    Each violation is one line; the exit code is 1 if there are any.
    """
    from realbench.leaderboard.board import load_board
    from realbench.leaderboard.verify import verify_board

    found = verify_board(load_board(board))
    n = len(found.entries)
    lines = [printable(line) for line in found.violations] or [
        f"{printable(board)}: {n} {'entry' if n == 1 else 'entries'}, no violation"
    ]
    record = {"n_entries": n, "violations": found.violations}
    replace(output, quiet=output.quiet and not found.violations).show(record, lines)
    return 1 if found.violations else 0


@app.command("build")
def build_command(
    *,
    boards: Annotated[
        list[Path], typer.Argument(metavar="BOARD_DIR", help="Folders with a board.toml.")
    ],
    site: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Also collect pages and data there for publishing."),
    ] = None,
    output: options.Output,
) -> int:
    """Build README.md, leaderboard.csv, leaderboard.tex and index.html from the entries.

    Building twice changes nothing; a board with violations is not built.
    """
    from realbench.leaderboard.page import build_board, build_site

    built, lines = {}, []
    for board in boards:
        built[printable(board)] = names = [path.name for path in build_board(board)]
        done = f"wrote {', '.join(names)}" if names else "nothing to change"
        lines.append(f"{printable(board)}: {done}")
    if site is not None:
        build_site(boards, site)
        lines.append(f"Site: {printable(site)}")
    record = {"written": built, "site": None if site is None else printable(site)}
    output.show(record, lines)
    return 0


@app.command("diff")
def diff_command(
    *,
    before: Annotated[Path, typer.Argument(metavar="A", help="A board's folder.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="The same board, later.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    json_: options.Json = False,
) -> int:
    """Print what changed between two states of a board, in rank and score."""
    from realbench.leaderboard.diff import diff_boards, diff_markdown, diff_text

    diff = diff_boards(_standings(before), _standings(after))
    text = diff_markdown(diff) if markdown else diff_text(diff)
    options.Output(json_=json_).show(diff.model_dump(mode="json"), [text])
    return 0


def _standings(folder: Path) -> Standings:
    from realbench.leaderboard.board import load_board
    from realbench.leaderboard.standings import rank_board
    from realbench.leaderboard.verify import require_valid, verify_board

    found = verify_board(load_board(folder))
    require_valid(found)
    return rank_board(found)


@app.command("review")
def review_command(
    *,
    base: Annotated[str, typer.Argument(metavar="BASE", help="The revision that it goes into.")],
    head: Annotated[str, typer.Argument(metavar="HEAD", help="The request's revision.")],
    repository: Annotated[
        Path, typer.Option(metavar="DIR", help="A git repository that has both.")
    ] = Path(),
    out: Annotated[Path | None, options.out("Write what was found as JSON.", "FILE")] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Anything may be changed, as maintainers do.")
    ] = False,
    output: options.Output,
) -> int:
    """Verify the entries that a pull request adds, and that it changes nothing else.

    The request is read from git as data: nothing of it is checked out or run.
    """
    from realbench.leaderboard.diff import diff_text
    from realbench.leaderboard.review import review_request

    found = review_request(repository, base, head, allow_changes=allow_changes)
    if out is not None:
        from realbench.runs.files import write_atomically

        write_atomically(out, found.model_dump_json(indent=2).encode())
    lines = [printable(line) for line in found.violations] or map(diff_text, found.boards)
    record = found.model_dump(mode="json")
    replace(output, quiet=output.quiet and not found.violations).show(record, lines)
    return 1 if found.violations else 0


@app.command("comment")
def comment_command(
    *,
    review: Annotated[Path, typer.Argument(metavar="FILE", help="What review --out wrote.")],
) -> int:
    """Print a review as Markdown for a pull request's comment.

    The file may come from a stranger: it is data, and all its texts are escaped.
    """
    from pydantic import ValidationError

    from realbench.errors import UsageError
    from realbench.leaderboard.review import Review, review_markdown

    try:
        found = Review.model_validate_json(review.read_bytes())
    except ValidationError as error:
        raise UsageError(f"{printable(review)} is no review: write it with review --out") from error
    typer.echo(review_markdown(found), nl=False)
    return 0


@app.command("schema")
def schema_command() -> int:
    """Print the JSON Schema of an entry."""
    from realbench.leaderboard.schema import json_schema

    typer.echo(json_schema().decode(), nl=False)
    return 0
