"""``realbench detectors bench``: how well do detectors find generated images?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.score import progress_bar
from realbench.cli.tables import plain_console, print_table
from realbench.report.wording import figure
from realbench.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from realbench.bench import BenchRun


def bench_command(
    reference: options.ReferenceNeeded,
    generated: options.Generated,
    detector: options.Detector = None,
    weights: options.Weights = None,
    matched: options.Matched = False,
    perturb: Annotated[
        bool,
        typer.Option("--perturb", help="Robustness to JPEG, resizing, blur, noise and cropping."),
    ] = False,
    sample: Annotated[
        int, typer.Option(min=2, help="Images of each folder that --perturb degrades.")
    ] = 64,
    out: Annotated[
        Path | None, options.out("Write bench.csv, bench.json, scores.csv, report.html.")
    ] = None,
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    max_pixels: options.MaxPixels = options.MAX_PIXELS,
    no_cache: options.NoCache = False,
    seed: Annotated[int, options.seed("Of the bootstrap and of --sample.")] = 0,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> None:
    """Measure detectors on photographs and on images of generators.

    AUC, average precision, accuracy, TPR at 5 % FPR and calibration error, each with its 95 %
    interval; speed; which detectors make the same errors.
    """
    from realbench.bench import bench
    from realbench.detection.registry import DEFAULT_DETECTORS
    from realbench.detection.weight_files import parse_weights

    with progress_bar(shown=not quiet and not json_) as progress:
        run = bench(
            *generated,
            real=reference,
            detectors=detector or DEFAULT_DETECTORS,
            weights=parse_weights(weights or []),
            matched=matched,
            perturb=perturb,
            sample=sample,
            out=out,
            device=device,
            precision=precision,
            max_pixels=max_pixels,
            workers=workers,
            batch_size=batch_size,
            cache=not no_cache,
            seed=seed,
            progress=progress,
        )
    if not quiet:
        for line in run.results["warnings"]:
            typer.echo(f"warning: {line}", err=True)
    if json_:
        import json

        typer.echo(json.dumps(run.results))
    elif not quiet:
        _print(run, out)


def _print(run: BenchRun, out: Path | None) -> None:

    console = plain_console()
    results = run.results
    print_table(console, _measures(results), names=2)
    if results["robustness"]:
        print_table(console, _worst(results))
    lines = [
        f"{one['name']}: {one['images_per_second']:.1f} images/s on {results['device']}, "
        "decoded images"
        for one in results["detectors"]
    ]
    for pair in results["correlations"]:
        found = pair["correlation"]
        if found["estimate"] is not None:
            low_high = " to ".join("–" if found[e] is None else f"{found[e]:.2f}" for e in _ENDS)
            lines.append(
                f"Errors of {pair['a']} and {pair['b']} correlate by {found['estimate']:.2f} "
                f"({low_high}, n = {pair['n']})"
            )
    lines += [f"Note: {note}" for note in results["notes"]]
    lines += [
        f"Unreadable: {one['folder']}/{one['image']}: {one['reason']}"
        for one in results["failures"][:10]
    ]
    if len(results["failures"]) > 10:
        lines.append(f"Unreadable: {len(results['failures']) - 10} more, see scores.csv (--out)")
    if out is not None:
        lines.append(f"Report: {out / 'report.html'}")
    for line in lines:
        console.print(printable(line))


_ENDS = ("low", "high")


def _measures(results: dict[str, Any]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    protocol = "matched protocol" if results["matched"] else "images as they are"
    table = Table(
        caption=f"{protocol}; both classes weigh the same; below a figure its 95 % interval",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("detector", min_width=10)
    table.add_column("generator", min_width=10)
    table.add_column("n", justify="right")
    heads = ("AUC", "average\nprecision", "accuracy\nat 0.5", "best\naccuracy")
    for head in (*heads, "TPR at\n5 % FPR", "calibr.\nerror"):
        table.add_column(head, justify="right", min_width=len("0.00–0.00"))
    entries = results["results"]
    for n, entry in enumerate(entries):
        last = n + 1 == len(entries) or entries[n + 1]["detector"] != entry["detector"]
        first = not n or entries[n - 1]["detector"] != entry["detector"]
        cells = [entry["detector"] if first else "", entry["generator"] or "all generators"]
        cells.append(f"{entry['n_real']}+\n{entry['n_generated']}")
        cells += [figure(entry[name]) for name in _shown()]
        table.add_row(*map(Text, cells), end_section=last)
    return table


def _shown() -> tuple[str, ...]:
    from realbench.stats.classification import MEASURES

    return MEASURES


def _worst(results: dict[str, Any]) -> Table:
    """The AUC under the strongest degradation of each kind, over all generators."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    several = len(results["generated"]) > 1
    entries = [one for one in results["robustness"] if not (several and one["generator"])]
    strongest: dict[tuple[str, str], dict[str, Any]] = {}
    for one in entries:  # mildest first
        strongest[one["detector"], one["perturbation"]] = one
    kinds = list(dict.fromkeys(one["perturbation"] for one in entries))
    table = Table(
        caption="AUC under the strongest degradation of each kind, on a sample of "
        f"{entries[0]['n_real']}+{entries[0]['n_generated']} images",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("detector", min_width=10)
    table.add_column("as it is", justify="right")
    detectors = list(dict.fromkeys(one["detector"] for one in entries))
    for kind in kinds:
        label = strongest[detectors[0], kind]["label"]
        table.add_column(f"{kind}\n{label}", justify="right")
    for name in detectors:
        before = next(one for one in entries if one["detector"] == name and one["label"] == "none")
        cells = [before, *(strongest[name, kind] for kind in kinds)]
        table.add_row(Text(name), *(Text(figure(one["auc"])) for one in cells))
    return table
