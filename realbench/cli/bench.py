"""``realbench detectors bench``, ``check``, ``calibrate`` and ``fuse``: images of known truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.score import scoring_bar
from realbench.cli.terminal import add_texts, figures_table, plain_console, print_table
from realbench.report.wording import figure
from realbench.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from realbench.bench import BenchRun
    from realbench.bench.check import Checked
    from realbench.stats.record import Estimate


def bench_command(
    *,
    reference: options.ReferenceNeeded,
    generated: options.Generated,
    scoring: options.Scoring,
    perturb: Annotated[
        bool,
        typer.Option(
            "--perturb", help="Robustness to JPEG, resizing, blur, noise, cropping, and chains."
        ),
    ] = False,
    sample: Annotated[
        int, typer.Option(min=2, help="Images of each folder that --perturb degrades.")
    ] = 64,
    out: Annotated[
        Path | None, options.out("Write bench.csv, bench.json, scores.csv, report.html.")
    ] = None,
    seed: Annotated[int, options.seed("Of the bootstrap and of --sample.")] = 0,
    output: options.Output,
) -> None:
    """Measure detectors on photographs and on images of generators.

    AUC, average precision, accuracy, TPR at 5 % FPR and calibration error, each with its 95 %
    interval; speed; which detectors make the same errors.
    """
    from realbench.bench import bench
    from realbench.detection.registry import DEFAULT_DETECTORS

    with scoring_bar(shown=output.in_words) as progress:
        run = bench(
            *generated,
            real=reference,
            detectors=scoring.detector or DEFAULT_DETECTORS,
            perturb=perturb,
            sample=sample,
            out=out,
            seed=seed,
            progress=progress,
            **scoring.settings(),
        )
    if not output.quiet:
        for line in run.results["warnings"]:
            typer.echo(f"warning: {line}", err=True)
    if output.in_words:
        _print(run, out)
    else:
        output.show(run.results)


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
        if pair["correlation"]["estimate"] is not None:
            lines.append(
                f"Errors of {pair['a']} and {pair['b']} correlate by "
                f"{figure(pair['correlation'], inline=True)}, n = {pair['n']}"
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


def _measures(results: dict[str, Any]) -> Table:
    from realbench.stats.classification import MEASURES

    protocol = "matched protocol" if results["matched"] else "images as they are"
    table = figures_table(
        f"{protocol}; both classes weigh the same; below a figure its 95 % interval"
    )
    table.add_column("detector", min_width=10)
    table.add_column("generator", min_width=10)
    table.add_column("n", justify="right")
    heads = ("AUC", "average\nprecision", "accuracy\nat 0.5", "best\naccuracy")
    for head in (*heads, "TPR at\n5 % FPR", "TPR at\n1 % FPR", "calibr.\nerror"):
        table.add_column(head, justify="right", min_width=len("0.00–0.00"))
    entries = results["results"]
    for n, entry in enumerate(entries):
        last = n + 1 == len(entries) or entries[n + 1]["detector"] != entry["detector"]
        first = not n or entries[n - 1]["detector"] != entry["detector"]
        cells = [entry["detector"] if first else "", entry["generator"] or "all generators"]
        cells.append(f"{entry['n_real']}+\n{entry['n_generated']}")
        cells += [figure(entry[name]) for name in MEASURES]
        add_texts(table, cells, end_section=last)
    return table


def _worst(results: dict[str, Any]) -> Table:
    """The AUC under the strongest degradation of each kind, over all generators."""
    several = len(results["generated"]) > 1
    entries = [one for one in results["robustness"] if not (several and one["generator"])]
    strongest: dict[tuple[str, str], dict[str, Any]] = {}
    for one in entries:  # mildest first
        strongest[one["detector"], one["perturbation"]] = one
    kinds = list(dict.fromkeys(one["perturbation"] for one in entries))
    table = figures_table(
        "AUC under the strongest degradation of each kind, on a sample of "
        f"{entries[0]['n_real']}+{entries[0]['n_generated']} images"
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
        add_texts(table, [name, *(figure(one["auc"]) for one in cells)])
    return table


def check_command(
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|CARD_DIR|ensemble:NAME", help="Detectors to try. (default: all)"
        ),
    ] = None,
    weights: options.Weights = None,
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    output: options.Output,
) -> int:
    """Load each detector that is complete here and have it score a test card.

    realbench detectors check

    realbench detectors check npr ./my_detectors/mine --device cuda

    Prints P(real) of the test card (a rendered picture), images/s and memory; for a detector that
    lacks something, what. Nothing is downloaded. The exit code is 1 if one fails that is complete.
    """
    from realbench.bench.check import check_detectors
    from realbench.detection.ensembles import find_cards
    from realbench.detection.registry import list_detectors
    from realbench.detection.weight_files import parse_weights

    cards = find_cards(names or list_detectors(), parse_weights(weights or []), precision)
    cards = sorted(cards, key=lambda card: bool(card.whats_missing()))
    found = check_detectors(cards, device=device, report=_report if output.in_words else None)
    failed = [one.name for one in found if one.failure]
    usable = sum(not one.missing and not one.failure for one in found)
    usable_here = [f"{usable} of {len(found)} can be used here"]
    output.show([_as_json(one) for one in found], usable_here)
    if failed:
        typer.echo(f"error: failed though complete: {', '.join(failed)}", err=True)
    return 1 if failed else 0


def _as_json(one: Checked) -> dict[str, Any]:
    tried = not (one.missing or one.failure)
    return {
        "name": one.name,
        "missing": one.missing or None,
        "failure": one.failure or None,
        "realism": one.realism if tried else None,
        "images_per_second": one.speed if tried else None,
        "memory_bytes": one.memory if tried else None,
    }


def _report(one: Checked) -> None:
    if one.missing:
        typer.echo(f"{one.name}: not here: {one.missing}")
    elif one.failure:
        typer.echo(f"{one.name}: FAILED: {one.failure}")
    else:
        memory = one.memory / 2**20
        typer.echo(
            f"{one.name}: works: P(real) {one.realism:.3f}, {one.speed:.1f} images/s, "
            f"{memory:.0f} MiB"
        )


def calibrate_command(
    *,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME|CARD_DIR", help="Detectors to calibrate.")
    ],
    reference: options.References,
    generated: options.Generated,
    out: Annotated[
        Path | None,
        options.out(
            "Receives NAME/calibration.toml and NAME/verdict.json. (default: beside the card of "
            "your own folder, else calibrated-detectors)",
            "DIR",
        ),
    ] = None,
    prior: Annotated[
        float,
        typer.Option(help="Share of photographs that P(real) shall suppose, between 0 and 1."),
    ] = 0.5,
    scoring: options.Computing,
    seed: Annotated[int, options.seed("Of the bootstrap.")] = 0,
    output: options.Output,
) -> None:
    """Fit P(real) and verdicts of detectors on your own photographs and generated images.

    realbench detectors calibrate trace-lite --reference photos --generated flux-dev

    realbench score ./new --detector ./calibrated-detectors/trace-lite

    P(real) gets a temperature and a bias; both classes weigh the same. Verdicts are fitted on the
    scores of these images, which the detectors must not have learned from. Only the folder that
    is written uses them: the detector's name keeps what its card has.
    """
    from realbench.bench.calibrate import calibrate

    with scoring_bar(shown=output.in_words) as progress:
        results = calibrate(
            names,
            reference,
            generated,
            out=out,
            prior=prior,
            seed=seed,
            progress=progress,
            **scoring.settings(),
        )
    output.show(results, (line for entry in results for line in _calibration_lines(entry)))


def _calibration_lines(entry: dict[str, Any]) -> Iterator[str]:
    fitted = entry["calibration"]
    yield (
        f"{entry['detector']}: temperature {fitted['temperature']:g}, bias {fitted['bias']:g}, "
        f"from {entry['n_real']} photographs and {entry['n_generated']} generated images"
    )
    yield f"  AUC {in_line(entry['auc'])}, which calibration does not change"
    for name, key in (("calibration error", "calibration_error"), ("log loss", "log_loss")):
        before, after = entry["before"][key], entry["after"][key]
        yield f"  {name} {in_line(before)} before, {in_line(after)} after"
    saved = entry["log_loss_saved"]
    doubt = ""
    if saved["low"] is not None and saved["low"] <= 0:
        doubt = ": worse than before" if saved["high"] < 0 else ": no more than chance would save"
    yield f"  log loss saved {in_line(saved)}{doubt}"
    yield "  (cross-validated by prompt, at even odds; 95 % intervals over prompts)"
    if fitted["prior"] != 0.5:
        yield f"  P(real) supposes that {fitted['prior']:.0%} are photographs"
    yield f"  {_called(entry['verdict'])}"
    yield from (f"  Note: {note}" for note in entry["notes"])
    yield f"  Use: --detector {as_folder(entry['folder'])}"


def _called(basis: dict[str, Any]) -> str:
    parts = [f"verdicts at --max-false-alarm {basis['max_false_alarm']:g}:"]
    low, high = basis["generated_below"], basis["photograph_above"]
    parts.append("none is called generated," if low is None else f"generated below {low:.3f},")
    parts.append("none a photograph" if high is None else f"photograph above {high:.3f}")
    spread = basis["photographs_called_generated"]
    if spread:
        parts.append(
            f"(photographs of a source left out: median {spread['median']:.2f} called generated, "
            f"at worst {spread['largest']:.2f}, {printable(spread['of'])}, n = {spread['n']})"
        )
    return " ".join(parts)


def in_line(value: Estimate) -> str:
    """Return an estimate with its interval, in one line."""
    return figure(value, 3, inline=True)


def as_folder(path: str | Path) -> str:
    """Return a path that no detector's name could be taken for."""
    text = printable(path)
    return text if text.startswith((".", "/")) else f"./{text}"


