"""``realbench detectors calibrate``: make P(real) mean what it says on the user's images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realbench.cli import options
from realbench.cli.score import progress_bar
from realbench.report.wording import figure
from realbench.text import printable

if TYPE_CHECKING:
    from realbench.stats.record import Estimate


def calibrate_command(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME|CARD_DIR", help="Detectors to calibrate.")
    ],
    reference: options.References,
    generated: options.Generated,
    weights: options.Weights = None,
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
    matched: options.Matched = False,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    max_pixels: options.MaxPixels = options.MAX_PIXELS,
    no_cache: options.NoCache = False,
    seed: Annotated[int, options.seed("Of the bootstrap.")] = 0,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> None:
    """Fit P(real) and verdicts of detectors on your own photographs and generated images.

    realbench detectors calibrate trace-lite --reference photos --generated flux-dev

    realbench score ./new --detector ./calibrated-detectors/trace-lite

    P(real) gets a temperature and a bias; both classes weigh the same. Verdicts are fitted on the
    scores of these images, which the detectors must not have learned from. Only the folder that
    is written uses them: the detector's name keeps what its card has.
    """
    from realbench.bench.calibrate import calibrate
    from realbench.detection.weight_files import parse_weights

    with progress_bar(shown=not quiet and not json_) as progress:
        results = calibrate(
            names,
            reference,
            generated,
            out=out,
            prior=prior,
            matched=matched,
            weights=parse_weights(weights or []),
            device=device,
            batch_size=batch_size,
            workers=workers,
            max_pixels=max_pixels,
            cache=not no_cache,
            seed=seed,
            progress=progress,
        )
    if json_:
        import json

        typer.echo(json.dumps(results))
        return
    if quiet:
        return
    for entry in results:
        for line in _lines(entry):
            typer.echo(line)


def _lines(entry: dict[str, Any]) -> Iterator[str]:
    fitted = entry["calibration"]
    yield (
        f"{entry['detector']}: temperature {fitted['temperature']:g}, bias {fitted['bias']:g}, "
        f"from {entry['n_real']} photographs and {entry['n_generated']} generated images"
    )
    yield f"  AUC {number(entry['auc'])}, which calibration does not change"
    for name, key in (("calibration error", "calibration_error"), ("log loss", "log_loss")):
        before, after = entry["before"][key], entry["after"][key]
        yield f"  {name} {number(before)} before, {number(after)} after"
    saved = entry["log_loss_saved"]
    yield f"  log loss saved {number(saved)}{_verdict(saved)}"
    yield "  (cross-validated by prompt, at even odds; 95 % intervals over prompts)"
    if fitted["prior"] != 0.5:
        yield f"  P(real) supposes that {fitted['prior']:.0%} are photographs"
    yield f"  {_verdicts(entry['verdict'])}"
    yield from (f"  Note: {note}" for note in entry["notes"])
    yield f"  Use: --detector {as_folder(entry['folder'])}"


def _verdicts(basis: dict[str, Any]) -> str:
    """Say what is called what, at the default bound."""
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


def _verdict(saved: dict[str, Any]) -> str:
    if saved["low"] is None or saved["low"] > 0:
        return ""
    return ": worse than before" if saved["high"] < 0 else ": no more than chance would save"


def number(value: Estimate) -> str:
    """Return an estimate with its interval, in one line."""
    return figure(value, 3, inline=True)


def as_folder(path: str | Path) -> str:
    """Return a path that no detector's name could be taken for."""

    text = printable(path)
    return text if text.startswith((".", "/")) else f"./{text}"
