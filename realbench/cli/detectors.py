"""``realbench detectors``: list and show the cards, train the embedded families."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.bench import (
    as_folder,
    bench_command,
    calibrate_command,
    check_command,
    fuse_command,
)
from realbench.cli.program import Program
from realbench.cli.terminal import show_card, stage_bar
from realbench.text import printable

app = Program(help="List, check, measure, calibrate, fuse and train detectors.")
app.command("bench")(bench_command)
app.command("calibrate")(calibrate_command)
app.command("fuse")(fuse_command)
app.command("check")(check_command)


@app.command("list")
def list_command(json_: options.Json = False) -> None:
    """List the detectors that have a card, and which of them have their weights here."""
    from realbench.detection.ensembles import list_ensembles
    from realbench.detection.registry import (
        EMBEDDED_DETECTORS,
        find_card,
        list_detectors,
        plugin_cards,
    )

    cards = [find_card(name) for name in list_detectors()]
    plugins, left_out = plugin_cards()
    ensembles = {name: list(one.detectors) for name, one in list_ensembles().items()}
    entries = []
    for card in cards:
        missing = card.whats_missing()
        weights = "needs them" if missing else "here"
        if card.name in EMBEDDED_DETECTORS:
            weights = "bundled, default"
        elif card.name in plugins and not card.parts:
            weights = "none needed"
        entry = {key: getattr(card, key) for key in ("name", "level", "family", "description")}
        entries.append(entry | {"weights": weights, "missing": missing or None})
    found = {"detectors": entries, "ensembles": ensembles}
    options.Output(json_=json_).show(found, _listed(entries, ensembles))
    for line in left_out:
        typer.echo(f"warning: {line}", err=True)


def _listed(
    entries: Sequence[Mapping[str, Any]], ensembles: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Yield two lines for each detector; those that lack weights come last."""
    width = shutil.get_terminal_size().columns - 2
    longest = max(len(entry["name"]) for entry in entries)
    for entry in sorted(entries, key=lambda entry: entry["missing"] is not None):
        kind = f"{entry['level']}, {entry['family']}"
        yield printable(f"{entry['name']:{longest}}  {entry['weights']:16}  {kind}".rstrip())
        yield printable(f"  {textwrap.shorten(entry['description'], width, placeholder=' …')}")
    for name, members in ensembles.items():
        yield printable(f"ensemble:{name}: {', '.join(members)}")
    if any(entry["missing"] for entry in entries):
        yield "realbench detectors show NAME tells how to get the weights of one."


@app.command("show")
def show_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME|CARD_DIR", help="A detector's name, or a card's folder.")
    ],
    json_: options.Json = False,
) -> None:
    """Print a detector's card and fingerprint."""
    from realbench.detection.registry import find_card
    from realbench.detection.specs import CARD_FILE

    card = find_card(name)
    show_card(card, card.path / CARD_FILE, options.Output(json_=json_))


@app.command("get")
def get_command(
    *,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|CARD_DIR|ensemble:NAME", help="Detectors whose weights are fetched."
        ),
    ],
    output: options.Output,
) -> None:
    """Fetch weights from the Hugging Face hub ahead, so that no network is needed later.

    realbench detectors get ensemble:published

    Each is told with its size and licence before, and its SHA-256 is checked when it has come.
    What is here already is not fetched again; a connection that breaks is taken up again.
    """
    from realbench.detection.cards import fetch_weights
    from realbench.detection.ensembles import find_cards

    cards = find_cards(names)
    fetch_weights(cards)
    entries = [
        {
            "detector": card.name,
            "part": part,
            "licence": card.licence,
            "path": str(card.locate(part)),
            "digest": digest,
            "pinned": bool(spec.sha256),
        }
        for card in cards
        for (part, digest), spec in zip(card.digests.items(), card.parts.values(), strict=True)
    ]
    output.show(entries, map(_fetched_line, entries))


def _fetched_line(entry: Mapping[str, Any]) -> str:
    part = "" if entry["part"] == "weights" else f":{entry['part']}"
    known = "as its card says" if entry["pinned"] else "its card pins none"
    where = printable(entry["path"])
    return f"{entry['detector']}{part}: {where} ({known}: {entry['digest'][:16]})"


