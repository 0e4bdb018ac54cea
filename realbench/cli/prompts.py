"""``realbench prompts``: list, show and export suites, and import those of others."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from realbench.cli import options
from realbench.cli.program import Program
from realbench.cli.terminal import plain_console
from realbench.text import printable

app = Program(help="List, show, export and import prompt suites.")

_columns = partial(typer.Option, rich_help_panel="Columns of JSON, CSV, Parquet and datasets")
_numbers = partial(typer.Option, rich_help_panel="Ids by number")
_datasets = partial(typer.Option, rich_help_panel="Datasets (hf:)")


@app.command("list")
def list_command(json_: options.Json = False) -> None:
    """List the bundled suites."""
    from realbench.prompts import list_suites, load_suite

    suites = [load_suite(name) for name in list_suites()]
    if json_:
        records = [one.describe() | {"categories": one.categories} for one in suites]
        options.Output(json_=True).show(records)
        return
    from rich.table import Table

    table = Table()
    for name in ("suite", "version", "prompts", "sha256"):
        table.add_column(name, no_wrap=True)
    table.add_column("what it is")
    for suite in suites:
        count = str(len(suite.prompts))
        table.add_row(suite.name, suite.version, count, suite.sha256[:12], suite.description)
    plain_console().print(table)


@app.command("show")
def show_command(
    suite: options.Suite,
    category: Annotated[
        list[str] | None, typer.Option(help="Only this category; may be repeated.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only what has this tag; repeated: all of them.")
    ] = None,
    id_: Annotated[
        list[str] | None, typer.Option("--id", help="Only this prompt; may be repeated.")
    ] = None,
    long: Annotated[bool, typer.Option("--long", help="Print the long forms.")] = False,
) -> None:
    """Print a suite: version, hash, categories and its prompts."""
    from realbench.errors import UsageError
    from realbench.prompts import load_suite

    loaded = load_suite(suite)
    prompts = [
        one
        for one in loaded.prompts.values()
        if (not category or one.category in category)
        and (not id_ or one.id in id_)
        and set(tag or ()) <= set(one.tags)
    ]
    if not prompts:
        raise UsageError(
            f"{loaded.name} has no such prompt; its categories are "
            f"{', '.join(loaded.categories) or 'none'}"
        )
    typer.echo(f"# {loaded.name}{f' {loaded.version}' if loaded.version else ''}")
    if loaded.description:
        typer.echo(f"# {loaded.description}")
    typer.echo(f"# sha256 {loaded.sha256}")
    shown = "" if len(prompts) == len(loaded.prompts) else f"{len(prompts):,} of "
    typer.echo(f"# {shown}{len(loaded.prompts):,} prompts")
    if loaded.categories:
        counts = ", ".join(f"{name} {n}" for name, n in loaded.categories.items())
        typer.echo(f"# categories: {counts}")
    for one in prompts:
        text = (one.prompt_long if long else None) or one.prompt
        typer.echo(f"{one.id}\t{' '.join(text.split())}")


@app.command("export")
def export_command(
    suite: options.Suite,
    format_: Annotated[
        Literal["jsonl", "csv", "txt"] | None,
        typer.Option(
            "--format", help="txt: a prompt a line, without ids. (default: by --out, else jsonl)"
        ),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="Each prompt in its long form, in place of the short.")
    ] = False,
    out: Annotated[
        Path | None, options.out("Write to a file, not to the terminal.", "FILE")
    ] = None,
) -> None:
    """Write a suite as JSONL, CSV or plain text."""
    from realbench.prompt_records import EXPORT_FORMATS, export_prompts
    from realbench.prompts import load_suite

    ending = out.suffix.lower().removeprefix(".") if out is not None else ""
    chosen = format_ or (ending if ending in EXPORT_FORMATS else "jsonl")
    loaded = load_suite(suite)
    text = export_prompts(loaded, chosen, long=long)  # type: ignore[arg-type]
    if out is None:
        typer.echo(text, nl=False)
    else:
        _write(out, text)
        typer.echo(f"{len(loaded.prompts):,} prompts in {out}", err=True)


@app.command("import")
def import_command(
    source: Annotated[
        str, typer.Argument(metavar="FILE|hf:DATASET", help="What to read, by its ending.")
    ],
    out: Annotated[Path, options.out("The JSONL file to write.", "FILE")],
    format_: Annotated[
        Literal["txt", "jsonl", "json", "csv", "tsv", "parquet"] | None,
        typer.Option("--format", help="txt: a prompt a line. (default: by the file's ending)"),
    ] = None,
    prompt_column: Annotated[
        str | None, _columns(metavar="NAME", help="(default: prompt, Prompt, text or caption)")
    ] = None,
    id_column: Annotated[
        str | None, _columns(metavar="NAME", help="(default: id; without one, rows are numbered)")
    ] = None,
    category_column: Annotated[
        str | None, _columns(metavar="NAME", help="(default: category)")
    ] = None,
    long_column: Annotated[
        str | None, _columns(metavar="NAME", help="(default: prompt_long)")
    ] = None,
    tags_column: Annotated[str | None, _columns(metavar="NAME", help="(default: tags)")] = None,
    number: Annotated[
        bool, _numbers("--number", help="Number rows although they have an id.")
    ] = False,
    start: Annotated[int, _numbers(min=0, help="The first row's or line's.")] = 0,
    digits: Annotated[int, _numbers(min=1, max=20, help="Filled with zeros.")] = 5,
    split: Annotated[str | None, _datasets(help="(default: the only one)")] = None,
    config: Annotated[str | None, _datasets(help="(default: the only one)")] = None,
    revision: Annotated[str | None, _datasets(help="Branch, tag or commit.")] = None,
) -> None:
    """Turn prompts of others into a suite's JSONL file.

    In a text file line 1 is the prompt of image 00000, line 2 of 00001.
    """
    from realbench.errors import UsageError
    from realbench.prompt_import import Columns, DatasetPart, Numbering, import_prompts
    from realbench.prompt_records import export_prompts

    if out.exists() and Path(source).exists() and out.samefile(source):
        raise UsageError(f"--out would overwrite {printable(out)}: give another file")
    suite = import_prompts(
        source,
        format=format_,
        columns=Columns(id_column, prompt_column, category_column, long_column, tags_column),
        numbering=Numbering(number, start, digits),
        part=DatasetPart(config, split, revision),
    )
    _write(out, export_prompts(suite))
    first = next(iter(suite.prompts.values()))
    text = " ".join(first.prompt.split())
    typer.echo(
        f"{len(suite.prompts):,} prompts in {out}, sha256 {suite.sha256[:12]}\n"
        f"{first.id}: {text if len(text) <= 80 else f'{text[:79]}…'}",
        err=True,
    )


def _write(out: Path, text: str) -> None:
    from realbench.errors import RealBenchError
    from realbench.files import write_whole

    try:
        write_whole(out, lambda partial: partial.write_bytes(text.encode("utf-8")))
    except OSError as error:
        raise RealBenchError(
            f"cannot write {printable(out)}: {error.strerror or error}; give another --out"
        ) from error
