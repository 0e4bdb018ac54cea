"""``realbench arena``: which of these models makes the more realistic photographs?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from realbench.cli import options
from realbench.cli.program import INTERRUPTED, Command, Program
from realbench.cli.terminal import StageBar, progress_bar
from realbench.errors import RealBenchError, UsageError
from realbench.text import printable

if TYPE_CHECKING:
    from realbench.arena.judges import JudgeOptions
    from realbench.arena.results import ArenaRun
    from realbench.arena.turn import Progress

_SUBCOMMANDS = ("export", "import", "merge", "rate", "verify")
# The command that takes folders; its name is one that no shell passes and no folder has.
_FOLDERS = "\0"

_endpoint = partial(typer.Option, rich_help_panel="Judge openai:MODEL, an endpoint")
_model = partial(typer.Option, rich_help_panel="Judges openai:MODEL and hf:MODEL")
_local = partial(typer.Option, rich_help_panel="Judge hf:MODEL, a local model")
_detectors = partial(typer.Option, rich_help_panel="Judge detectors")
_human = partial(typer.Option, rich_help_panel="Judge human")
_columns = partial(typer.Option, metavar="NAME", rich_help_panel="Columns of the file")
_ACCEPT_EDITS = Annotated[
    bool,
    typer.Option(
        "--accept-edits", help="Take votes that were edited since they were written as they are."
    ),
]


_ANCHOR = Annotated[
    str | None,
    typer.Option(
        metavar="JUDGE",
        help="Rate on this judge's scale, all other judges' votes making its own go further; human "
        "stands for all people.",
    ),
]


_NUISANCES = Annotated[
    bool,
    typer.Option(
        "--nuisances",
        help="Rate with sharpness, saturation, contrast, brightness, noise, size, bytes and file "
        "type held equal, too.",
    ),
]


class _FoldersOrCommand(TyperGroup):
    """Takes folders where the first argument is none of the commands.

    A folder that is called like one of them is given as ``./merge``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args:
            args = ["--help"]
        if args[0] not in _SUBCOMMANDS:
            args = [_FOLDERS, *args]
        return super().parse_args(ctx, args)


class _InPlaceOfGroup(Command):
    """Shows itself under the name of its group, ``realbench arena``."""

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        return super().make_context(parent.info_name, args, parent=parent.parent, **extra)


app = Program(
    cls=_FoldersOrCommand, no_args_is_help=False, help="Rank models by pairwise judgments."
)


