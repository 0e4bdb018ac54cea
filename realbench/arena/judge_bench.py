"""How far judges can be trusted: their votes against the truth, and against those of people.

The truth is known of a pair of a photograph and a generated picture: the photograph is the more
real one. Agreement with people is the chance that a judge says of a pair what a person says, drawn
among those who voted on it, and people's agreement with one another that of two of them: both are
shares of single answers, so that one can be held against the other.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import with_config
from typing_extensions import TypedDict

from realbench import stats
from realbench.arena.judges import JudgeOptions
from realbench.arena.judges.judge import Judge
from realbench.arena.ratings import is_human, position_bias
from realbench.arena.results import ArenaRun, comparisons_of
from realbench.arena.run import arena
from realbench.arena.tally import FloatArray, share_from_draws
from realbench.arena.turn import Progress
from realbench.arena.votes import Comparison, Vote
from realbench.detection.perturbations import jpeg, rescale
from realbench.errors import RealBenchError
from realbench.images import read_image
from realbench.runs.files import json_bytes, make_folder, write_atomically
from realbench.runs.folder import Open, now, package_versions
from realbench.stats.bootstrap import group_sums, interval_of_sums, resampled_means
from realbench.stats.record import Estimate, estimate
from realbench.text import cell

BENCH_FILE = "judges.json"
RESAMPLES = 1000
_BINS = 10

MEASURES = (
    *("accuracy", "with_people", "first_share", "inconsistent_share", "calibration_error"),
    *("brier", "ties", "refusals", "seconds", "cost"),
)


@with_config(Open)
class JudgeMeasures(TypedDict):
    """What a judge's votes come to; each figure has its n and its interval over prompts.

    ``accuracy``: the share of pairs with a photograph in which it is preferred, a tie half;
    ``with_people``: see the module; ``first_share`` and ``inconsistent_share``: see
    :func:`position_bias`; ``calibration_error`` (expected, ten bins) and ``brier``: of P(the first
    is the more real) against the truth, or else what most people say; ``ties``: of comparisons;
    ``refusals``: of answers, those without a verdict; ``seconds`` and ``cost``: of an answer.
    """

    judge: str
    fingerprint: str
    is_human: bool
    n_votes: int
    accuracy: Estimate
    with_people: Estimate
    first_share: Estimate
    inconsistent_share: Estimate
    calibration_error: Estimate
    brier: Estimate
    ties: Estimate
    refusals: Estimate
    seconds: Estimate
    cost: Estimate


@with_config(Open)
class Robustness(TypedDict):
    """A judge on pictures that were changed alike: how often its result stays, and is right."""

    judge: str
    change: str
    same: Estimate
    accuracy: Estimate


@with_config(Open)
class JudgeBench(TypedDict):
    """``judges.json``."""

    judge_bench_format: Literal[1]
    versions: dict[str, str]
    reference: str | None
    judges: list[JudgeMeasures]
    people: Estimate
    robustness: list[Robustness]
    notes: list[str]
    argv: list[str]
    made: str


Unit = tuple[str, str, str]
"""A prompt and two contestants, of which the first is the smaller as text."""


def measure_judges(
    run: ArenaRun, *, changed: Mapping[str, ArenaRun] | None = None, seed: int = 0
) -> JudgeBench:
    """Measure every judge that voted in a run.

    Args:
        run: Of any arena, also an imported one.
        changed: By the change, runs of the same judges on pictures that were changed.
        seed: Of the bootstrap over prompts.

    Raises:
        RealBenchError: there is nothing to hold the votes against.
    """
    comparisons = comparisons_of(run.votes, run.manifest["judges"])
    said: dict[Unit, list[tuple[str, float]]] = defaultdict(list)
    for one in comparisons:
        if is_human(one.judge):
            said[_unit(one)].append((one.judge, one.score))
    if run.reference is None and not said:
        raise RealBenchError(
            "the run has neither photographs nor votes of people: there is nothing to hold its "
            "judges against"
        )
    truth = {
        _unit(one): float(one.a == run.reference)
        for one in comparisons
        if run.reference in (one.a, one.b)
    }
    n_pairs = len({_unit(one) for one in comparisons})
    notes = [
        f"of {n_pairs:,} pairs {len(truth):,} have a photograph, {len(said):,} have votes of people"
    ]
    measured = [
        _measures(run, judge, comparisons, truth, said, seed) for judge in run.manifest["judges"]
    ]
    robustness = [
        _robustness(judge, change, comparisons, other, truth, seed)
        for change, other in (changed or {}).items()
        for judge in run.manifest["judges"]
    ]
    return {
        "judge_bench_format": 1,
        "versions": package_versions(),
        "reference": run.reference,
        "judges": measured,
        "people": _people(said, seed),
        "robustness": robustness,
        "notes": [*notes, *run.manifest["notes"]],
        "argv": run.manifest["argv"],
        "made": now(),
    }


def _unit(one: Comparison) -> Unit:
    return one.prompt_id, one.a, one.b


def _measures(
    run: ArenaRun,
    judge: str,
    comparisons: Sequence[Comparison],
    truth: Mapping[Unit, float],
    said: Mapping[Unit, Sequence[tuple[str, float]]],
    seed: int,
) -> JudgeMeasures:
    votes = [vote for vote in run.votes if vote.judge == judge]
    valid = [vote for vote in votes if vote.verdict != "invalid"]
    own = [one for one in comparisons if one.judge == judge]
    right = [
        (1 - abs(one.score - truth[_unit(one)]), one.prompt_id)
        for one in own
        if _unit(one) in truth
    ]
    same = [
        (float(np.mean([score == one.score for score in others])), one.prompt_id)
        for one in own
        if (others := [score for who, score in said.get(_unit(one), ()) if who != judge])
    ]
    # Detectors give each picture a score of its own: where it is shown cannot matter to them.
    shown = ([], []) if judge == "detectors" else (votes, own)
    bias = position_bias(*shown, resamples=RESAMPLES, seed=seed)
    calibration_error, brier = _calibration(valid, truth, said, seed)
    return {
        "judge": judge,
        "fingerprint": run.manifest["judges"][judge]["fingerprint"],
        "is_human": is_human(judge),
        "n_votes": len(valid),
        "accuracy": _share(right, seed),
        "with_people": _share(same, seed),
        "first_share": bias["first_share"],
        "inconsistent_share": bias["inconsistent_share"],
        "calibration_error": calibration_error,
        "brier": brier,
        "ties": _share([(float(one.score == 0.5), one.prompt_id) for one in own], seed),
        "refusals": _share([(float(v.verdict == "invalid"), v.prompt_id) for v in votes], seed),
        "seconds": _mean([(v.seconds, v.prompt_id) for v in votes if v.seconds], seed),
        "cost": _mean([(v.usage["cost"], v.prompt_id) for v in votes if "cost" in v.usage], seed),
    }


def _people(said: Mapping[Unit, Sequence[tuple[str, float]]], seed: int) -> Estimate:
    """How often two people say the same of a pair."""
    same = [
        (float(np.mean([one == other for (_, one), (_, other) in combinations(each, 2)])), unit[0])
        for unit, each in said.items()
        if len(each) > 1
    ]
    return _share(same, seed)


def _calibration(
    votes: Iterable[Vote],
    truth: Mapping[Unit, float],
    said: Mapping[Unit, Sequence[tuple[str, float]]],
    seed: int,
) -> tuple[Estimate, Estimate]:
    """Calibration error and Brier score of P(the first is the more real)."""
    rows = []
    for vote in votes:
        a, b = sorted((vote.first, vote.second))
        unit = vote.prompt_id, a, b
        people = [score for who, score in said.get(unit, ()) if who != vote.judge]
        wins = truth.get(unit, float(np.mean(people)) if people else 0.5)
        if vote.probability is not None and wins != 0.5:
            won = float((wins > 0.5) == (vote.first == a))
            rows.append((vote.probability, won, vote.prompt_id))
    errors = [((p - won) ** 2, prompt) for p, won, prompt in rows]
    cells = np.zeros((len(rows), 2 * _BINS + 1))
    for row, (p, won, _) in zip(cells, rows, strict=True):
        row[min(int(p * _BINS), _BINS - 1)] = p - won
        row[-1] = 1
    labels = np.array([prompt for *_, prompt in rows])
    found = interval_of_sums(cells, labels, _expected_error, len(rows), RESAMPLES, 0.95, seed)
    return estimate(found), _mean(errors, seed)


def _expected_error(sums: FloatArray) -> FloatArray:
    """Expected calibration error of summed gaps by bin, whose last column is their number."""
    error: FloatArray = np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]
    return error


def _robustness(
    judge: str,
    change: str,
    comparisons: Iterable[Comparison],
    changed: ArenaRun,
    truth: Mapping[Unit, float],
    seed: int,
) -> Robustness:
    before = {_unit(one): one.score for one in comparisons if one.judge == judge}
    after = [
        one
        for one in comparisons_of(changed.votes, changed.manifest["judges"])
        if one.judge == judge and _unit(one) in before
    ]
    same = [(float(one.score == before[_unit(one)]), one.prompt_id) for one in after]
    right = [
        (1 - abs(one.score - truth[_unit(one)]), one.prompt_id)
        for one in after
        if _unit(one) in truth
    ]
    return {
        "judge": judge,
        "change": change,
        "same": _share(same, seed),
        "accuracy": _share(right, seed),
    }


def _share(values: Sequence[tuple[float, str]], seed: int) -> Estimate:
    """A mean of (value in [0, 1], prompt), a tie being one half, with Wilson's interval."""
    if not values:
        return estimate(None)
    array, prompts = (np.array(column) for column in zip(*values, strict=True))
    sums, counts = group_sums(array, prompts)
    draws = resampled_means(np.random.default_rng(seed), sums, counts, RESAMPLES)
    return share_from_draws(float(array.mean()), draws, len(array), len(sums))


