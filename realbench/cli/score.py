"""``realbench score``: how photoreal are these folders?"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.terminal import (
    StageBar,
    add_texts,
    figures_table,
    plain_console,
    print_table,
    progress_bar,
)
from realbench.report.wording import figure, rank_range, ties
from realbench.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from realbench.distances.compare import Distances
    from realbench.scoring.records import MeasureUsed, Summary
    from realbench.scoring.run import Progress, ScoreRun


def score(
    *,
    folders: options.Folders,
    reference: options.Reference = None,
    prompts: options.Prompts = None,
    scoring: options.Scoring,
    quality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|CARD_DIR",
            help="Measure of quality or alignment to report beside realism, never mixed into it; "
            "may be repeated. (see: realbench quality list)",
        ),
    ] = None,
    out: Annotated[
        Path | None, options.out("Write scores.csv, summary.json, run.json, report.html.")
    ] = None,
    distances: Annotated[
        bool,
        typer.Option(
            "--distances",
            help="Compare each folder as a whole with the photographs, too: FD, KD, two-sample "
            "test, precision, recall, density, coverage. (needs --reference)",
        ),
    ] = False,
    max_false_alarm: Annotated[
        float,
        typer.Option(
            help="Share of photographs that verdicts may call generated, and of generated images "
            "photographs; the rest is called unsure."
        ),
    ] = 0.05,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any image is unreadable.")
    ] = False,
    seed: Annotated[int, options.seed("Of the bootstrap.")] = 0,
    output: options.Output,
) -> int:
    """Score folders of images: P(real) of each image, ranking, intervals.

    A folder is a model, a file's stem the id of its prompt.

    Run the same command again to go on after an interruption.
    """
    from realbench.detection.registry import DEFAULT_DETECTORS
    from realbench.scoring.run import score as score_folders

    if output.quiet:
        warnings.simplefilter("ignore")
    with scoring_bar(shown=output.in_words) as progress:
        run = score_folders(
            *folders,
            prompts=prompts,
            reference=reference,
            detectors=scoring.detector or DEFAULT_DETECTORS,
            quality=quality or (),
            out=out,
            distances=distances,
            max_false_alarm=max_false_alarm,
            seed=seed,
            progress=progress,
            **scoring.settings(),
        )
    return finish(run, out, output, strict=strict)


def finish(run: ScoreRun, out: Path | None, output: options.Output, *, strict: bool = False) -> int:
    """Print a run and return the exit code."""
    if output.in_words:
        print_run(run, out)
    else:
        output.show(run.summary)
    failed = len(run.failures)
    if not run.n_scored:
        typer.echo(f"error: none of the {failed} images could be read: {_first(run)}", err=True)
        return 1
    if strict and failed:
        typer.echo(f"error: {failed} unreadable (--strict), first {_first(run)}", err=True)
        return 1
    return 0


def _first(run: ScoreRun) -> str:
    row = run.failures.iloc[0]
    return f"{row['folder']}/{row['image']}: {row['reason']}"


def _draw(bar: StageBar, progress: Progress) -> None:
    bar.enter("scoring", progress.total)
    bar.show(progress.done, progress.total, f"{bar.speed:.1f} images/s" if bar.speed else "")


scoring_bar = partial(progress_bar, _draw, stage="scoring")
"""Yields a callback that draws a bar with images/s and time left, on a terminal alone."""


# --- What is printed ---------------------------------------------------------------------------


def print_run(run: ScoreRun, out: Path | None) -> None:
    """Print the ranking, what the data do not separate, failures and where the files are."""
    console = plain_console()
    print_table(console, _ranking(run.summary), names=2 if len(run.summary["folders"]) > 1 else 1)
    if run.summary["verdict"]:
        print_table(console, _verdicts(run.summary))
    if run.manifest.get("quality"):
        print_table(console, _quality(run.summary, run.manifest["quality"]))
    if record := run.summary.get("distances"):
        print_table(console, _distances(record))
    notes = [f"Note: {note}" for note in run.summary["notes"]]
    for line in [*ties(run.summary["pairs"], "Holm-adjusted"), *notes]:
        console.print(printable(line))
    _print_failures(run, console)
    if out is not None:
        console.print(printable(f"Report: {out / 'report.html'}"))


def _ranking(summary: Summary) -> Table:
    from rich.text import Text

    table = figures_table(
        "P(real) in [0, 1], higher is more real; below it the 95 % interval over prompts"
    )
    several = len(summary["folders"]) > 1
    reference = summary["reference"]
    names = list(summary["folders"][0]["detectors"])
    headers = ["n", "realism", "escape\nrate", *names, *(["AUC vs\nphotos"] if reference else [])]
    if several:
        table.add_column("rank", justify="right")
    table.add_column("folder", min_width=11)
    for header in headers:
        width = None if header == "n" else len("0.00–0.00")
        table.add_column(Text(header), justify="right", overflow="fold", min_width=width)
    ranked = sorted(summary["folders"], key=lambda entry: entry["rank"] or sys.maxsize)
    for entry in [*([reference] if reference else []), *ranked]:
        is_photos = entry is reference
        rank = "" if entry.get("rank") is None else rank_range(entry)
        row = [*([rank] if several else []), _folder(entry, reference), _count(entry)]
        row += [figure(entry["realism"]), figure(entry["escape_rate"])]
        row += [figure(entry["detectors"][name]) for name in names]
        if reference:
            row.append("" if is_photos else figure(entry["auc"]))
        add_texts(table, row, style="dim" if is_photos else None, end_section=is_photos)
    return table


def _verdicts(summary: Mapping[str, Any]) -> Table:
    """The shares of verdicts, in a table of their own, and what they can be held to."""
    from realbench.stats import VERDICTS

    basis = summary["verdict"]
    bound, spread = f"{basis['max_false_alarm']:g}", basis["photographs_called_generated"]
    caption = (
        f"share of images by verdict; at most {bound} of photographs are called generated, and at "
        f"most {bound} of generated images photographs, where they are like the held-out ones"
    )
    if spread:
        caption += (
            f" (left out by source: median {spread['median']:.2f}, at worst "
            f"{spread['largest']:.2f}, n = {spread['n']}, of {spread['n_sources']} sources)"
        )
    table = figures_table(caption)
    table.add_column("folder", min_width=11)
    for header in ("n", *VERDICTS):
        width = None if header == "n" else len("photograph")
        table.add_column(header, justify="right", min_width=width)
    reference = summary["reference"]
    for entry in [*([reference] if reference else []), *summary["folders"]]:
        is_photos = entry is reference
        row = [_folder(entry, reference), _count(entry)]
        row += [figure((entry["verdicts"] or {}).get(verdict)) for verdict in VERDICTS]
        add_texts(table, row, style="dim" if is_photos else None, end_section=is_photos)
    return table


def _quality(summary: Summary, measures: list[MeasureUsed]) -> Table:
    """The means of quality measures, in a table of their own: they are not P(real)."""
    from rich.text import Text

    table = figures_table(
        "quality and alignment, no part of realism; higher is better, each on a scale of "
        "its own; below it the 95 % interval over prompts"
    )
    table.add_column("folder", min_width=11)
    for one in measures:
        table.add_column(Text(one["title"]), justify="right", min_width=len("00.00–00.00"))
        table.add_column("n", justify="right")
    reference = summary["reference"]
    for entry in [*([reference] if reference else []), *summary["folders"]]:
        is_photos = entry is reference
        row = [_folder(entry, reference)]
        for one in measures:
            value = entry["quality"][one["name"]]
            row += [figure(value), str(value["n"])]
        add_texts(table, row, style="dim" if is_photos else None, end_section=is_photos)
    return table


def _distances(record: Distances) -> Table:
    """Each folder's distances from the photographs, below those of photographs themselves."""
    from rich.text import Text

    from realbench.distances.compare import KINDS

    order = list(record["photographs"])
    table = figures_table(
        f"distances of {record['n']} pictures from {record['n']} photographs, below it the 95 % "
        "interval over prompts; ↓ lower, ↑ higher is closer; the first row is photographs "
        "against photographs of the same folder (other folders of photographs are told apart, too)"
    )
    table.add_column("folder", min_width=11)
    for kind in order:
        arrow = "↓" if KINDS[kind].lower_is_closer else "↑"
        table.add_column(Text(f"{KINDS[kind].title} {arrow}"), justify="right", min_width=9)
    rows: list[tuple[str, Mapping[str, Any], bool]]
    rows = [("photographs", record["photographs"], True)]
    rows += [(one["folder"], one["figures"], False) for one in record["folders"]]
    for name, figures, is_photos in rows:
        row = [name, *(figure(figures.get(kind), KINDS[kind].digits) for kind in order)]
        add_texts(table, row, style="dim" if is_photos else None, end_section=is_photos)
    return table