@dataclass(frozen=True)
class Judging:
    """What judges are told: the command takes these options as its own."""

    max_cost: Annotated[
        float | None, typer.Option(min=0, help="What each judge's votes may cost; needs prices.")
    ] = None
    price_in: Annotated[float | None, _endpoint(min=0, help="Price of a million input tokens.")] = (
        None
    )
    price_out: Annotated[
        float | None, _endpoint(min=0, help="Price of a million output tokens.")
    ] = None
    base_url: Annotated[
        str | None, _endpoint(metavar="URL", help="The endpoint, such as http://host/v1.")
    ] = None
    api_key_env: Annotated[
        str | None,
        _endpoint(
            metavar="NAME",
            help="The environment variable that has its key. Without it, OPENAI_API_KEY goes to "
            "api.openai.com, and no key to any other server.",
        ),
    ] = None
    concurrency: Annotated[int | None, _endpoint(min=1, help="Requests at once.")] = None
    timeout: Annotated[float | None, _endpoint(min=0, help="Seconds that a request may take.")] = (
        None
    )
    max_retries: Annotated[
        int | None, _endpoint(min=0, help="How often a failed request is tried again.")
    ] = None
    answer_retries: Annotated[
        int | None, _endpoint(min=0, help="How often an unusable answer is asked again.")
    ] = None
    max_output_tokens: Annotated[int | None, _endpoint(min=1, help="Most tokens of an answer.")] = (
        None
    )
    template: Annotated[
        str | None, _model(metavar="NAME|FILE", help="The instructions that it gets.")
    ] = None
    image_size: Annotated[
        int | None, _model(min=1, help="Longest side of what it sees, in pixels.")
    ] = None
    image_format: Annotated[
        Literal["jpeg", "png"] | None, _endpoint(help="How images are sent.")
    ] = None
    temperature: Annotated[float | None, _endpoint(min=0, help="Of the sampling.")] = None
    device: options.Device = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], _local(help="What it computes in.")
    ] = "auto"
    revision: Annotated[str | None, _local(help="Branch, tag or commit of the model.")] = None
    trust_remote_code: Annotated[
        bool,
        _local(
            "--trust-remote-code",
            help="Run Python code that comes with the model. Nothing confines it.",
        ),
    ] = False
    batch_size: options.BatchSize = None
    workers: options.Workers = None
    max_pixels: options.MaxPixels = options.MAX_PIXELS
    detector: options.Detector = None
    weights: options.Weights = None
    cross_fit: Annotated[
        Path | None,
        _detectors(
            metavar="FILE",
            help="TOML that names each contestant's detectors, which never saw its pictures.",
        ),
    ] = None
    margin: Annotated[
        float, _detectors(min=0, help="Logits of difference that are a tie still.")
    ] = 0.1
    no_cache: options.NoCache = False
    host: Annotated[
        str, _human(help="Where the page listens; 0.0.0.0 lets others on the network in.")
    ] = "127.0.0.1"
    port: Annotated[int, _human(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 0
    no_browser: Annotated[bool, _human("--no-browser", help="Only print the page's address.")] = (
        False
    )

    def judge_options(self) -> JudgeOptions:
        from realbench.arena.judges import JudgeOptions
        from realbench.detection.weight_files import parse_weights

        given = dict(vars(self))
        return JudgeOptions(
            detectors=tuple(given.pop("detector") or ()),
            weights=parse_weights(given.pop("weights") or []),
            dtype=given.pop("precision"),
            cache=not given.pop("no_cache"),
            open_browser=not given.pop("no_browser"),
            **given,
        )


@app.command(
    _FOLDERS,
    cls=_InPlaceOfGroup,
    hidden=True,
    epilog="Also: realbench arena merge RUN... --out RUN joins runs; "
    "realbench arena rate RUN rates a run's votes again; "
    "realbench arena verify RUN sees that nobody changed them; "
    "realbench arena import FILE --out RUN and realbench arena export RUN exchange votes with "
    "other tools.",
)
def arena_command(
    *,
    folders: options.Folders,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JUDGE",
            help="detectors, openai:MODEL, hf:MODEL, human or human:NAME; may be repeated. "
            "(default: detectors)",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="PHOTOS", help="Folder of photographs, a contestant of its own."),
    ] = None,
    prompts: options.Prompts = None,
    out: Annotated[
        Path | None,
        options.out("Keep votes.jsonl, ratings, run.json and report.html; goes on there."),
    ] = None,
    schedule: Annotated[
        Literal["all", "active", "reference"],
        typer.Option(
            help="Every pair; or next the pairs that tell most until all are separated; or those "
            "with a photograph."
        ),
    ] = "all",
    max_votes: Annotated[
        int | None, typer.Option(min=1, help="Votes that each judge is asked for, at most.")
    ] = None,
    judging: Judging,
    seed: Annotated[
        int, options.seed("Of the order of pairs and pictures, and of the bootstrap.")
    ] = 0,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap over prompts.")] = 1000,
    anchor: _ANCHOR = None,
    nuisances: _NUISANCES = False,
    accept_edits: _ACCEPT_EDITS = False,
    output: options.Output,
) -> int:
    """Rank models: judges compare their images of a prompt, pair by pair.

    A folder is a model, a file's stem the id of its prompt.

    Run the same command again to go on after an interruption.
    """
    from realbench.arena.run import DEFAULT_JUDGES, ArenaInterrupted, arena

    if out is None and any(one.partition(":")[0].strip() == "human" for one in judge or ()):
        raise UsageError("--judge human needs --out, so that no vote of a person is lost")
    if output.quiet:
        warnings.simplefilter("ignore")
    interrupted = False
    try:
        with progress_bar(draw_progress, shown=output.in_words) as progress:
            run = arena(
                *folders,
                judge=judge or DEFAULT_JUDGES,
                reference=reference,
                prompts=prompts,
                out=out,
                schedule=schedule,
                max_votes=max_votes,
                seed=seed,
                resamples=resamples,
                options=judging.judge_options(),
                anchor=anchor,
                nuisances=nuisances,
                accept_edits=accept_edits,
                progress=progress,
            )
    except ArenaInterrupted as error:
        run, interrupted = error.run, True
    code = finish(run, output, judged=not interrupted)
    if interrupted:
        kept = sum(vote.verdict != "invalid" for vote in run.votes)
        raise _Interrupted(
            f"interrupted: {kept:,} votes are kept, "
            f"{run.pairs_open:,} pairs are open; run the same command again to go on"
            if run.out
            else "interrupted: nothing is kept; give --out to go on another time"
        )
    return code


