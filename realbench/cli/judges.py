"""``realbench judges``: how far the arena's judges can be trusted."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.arena import Judging, draw_progress
from realbench.cli.program import Program
from realbench.cli.terminal import (
    add_texts,
    figures_table,
    plain_console,
    print_table,
    progress_bar,
)
from realbench.errors import UsageError
from realbench.report.wording import figure
from realbench.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from realbench.arena.judge_bench import JudgeBench

app = Program(help="Measure the arena's judges against the truth and against people.")


@app.callback()
def _group() -> None:
    """Keep ``bench`` a command of its own while it is the only one."""


@app.command("bench")
def bench_command(
    *,
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="A folder that arena wrote: its judges are measured."),
    ] = None,
    reference: options.Reference = None,
    generated: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder of a generator's images; may be repeated."),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JUDGE", help="As arena takes it; may be repeated. (default: detectors)"
        ),
    ] = None,
    prompts: options.Prompts = None,
    robust: Annotated[
        bool,
        typer.Option("--robust", help="Ask again about re-encoded and scaled-down pictures."),
    ] = False,
    sample: Annotated[int, typer.Option(min=2, help="Pairs that --robust asks about.")] = 64,
    max_votes: Annotated[
        int | None, typer.Option(min=1, help="Votes that each judge is asked for, at most.")
    ] = None,
    judging: Judging,
    out: Annotated[
        Path | None,
        options.out("Keep the votes, judges.csv, judges.json and judges.html. (default: RUN)"),
    ] = None,
    seed: Annotated[
        int, options.seed("Of the order of pairs, of --sample and of the bootstrap.")
    ] = 0,
    output: options.Output,
) -> None:
    """Measure judges: accuracy, agreement with people, bias, calibration, refusals, time and cost.

    realbench judges bench --reference photos --generated sdxl --judge openai:gpt-4o --out JUDGES

    realbench judges bench RUN

    The first form asks judges about pairs of a photograph and a generated picture; the same command
    goes on after an interruption. The second measures all judges of an arena, against its
    photographs and against the people who voted there (--judge human, or an import).
    """
    from realbench.arena.judge_bench import ask_judges, measure_judges, write_judge_bench
    from realbench.arena.results import ArenaRun
    from realbench.arena.run import DEFAULT_JUDGES

    asks = reference is not None and bool(generated)
    if run is not None and (reference or generated or judge or robust):
        raise UsageError("RUN has its judges and pictures: leave out the options that name others")
    if run is None and not (asks and out is not None):
        raise UsageError(
            "name a RUN that arena wrote; or --reference, --generated and --out to ask judges"
        )
    if output.quiet:
        warnings.simplefilter("ignore")
    if run is not None:
        found = measure_judges(ArenaRun.read(run), seed=seed)
        folder = out or run
    else:
        assert reference is not None
        assert generated is not None
        assert out is not None
        with progress_bar(draw_progress, shown=output.in_words) as progress:
            asked, changed = ask_judges(
                generated,
                reference,
                judge=judge or DEFAULT_JUDGES,
                out=out,
                robust=robust,
                sample=sample,
                prompts=prompts,
                max_votes=max_votes,
                seed=seed,
                options=judging.judge_options(),
                progress=progress,
            )
        found, folder = measure_judges(asked, changed=changed, seed=seed), out
    report = write_judge_bench(found, folder)
    if output.in_words:
        _print(found, report)
    else:
        output.show(found)


def _print(found: JudgeBench, report: Path) -> None:
    from realbench.arena.report.judges import headline

    console = plain_console()
    print_table(console, _measures(found), names=1)
    lines = [headline(found) + "."]
    if found["people"]["estimate"] is not None:
        share, n = figure(found["people"], inline=True), found["people"]["n"]
        lines.append(f"Two people say the same of a pair in {share}, n = {n:,}.")
    for one in found["robustness"]:
        if one["same"]["estimate"] is not None:
            same, right = (figure(one[key], inline=True) for key in ("same", "accuracy"))
            lines.append(
                f"{one['judge']}, both pictures {one['change']}: the same result in {same}, the "
                f"photograph preferred in {right}, n = {one['same']['n']:,}."
            )
    lines += [f"Note: {note}" for note in found["notes"]]
    lines.append(f"Report: {report}")
    for line in lines:
        console.print(printable(line))


def _measures(found: JudgeBench) -> Table:
    from rich.text import Text

    from realbench.arena.report.judges import DIGITS, TITLES

    table = figures_table("below each figure its 95 % interval over prompts, and n")
    table.add_column("measure", min_width=12)
    for one in found["judges"]:
        header = Text(printable(one["judge"]))
        table.add_column(header, justify="right", overflow="fold", min_width=11)
    for name, title in TITLES.items():
        values: list[Any] = [one[name] for one in found["judges"]]  # type: ignore[literal-required]
        if any(value["estimate"] is not None for value in values):
            digits = DIGITS.get(name, 2)
            cells = [f"{figure(v, digits)}\nn {v['n']:,}" if v["n"] else "–" for v in values]
            add_texts(table, [title, *cells])
    return table