def _folder(entry: Mapping[str, Any], reference: Mapping[str, Any] | None) -> str:
    return str(entry["folder"]) + ("\nphotographs" if entry is reference else "")


def _count(entry: Mapping[str, Any]) -> str:
    failed = f"\n+{entry['n_failed']} bad" if entry["n_failed"] else ""
    copied = f"\n+{entry['n_copies']} same" if entry.get("n_copies") else ""
    return f"{entry['n']}{failed}{copied}"


def _print_failures(run: ScoreRun, console: Console, limit: int = 10) -> None:
    failures = run.failures
    for _, row in failures.head(limit).iterrows():
        line = f"Unreadable: {row['folder']}/{row['image']}: {row['reason']}"
        console.print(printable(line))
    if len(failures) > limit:
        console.print(f"Unreadable: {len(failures) - limit} more, see scores.csv (--out)")


def demo(
    *,
    out: Annotated[Path, options.out("Receives the pictures and the run.", "DIR")] = Path(
        "realbench-demo"
    ),
    output: options.Output,
) -> int:
    """Score sample photographs against rendered pictures: no data, no download needed."""
    from realbench.demo import make_demo_folders
    from realbench.runs.files import check_folder
    from realbench.scoring.run import score

    check_folder(out)
    photographs, renders = make_demo_folders(out)
    if output.in_words:
        typer.echo(
            "Two sample photographs (scikit-learn) against six pictures rendered "
            "just now: it shows how a run looks. The detectors know such renders from their "
            "training, and these are far too few images to conclude from."
        )
    with scoring_bar(shown=output.in_words) as progress:
        run = score(renders, reference=photographs, out=out / "run", progress=progress)
    return finish(run, out / "run", output)
