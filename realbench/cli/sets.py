"""``realbench sets``: public sets of pictures by name, fetched and checked."""

from __future__ import annotations

import shutil
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.program import Program
from realbench.text import byte_count, printable

if TYPE_CHECKING:
    from realbench.sets.cards import SetCard
    from realbench.sets.fetching import Fetched

app = Program(help="List, show, fetch and verify sets of pictures; set:NAME is one as a folder.")

Name = Annotated[
    str, typer.Argument(metavar="NAME|CARD_DIR", help="A set's name, or a card's folder.")
]


@app.command("list")
def list_command(json_: options.Json = False) -> None:
    """List the sets that have a card, and which of them are here.

    Beside those that are shipped stand your own, in folders with a set.toml below $REALBENCH_SETS.
    """
    from realbench.errors import RealBenchError
    from realbench.sets.cards import find_set, list_sets
    from realbench.sets.fetching import find_fetched

    entries, broken = [], []
    for name in list_sets():
        try:
            card = find_set(name)
            entries.append(_entry(card, find_fetched(card)))
        except RealBenchError as error:  # one bad card does not hide the others
            broken.append(str(error))
    options.Output(json_=json_).show(entries, _listed(entries))
    for line in broken:
        typer.echo(f"warning: {line}", err=True)


def _entry(card: SetCard, fetched: Fetched | None) -> dict[str, Any]:
    keys = ("name", "description", "licence", "homepage", "n", "size", "verified")
    entry = {key: getattr(card, key) for key in keys}
    entry |= {"source": card.source.kind, "address": card.address}
    return entry | {
        "folder": None if fetched is None else str(fetched.folder),
        "n_here": None if fetched is None else fetched.record["n"],
    }


def _listed(entries: list[dict[str, Any]]) -> Iterator[str]:
    width = shutil.get_terminal_size().columns - 2
    longest = max((len(entry["name"]) for entry in entries), default=0)
    for entry in entries:
        count = f"{entry['n']:,} pictures" if entry["n"] else "many pictures"
        size = f", {byte_count(entry['size'])}" if entry["size"] else ""
        here = f"{entry['n_here']:,} here" if entry["n_here"] else "not here"
        if entry["source"] == "manual" and not entry["n_here"]:
            here = "by hand"
        tried = "" if entry["verified"] else ", address not tried"
        yield printable(f"{entry['name']:{longest}}  {here}: {count}{size}{tried}")
        text = f"{entry['description']} ({entry['licence']})"
        yield printable(f"  {textwrap.shorten(text, width, placeholder=' …')}")
    yield "realbench sets show NAME says more; set:NAME is one wherever a folder is taken."


@app.command("show")
def show_command(name: Name, json_: options.Json = False) -> None:
    """Print a set's card, and what of it is here."""
    from realbench.sets.cards import SET_FILE, find_set
    from realbench.sets.fetching import find_fetched

    card = find_set(name)
    fetched = find_fetched(card)
    lines = [(card.path / SET_FILE).read_text(encoding="utf-8").rstrip(), ""]
    if not card.verified:
        lines.append("# its address was not tried by who wrote this card")
    if fetched is None:
        lines.append(f"# not here: realbench sets get {printable(name)}")
    else:
        lines += [f"# {line}" for line in _fetched_lines(card, fetched)]
    lines.append(f"# card in {printable(card.path)}")
    record = card.model_dump(mode="json", exclude_none=True) | _entry(card, fetched)
    options.Output(json_=json_).show(record, lines)


def _fetched_lines(card: SetCard, fetched: Fetched) -> Iterator[str]:
    record = fetched.record
    part = "" if record["asked"] is None else " (a part of it)"
    yield printable(f"{card.name}: {record['n']:,} pictures{part} in {fetched.folder}")
    folders: Mapping[str, int] = record["folders"]
    shown = [f"{name.removeprefix('generated/')} {n:,}" for name, n in folders.items()]
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    yield printable(f"  {', '.join(shown[:12])}{more}")
    if record["n_failed"]:
        yield f"  no pictures: {record['n_failed']:,}; pictures.csv there says why"


@app.command("get")
def get_command(
    *,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME|CARD_DIR", help="Sets that are fetched.")
    ],
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, help="Take so many pictures of each. (default: all)"),
    ] = None,
    given: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", metavar="FILE", help="Its zip, tar or Parquet file; may be repeated."
        ),
    ] = None,
    output: options.Output,
) -> None:
    """Fetch sets, as ordinary folders of image files.

    realbench sets get realgen-photographs

    realbench score ./flux-dev --reference set:realgen-photographs

    Size and licence are said before. Run it again to go on after an interruption.
    """
    from realbench.errors import UsageError
    from realbench.sets.cards import find_set
    from realbench.sets.fetching import get

    if given and len(names) > 1:
        raise UsageError("--from is the file of one set: name one")
    if output.quiet:
        warnings.simplefilter("ignore")
    fetched = [(card, get(card, n=n, given=given or ())) for card in map(find_set, names)]
    found = [_entry(card, one) | {"record": one.record} for card, one in fetched]
    output.show(found, (line for pair in fetched for line in _fetched_lines(*pair)))


@app.command("verify")
def verify_command(
    *,
    name: Name,
    detector: options.Detector = None,
    device: options.Device = "auto",
    write: Annotated[
        bool,
        typer.Option("--write", help="Keep what is computed here as the reference, by the card."),
    ] = False,
    output: options.Output,
) -> int:
    """Score a fixed sample, and compare it with reference predictions of the detectors.

    realbench sets verify demo

    The demo's pictures and their predictions come with the package, so that this needs no network.
    The exit code is 1 where an installation computes something else.
    """
    from realbench.bench.verify import TOLERANCE, verify_set, write_predictions
    from realbench.detection.registry import EMBEDDED_DETECTORS
    from realbench.sets.cards import find_set

    card, detectors = find_set(name), detector or list(EMBEDDED_DETECTORS)
    if write:
        file = write_predictions(card, detectors, device=device)
        output.show({"file": str(file)}, [f"Written: {printable(file)}"])
        return 0
    compared = verify_set(card, detectors, device=device)
    lines = (
        f"{one['detector']}: {'agrees' if one['agrees'] else 'DIFFERS'}, by at most "
        f"{one['largest']:.3f} of a logit on {one['n']} pictures ({printable(one['image'])}; "
        f"{TOLERANCE:g} is taken)"
        for one in compared
    )
    output.show(compared, lines)
    if all(one["agrees"] for one in compared):
        return 0
    typer.echo(
        "error: this installation computes other scores than the reference: compare the versions "
        "of torch, Pillow and NumPy with those that pyproject.toml asks for",
        err=True,
    )
    return 1