@app.command("merge")
def merge_command(
    *,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders that arena wrote.")],
    out: Annotated[Path, options.out("The new run's folder.")],
    output: options.Output,
) -> int:
    """Join the votes of several runs, exact duplicates once, and rate them."""
    from realbench.arena.merging import merge

    merged = merge(runs, out)
    if output.in_words:
        typer.echo(
            f"{merged.n_votes:,} votes of {len(runs)} runs in {printable(out)}; "
            f"{merged.n_duplicates:,} exact duplicates dropped"
        )
        if merged.n_again:
            typer.echo(
                f"{merged.n_again:,} more votes on what the same judge had judged in another run: "
                "of these the last counts"
            )
    return finish(merged.run, output)


@app.command("rate")
def rate_command(
    *,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that arena wrote.")],
    resamples: Annotated[
        int | None, typer.Option(min=1, help="Of the bootstrap. (default: as before)")
    ] = None,
    seed: Annotated[int | None, options.seed("Of the bootstrap. (default: as before)")] = None,
    anchor: _ANCHOR = None,
    nuisances: _NUISANCES = False,
    accept_edits: _ACCEPT_EDITS = False,
    output: options.Output,
) -> int:
    """Rate a run's votes again and write its ratings and report; no judge is asked."""
    from realbench.arena.results import rate_run

    rated = rate_run(
        run,
        resamples=resamples,
        seed=seed,
        anchor=anchor,
        nuisances=nuisances,
        edited=accept_edits,
    )
    return finish(rated, output)


@app.command("verify")
def verify_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that arena wrote.")],
) -> int:
    """Verify that a run's votes are as they were written.

    The exit code is 1 where a line was changed, removed, doubled or moved, or has no digest, also
    if that was accepted with --accept-edits.
    """
    from realbench.arena.results import verify_run
    from realbench.arena.vote_log import accepted_edits

    log = verify_run(run)
    shown = printable(run)
    if edits := accepted_edits(run):
        typer.echo(f"error: {shown}: {'; '.join(edits)}", err=True)
        return 1
    if log.seal.unchained:
        typer.echo(f"error: {shown}: {log.notes[0]}", err=True)
        return 1
    typer.echo(
        f"{shown}: {log.seal.lines:,} lines of votes, as they were written, up to {log.seal.chain}"
    )
    return 0