def _mean(values: Sequence[tuple[float, str]], seed: int) -> Estimate:
    if not values:
        return estimate(None)
    array, prompts = (np.array(column) for column in zip(*values, strict=True))
    return estimate(stats.bootstrap_mean(array, prompts, resamples=RESAMPLES, seed=seed))


# --- Asking ------------------------------------------------------------------------------------

_CHANGES: dict[str, Callable[[Any], Any]] = {
    "JPEG 70": lambda image: jpeg(image, 70),
    "half scale": lambda image: rescale(image, 0.5),
}


def ask_judges(
    generated: Sequence[str | Path],
    reference: str | Path,
    *,
    judge: str | Judge | Sequence[str | Judge],
    out: str | Path,
    robust: bool = False,
    sample: int = 64,
    prompts: str | Path | None = None,
    max_votes: int | None = None,
    seed: int = 0,
    options: JudgeOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[ArenaRun, dict[str, ArenaRun]]:
    """Have judges compare generated pictures with photographs: a run of these pairs alone.

    The same call goes on where an earlier one ended, as :func:`arena` does.

    Args:
        generated: Folders, one per model.
        reference: A folder of photographs.
        judge: As :func:`arena` takes it.
        out: The run's folder.
        robust: Whether to ask again about pictures that were re-encoded and scaled down, of
            ``sample`` pairs; these runs lie in folders below ``out``.
        prompts, max_votes, seed, options, progress: As :func:`arena` takes them.

    Returns:
        The run, and by change those of changed pictures.

    Raises:
        Those of :func:`arena`.
    """

    def ask(folders: Sequence[str | Path], photos: str | Path, where: Path) -> ArenaRun:
        return arena(
            *folders,
            judge=judge,
            reference=photos,
            prompts=prompts,
            out=where,
            schedule="reference",
            max_votes=max_votes,
            seed=seed,
            options=options,
            progress=progress,
        )

    run = ask(generated, reference, Path(out))
    changed = {}
    for change in _CHANGES if robust else ():
        where = Path(out) / change.replace(" ", "-")
        folders = _change_pictures(run, change, where / "pictures", sample, seed)
        changed[change] = ask(folders[:-1], folders[-1], where)
    return run, changed


def _change_pictures(run: ArenaRun, change: str, where: Path, sample: int, seed: int) -> list[Path]:
    """Write changed copies of the pictures of some pairs; return their folders, photographs last.

    A photograph gets the id of the prompt that it was set beside, so that the pairs stay.
    """
    from PIL import Image

    assert run.reference is not None
    pairs = sorted(key for key in run.pictures if key[0] != run.reference)
    pairs = [key for key in pairs if (run.reference, key[1]) in run.pictures]
    drawn = np.random.default_rng(seed).permutation(len(pairs))[:sample]
    chosen = {pairs[n] for n in drawn} | {(run.reference, pairs[n][1]) for n in drawn}
    for name, prompt in sorted(chosen):
        path = where / name / f"{prompt}.png"
        if not path.exists():
            make_folder(path.parent)
            image = read_image(run.pictures[name, prompt])
            buffer = io.BytesIO()
            Image.fromarray(_CHANGES[change](image)).save(buffer, "PNG")
            write_atomically(path, buffer.getvalue())
    names = sorted({name for name, _ in chosen} - {run.reference})
    return [where / name for name in (*names, run.reference)]


# --- Writing -----------------------------------------------------------------------------------


def write_judge_bench(found: JudgeBench, out: Path) -> Path:
    """Write ``judges.json``, ``judges.csv`` and ``judges.html`` to a folder; return the last.

    Raises:
        RealBenchError: a file cannot be written.
    """
    from realbench.arena.report.judges import render_judges

    make_folder(out)
    write_atomically(out / BENCH_FILE, json_bytes(found))
    write_atomically(out / "judges.csv", _csv(found))
    write_atomically(out / "judges.html", render_judges(found).encode("utf-8", "backslashreplace"))
    return out / "judges.html"


def _csv(found: JudgeBench) -> bytes:
    """Return a row for each figure."""
    rows: list[tuple[str, str, Estimate]] = [("people", "with_people", found["people"])]
    for one in found["judges"]:
        measured: Mapping[str, Any] = one
        rows += [(one["judge"], name, measured[name]) for name in MEASURES]
    for each in found["robustness"]:
        rows += [(each["judge"], f"same after {each['change']}", each["same"])]
        rows += [(each["judge"], f"accuracy after {each['change']}", each["accuracy"])]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["judge", "measure", "estimate", "low", "high", "n", "n_prompts"])
    for judge, name, value in rows:
        figures = [value["estimate"], value["low"], value["high"], value["n"]]
        writer.writerow([cell(judge), name, *figures, value.get("n_groups", 0)])
    return text.getvalue().encode()
