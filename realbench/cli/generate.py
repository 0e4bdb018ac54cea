"""``realbench generate``: the image folder of a model, from a suite's prompts."""

from __future__ import annotations

import contextlib
import json
import shlex
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from realbench.cli import options
from realbench.cli.progress import stage_bar
from realbench.errors import UsageError

if TYPE_CHECKING:
    from realbench.generation import Progress

_MODEL = "Model"
_REWRITER = "Rewriting of prompts"


def generate(
    prompts: options.PromptsNeeded,
    model: Annotated[
        str, typer.Option(metavar="FOLDER|HUB_ID", help="A diffusers text-to-image pipeline.")
    ],
    out: Annotated[Path, options.out("The model's folder of images; goes on there.", "DIR")],
    long: Annotated[
        bool, typer.Option("--long", help="Use the long forms of the prompts.")
    ] = False,
    seed: Annotated[int, options.seed("With the prompt's id it gives each image's seed.")] = 0,
    device: options.Device = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="auto: bfloat16 on CUDA, else float32."),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the suite's first so many prompts.")
    ] = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit.", rich_help_panel=_MODEL)
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE[=SCALE]",
            help="Safetensors file, folder or hub id; may be repeated.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="(default: the pipeline's)", rich_help_panel=_MODEL)
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="(default: the pipeline's)", rich_help_panel=_MODEL)
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="(default: the pipeline's)", rich_help_panel=_MODEL)
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, help="(default: the pipeline's)", rich_help_panel=_MODEL)
    ] = None,
    negative_prompt: Annotated[
        str | None,
        typer.Option(help="What the images shall not show.", rich_help_panel=_MODEL),
    ] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another argument of the pipeline's call, as JSON; may be repeated.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    offload: Annotated[
        bool,
        typer.Option(
            "--offload", help="Keep on the GPU only the part at work.", rich_help_panel=_MODEL
        ),
    ] = False,
    rewriter: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|FOLDER|HUB_ID|FILE.gguf",
            help="A language model that rewrites the prompts first, such as a run of "
            "realgen-train prompt.",
            rich_help_panel=_REWRITER,
        ),
    ] = None,
    rewriter_revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit.", rich_help_panel=_REWRITER)
    ] = None,
    rewriter_instruction: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="What it is told. (default: what it was trained with, else photographic-v1)",
            rich_help_panel=_REWRITER,
        ),
    ] = None,
    rewriter_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of an answer, at most. (default: as in its training, else 256)",
            rich_help_panel=_REWRITER,
        ),
    ] = None,
) -> None:
    """Make a model's images of a suite, for score and arena.

    Run the same command again to go on after an interruption.
    """
    from realbench.generation import GenerateOptions
    from realbench.generation import generate as make_images
    from realbench.generation.pipeline import Lora, PipelineOptions
    from realbench.generation.rewriting import RewriterOptions

    if quiet:
        warnings.simplefilter("ignore")
    options = GenerateOptions(
        pipeline=PipelineOptions(
            model=model,
            revision=revision,
            loras=tuple(Lora.parse(one) for one in lora or ()),
            steps=steps,
            guidance=guidance,
            width=width,
            height=height,
            negative_prompt=negative_prompt,
            extra=dict(_named_value(one) for one in argument or ()),
            device=device,
            dtype=precision,
            offload=offload,
        ),
        rewriter=None
        if rewriter is None
        else RewriterOptions(
            rewriter, rewriter_revision, rewriter_instruction, max_tokens=rewriter_tokens
        ),
        long=long,
        seed=seed,
        batch_size=batch_size,
        limit=limit,
    )
    with progress_bar(shown=not quiet and not json_) as progress:
        made = make_images(prompts, out, options, progress=progress)
    if json_:
        typer.echo(json.dumps(made.manifest["counts"] | {"made": made.made, "kept": made.kept}))
    elif not quiet:
        typer.echo(f"{made.made:,} images made in {out}, {made.kept:,} were there")
        counts = made.manifest["counts"]
        if counts["flagged"]:
            typer.echo(f"Note: the model's own filter flagged {counts['flagged']:,} of them")
        if counts["not_rewritten"]:
            typer.echo(
                f"Note: the rewriter gave no text for {counts['not_rewritten']:,} prompts, which "
                "were used as they are"
            )
        following = shlex.join(["realbench", "score", str(out), "--prompts", prompts])
        typer.echo(f"Next: {following}")


def _named_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"--argument {text}: give NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@contextlib.contextmanager
def progress_bar(*, shown: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Yield a callback that draws a bar with time left, on a terminal alone."""
    with stage_bar(shown=shown, rates=False) as bar:
        if bar is None:
            yield None
            return

        def update(progress: Progress) -> None:
            bar.enter(progress.stage, progress.total or None)
            bar.show(progress.done, progress.total or None)

        yield update
