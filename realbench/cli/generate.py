"""``realbench generate``: the image folder of a model, from a suite's prompts."""

from __future__ import annotations

import json
import shlex
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from realbench.cli import options
from realbench.cli.terminal import StageBar, progress_bar
from realbench.errors import UsageError

if TYPE_CHECKING:
    from realbench.generation import Progress

_model = partial(typer.Option, rich_help_panel="Model")
_rewriter = partial(typer.Option, rich_help_panel="Rewriting of prompts")


def generate(
    *,
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
    output: options.Output,
    revision: Annotated[str | None, _model(help="Branch, tag or commit.")] = None,
    lora: Annotated[
        list[str] | None,
        _model(
            metavar="SOURCE[=SCALE]", help="Safetensors file, folder or hub id; may be repeated."
        ),
    ] = None,
    steps: Annotated[int | None, _model(min=1, help="(default: the pipeline's)")] = None,
    guidance: Annotated[float | None, _model(help="(default: the pipeline's)")] = None,
    width: Annotated[int | None, _model(min=1, help="(default: the pipeline's)")] = None,
    height: Annotated[int | None, _model(min=1, help="(default: the pipeline's)")] = None,
    negative_prompt: Annotated[str | None, _model(help="What the images shall not show.")] = None,
    argument: Annotated[
        list[str] | None,
        _model(
            metavar="NAME=VALUE",
            help="Another argument of the pipeline's call, as JSON; may be repeated.",
        ),
    ] = None,
    offload: Annotated[
        bool, _model("--offload", help="Keep on the GPU only the part at work.")
    ] = False,
    rewriter: Annotated[
        str | None,
        _rewriter(
            metavar="RUN|FOLDER|HUB_ID|FILE.gguf",
            help="A language model that rewrites the prompts first, such as a run of "
            "realgen-train prompt.",
        ),
    ] = None,
    rewriter_revision: Annotated[str | None, _rewriter(help="Branch, tag or commit.")] = None,
    rewriter_instruction: Annotated[
        str | None,
        _rewriter(
            metavar="NAME|FILE",
            help="What it is told. (default: what it was trained with, else photographic-v1)",
        ),
    ] = None,
    rewriter_tokens: Annotated[
        int | None,
        _rewriter(min=1, help="Of an answer, at most. (default: as in its training, else 256)"),
    ] = None,
) -> None:
    """Make a model's images of a suite, for score and arena.

    Run the same command again to go on after an interruption.
    """
    from realbench.generation import GenerateOptions
    from realbench.generation import generate as make_images
    from realbench.generation.pipeline import Lora, PipelineOptions
    from realbench.generation.rewriting import RewriterOptions

    if output.quiet:
        warnings.simplefilter("ignore")
    settings = GenerateOptions(
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
    with progress_bar(_draw, shown=output.in_words, rates=False) as progress:
        made = make_images(prompts, out, settings, progress=progress)
    counts = made.manifest["counts"]
    lines = [f"{made.made:,} images made in {out}, {made.kept:,} were there"]
    if counts["flagged"]:
        lines.append(f"Note: the model's own filter flagged {counts['flagged']:,} of them")
    if counts["not_rewritten"]:
        lines.append(
            f"Note: the rewriter gave no text for {counts['not_rewritten']:,} prompts, which "
            "were used as they are"
        )
    lines.append(f"Next: {shlex.join(['realbench', 'score', str(out), '--prompts', prompts])}")
    output.show(counts | {"made": made.made, "kept": made.kept}, lines)


def _named_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"--argument {text}: give NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _draw(bar: StageBar, progress: Progress) -> None:
    bar.enter(progress.stage, progress.total or None)
    bar.show(progress.done, progress.total or None)