def fuse_command(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the ensemble is called.")],
    reference: options.References,
    generated: options.Generated,
    scoring: options.Scoring,
    out: Annotated[
        Path | None,
        options.out("File that receives it. (default: ensembles.toml in this folder)", "FILE"),
    ] = None,
    seed: Annotated[int, options.seed("Of the bootstrap.")] = 0,
    output: options.Output,
) -> None:
    """Fit the weights of an ensemble, and compare it with the plain average on held-out images.

    realbench detectors fuse mine --detector trace-lite --detector ./my_detectors/mine
    --reference photos --generated flux-dev --generated sdxl

    realbench score ./new --detector ensemble:mine

    Weights are at least 0. Use images that the detectors did not learn from.
    """
    from realbench.bench.fuse import fuse
    from realbench.detection.ensembles import own_file
    from realbench.detection.registry import EMBEDDED_DETECTORS

    with scoring_bar(shown=output.in_words) as progress:
        found = fuse(
            scoring.detector or EMBEDDED_DETECTORS,
            reference,
            generated,
            name=name,
            out=out or own_file(),
            seed=seed,
            progress=progress,
            **scoring.settings(),
        )
    output.show(found, _fusion_lines(found))


FUSION_VERDICTS = {
    (True, True): "The fusion is better than the plain average, in ranks and probabilities.",
    (True, False): "The fusion ranks better than the plain average; its probabilities are no "
    "better.",
    (False, True): "The fusion is not better at ranking than the plain average, but its "
    "probabilities are: for rankings and rewards the average will do.",
    (False, False): "The fusion is not better than the plain average on these images: prefer that.",
}


def _fusion_lines(found: dict[str, Any]) -> Iterator[str]:
    shown = ", ".join(f"{name} {weight:g}" for name, weight in found["weights"].items())
    yield f"ensemble:{found['name']}: {shown}, bias {found['bias']:g}"
    for key, label in (("average", "plain average"), ("fusion", "fusion")):
        one = found[key]
        yield f"  {label}: AUC {in_line(one['auc'])}, log loss {in_line(one['log_loss'])}"
    yield (
        f"  the fusion gains {in_line(found['auc_gained'])} of AUC and saves "
        f"{in_line(found['log_loss_saved'])} of log loss"
    )
    yield (
        f"  ({found['n_real']} photographs, {found['n_generated']} generated images, fitted "
        f"without their {found['held_out']}; 95 % intervals over prompts)"
    )
    yield f"  {FUSION_VERDICTS[found['ranks_better'], found['better_probabilities']]}"
    yield from (f"  Note: {note}" for note in found["notes"])

    yield f"  Saved in {printable(found['path'])}; use: --detector ensemble:{found['name']}"