@app.command("import")
def import_command(
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Votes: CSV, TSV, JSONL, JSON or Parquet.")
    ],
    out: Annotated[Path, options.out("The new run's folder.")],
    model_a_column: Annotated[
        str | None, _columns(help="(default: model_a, left, model_1 or model_x)")
    ] = None,
    model_b_column: Annotated[
        str | None, _columns(help="(default: model_b, right, model_2 or model_y)")
    ] = None,
    winner_column: Annotated[
        str | None, _columns(help="(default: winner, or winner_model_a and winner_model_b)")
    ] = None,
    tie_column: Annotated[str | None, _columns(help="(default: tie or winner_tie)")] = None,
    judge_column: Annotated[
        str | None, _columns(help="(default: judge, rater, annotator or worker)")
    ] = None,
    prompt_column: Annotated[
        str | None,
        _columns(help="The prompt's id. (default: prompt_id or question_id; else a row is one)"),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose all votes are; human makes them people's."),
    ] = None,
    reference_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model that is photographs.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap over prompts.")] = 1000,
    seed: Annotated[int, options.seed("Of the bootstrap.")] = 0,
    output: options.Output,
) -> int:
    """Make a run of another arena's votes and rate it.

    realbench arena import battles.csv --judge human --out RUN

    A row is a vote: two models and the winner, model_a or left, model_b or right, tie, or its name.
    """
    from realbench.arena.exchange import VoteColumns, import_votes

    columns = VoteColumns(
        model_a_column, model_b_column, winner_column, tie_column, judge_column, prompt_column
    )
    run = import_votes(
        file,
        out,
        columns=columns,
        judge=judge,
        reference=reference_model,
        resamples=resamples,
        seed=seed,
    )
    return finish(run, output)


@app.command("export")
def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that arena wrote.")],
    format_: Annotated[
        Literal["evalica", "arena-rank"],
        typer.Option(
            "--format",
            help="evalica: left, right, winner; arena-rank: model_a, model_b, winner.",
        ),
    ] = "arena-rank",
    judge: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose results. (default: all judges')")
    ] = None,
    out: Annotated[
        Path | None, options.out("Write to a file, not to the terminal.", "FILE")
    ] = None,
) -> None:
    """Write a run's comparisons as a CSV file that evalica or arena-rank reads.

    realbench arena export RUN --format evalica --out votes.csv

    evalica -i votes.csv pairwise bradley-terry
    """
    from realbench.arena.exchange import export_comparisons
    from realbench.runs.files import write_atomically

    data = export_comparisons(run, format_, judge)
    if out is None:
        typer.echo(data.decode("utf-8", "surrogateescape"), nl=False)
    else:
        write_atomically(out, data)
        rows = data.count(b"\n") - 1
        typer.echo(f"{rows:,} comparisons in {printable(out)}", err=True)


class _Interrupted(RealBenchError):  # noqa: N818 - an outcome, not a fault
    exit_code = INTERRUPTED


def finish(run: ArenaRun, output: options.Output, *, judged: bool = True) -> int:
    """Print a run and return the exit code.

    Args:
        judged: Whether a run without a single comparison is an error.
    """
    from realbench.cli.arena_table import print_arena

    if output.in_words:
        print_arena(run)
    else:
        output.show(run.ratings)
    if judged and not any(one["n_comparisons"] for one in run.ratings["judges"].values()):
        typer.echo(f"error: no pair has a result{_why_none(run)}", err=True)
        return 1
    return 0


def _why_none(run: ArenaRun) -> str:
    invalid = [vote for vote in run.votes if vote.verdict == "invalid"]
    if not invalid:
        return ": no judge was asked for both orders of one"
    raw = " ".join((invalid[0].reason or invalid[0].raw or "empty").split())[:200]
    return f": {len(invalid)} answers, none usable, the first: {printable(raw)}"


def draw_progress(bar: StageBar, progress: Progress) -> None:
    """Draw how far an arena is."""
    bar.enter(f"{progress.stage} {progress.judge}".strip(), progress.total)
    parts = [f"{bar.speed:.1f} {_UNITS[progress.stage]}/s"] if bar.speed else []
    parts += [f"{progress.invalid} invalid"] if progress.invalid else []
    parts += [f"cost {progress.cost:.2f}"] if progress.cost else []
    bar.show(progress.done, progress.total, ", ".join(parts))


_UNITS = {"reading": "images", "judging": "votes", "rating": "ratings"}