@app.command("train")
def train_command(
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE",
            help="Recipes to follow: semantic-lite, trace-lite (default: both), or small-images "
            "for pictures of about 64 pixels.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the detector is called. (default: as its recipe)")
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(metavar="PHOTOS", help="Folder of photographs; may be repeated."),
    ] = None,
    generated: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Folder of a generator's images, or of such folders; may be repeated.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with a manifest.csv (path,label,source,prompt_id), instead or besides.",
        ),
    ] = None,
    autoencoder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the TAEF2 weights: held-out figures include photographs' round trips "
            "through it, and recipes with a share of these learn from them.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A recipe.toml of your own.")
    ] = None,
    out: Annotated[Path, options.out("Receives a folder per detector.", "DIR")] = Path(
        "trained-detectors"
    ),
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What is done so far. (default: OUT/.work)")
    ] = None,
    training_views: Annotated[
        int | None, typer.Option(min=1, help="Fewer or more views of an image than the recipe's.")
    ] = None,
    seed: Annotated[int | None, options.seed("Another seed than the recipe's.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at a time. (default: one per core)")
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="A trained detector to adapt to your images, which keeps what it knows. (default: "
            "the recipe's own, where it is shipped and there is no --data)",
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Learn from your images alone.")
    ] = False,
    keep_folds: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Receives each fold's networks as detectors, to cross-fit."
        ),
    ] = None,
    generator_folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Keep so many folds instead, that hold out generators but not their prompts, and "
            "learn from more.",
        ),
    ] = None,
    output: options.Output,
) -> None:
    """Train, cross-validate and calibrate the embedded families on your own images.

    For a generator that the detectors here do not know (they are adapted, which takes minutes):

    realbench detectors train semantic-lite --name mine --reference photos --generated flux-3
    --generated sd-5 --out my_detectors

    realbench score ./new --detector ./my_detectors/mine

    Run it again with the same OUT to go on after an interruption.
    """
    from realbench.detection.registry import EMBEDDED_DETECTORS
    from realbench.detection.training.recipe import choose_recipes
    from realbench.detection.training.train import train_detectors
    from realbench.errors import UsageError
    from realbench.runs.files import check_folder

    if generator_folds is not None and keep_folds is None:
        raise UsageError("--generator-folds goes with --keep-folds: say where they are kept")
    recipes = choose_recipes(names or [], recipe, name)
    work = work or out / ".work"
    for folder in (work, *(out / name for name in recipes), *([keep_folds] if keep_folds else [])):
        check_folder(folder)  # before hours of work
    if start_from is not None and from_scratch:
        raise UsageError("--start-from and --from-scratch contradict each other: give one")
    starts: dict[str, str] = {}
    if start_from is not None:
        starts = dict.fromkeys(recipes, start_from)
    elif data is None and not from_scratch and recipe is None:
        shipped = dict(zip(recipes, names or EMBEDDED_DETECTORS, strict=True))
        starts = {name: one for name, one in shipped.items() if one in EMBEDDED_DETECTORS}
    changes = {
        k: v for k, v in (("training_views", training_views), ("seed", seed)) if v is not None
    }
    with stage_bar(shown=not output.quiet, stage="training blocks") as bar:

        def watch(done: int, steps: int, loss: float) -> None:
            if bar is not None:
                bar.show(done, steps, f"loss {loss:.3f}")

        results = train_detectors(
            {name: one.model_copy(update=changes) for name, one in recipes.items()},
            out=out,
            work=work,
            data=data,
            photos=reference or (),
            generated=generated or (),
            autoencoder=autoencoder,
            workers=workers,
            start_from=starts,
            keep_folds=keep_folds,
            generator_folds=generator_folds,
            command=_without_paths(sys.argv[1:]),
            report=(lambda _: None) if output.quiet else lambda line: typer.echo(line, err=True),
            watch=watch,
        )
    output.show(results, _trained(results, out))


def _trained(results: dict[str, Any], out: Path) -> Iterator[str]:
    for name, figures in results.items():
        for subset, one in figures["auc"].items():
            yield f"{name}: AUC {_auc(one)} on held-out {subset}"
            sources = one.get("by_source", {})
            if len(sources) > 1:
                yield from _worst_first(sources)
        yield from (f"Note: {note}" for note in figures.get("notes", ()))

    made = [name for name in results if name != "ensemble"]
    yield f"Records: {', '.join(printable(out / name / 'README.md') for name in made)}"
    used = " ".join(f"--detector {as_folder(out / name)}" for name in made)
    yield f"Use: realbench score FOLDER {used}"


def _worst_first(sources: dict[str, Any], limit: int = 10) -> Iterator[str]:
    found = {source: one for source, one in sources.items() if one["auc"] is not None}
    for source in sorted(found, key=lambda source: found[source]["auc"])[:limit]:
        yield f"  {source}: {_auc(found[source])}"
    if len(found) > limit:
        yield f"  and {len(found) - limit} more, better found, in the record"


def _auc(one: dict[str, Any]) -> str:
    found = "–" if one["auc"] is None else f"{one['auc']:.3f}"
    interval = "" if one["low"] is None else f" [{one['low']:.3f}, {one['high']:.3f}]"
    return f"{found}{interval} ({one['n_real']} photographs, {one['n_generated']} generated)"


def _without_paths(arguments: list[str]) -> str:
    """Return the command line without the folders that decide nothing."""
    import shlex

    names = ("--work", "--keep-folds", "--generator-folds")
    kept = [one for one in arguments if not one.startswith(tuple(f"{n}=" for n in names))]
    for name in names:
        if name in kept:
            del kept[(at := kept.index(name)) : at + 2]
    return shlex.join(["realbench", *kept])
