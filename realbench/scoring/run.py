"""A Detector-Scoring run: folders in, table, summary, manifest and report out."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from realbench.config.settings import checked_settings
from realbench.detection.cards import Card
from realbench.detection.ensemble import combine_cards, disagreement, probability
from realbench.detection.ensembles import find_cards
from realbench.detection.registry import DEFAULT_DETECTORS
from realbench.detection.specs import Precision
from realbench.detection.verdict import check_bound, doubts, find_sample
from realbench.distances.compare import compare, figures_table
from realbench.distances.features import find_features
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.images import DEFAULT_MAX_PIXELS, ImageFile
from realbench.prompts import load_suite
from realbench.quality.cards import find_measures
from realbench.runs.files import (
    checked,
    json_bytes,
    make_folder,
    output_folder,
    table_csv,
    write_atomically,
)
from realbench.runs.folder import make_run_folder
from realbench.scoring.cache import cache_path, open_cache
from realbench.scoring.engine import (
    FileScores,
    Networks,
    Protocol,
    add_quality,
    check_measures,
    score_files,
)
from realbench.scoring.folders import (
    Inputs,
    find_inputs,
    mark_copies,
    notes_on_models,
    warn_of_other_prompts,
)
from realbench.scoring.pipeline import Progress
from realbench.scoring.records import (
    FEATURES_FILE,
    ScoreManifest,
    Summary,
    describe_run,
    features_bytes,
    read_features,
    read_manifest,
    read_summary,
    read_table,
)
from realbench.scoring.shortcuts import shortcut_notes
from realbench.scoring.summary import summarize
from realbench.sets.naming import set_folders, set_photographs
from realbench.stats import VerdictRule
from realbench.text import printable


@dataclass(repr=False)
class ScoreRun:
    """The result of scoring folders; behaves as its table where a table is wanted.

    Attributes:
        table: a row per image, with the columns of ``scores.csv``.
        summary: per-folder figures and comparisons, as in ``summary.json``.
        manifest: what was run, as in ``run.json``.
        paths: where each (folder, image) of the table lies.
        features: what distances are of, float32 (rows of the table, d) by network; NaN for none.
    """

    table: pd.DataFrame
    summary: Summary
    manifest: ScoreManifest
    paths: dict[tuple[str, str], Path]
    features: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read the run that ``realbench score --out`` wrote to a folder.

        Pictures are looked for where they were, from the working folder of today.

        Raises:
            UsageError: no run is there.
            RealBenchError: a file of it is damaged.
        """
        run = Path(folder)
        table, summary = read_table(run), read_summary(run)
        entries = [*summary["folders"], *([summary["reference"]] if summary["reference"] else [])]
        roots = {entry["folder"]: Path(entry["path"]) for entry in entries}
        paths = {
            (name, image): roots[name] / image
            for name, image in zip(table["folder"], table["image"], strict=True)
            if name in roots
        }
        return cls(table, summary, read_manifest(run), paths, read_features(run, len(table)))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, column: str) -> pd.Series:
        return self.table[column]

    def __repr__(self) -> str:
        return self.folders.to_string()

    def _repr_html_(self) -> str:
        return self.folders.to_html()

    @property
    def folders(self) -> pd.DataFrame:
        """One row per folder, best first: rank, n, mean realism with its interval, escape rate."""
        rows = []
        for entry in sorted(self.summary["folders"], key=lambda e: e["rank"] or sys.maxsize):
            realism = entry["realism"]
            row: dict[str, Any] = {
                key: entry.get(key) for key in ("folder", "rank", "rank_low", "rank_high")
            }
            row |= {"n": entry["n"], "n_failed": entry["n_failed"]}
            row |= {"realism": realism["estimate"], "low": realism["low"], "high": realism["high"]}
            row["escape_rate"] = entry["escape_rate"]["estimate"]
            rows.append(row | {name: one["estimate"] for name, one in entry["detectors"].items()})
        return pd.DataFrame(rows).set_index("folder")

    @property
    def distances(self) -> pd.DataFrame:
        """One row per folder and figure, as in ``distances.csv``; empty without distances."""
        record = self.summary.get("distances")
        return pd.DataFrame() if record is None else figures_table(record)

    @property
    def failures(self) -> pd.DataFrame:
        """The rows of images that could not be read, with the reason."""
        return self.table[self.table["status"] == "unreadable"]

    @property
    def n_scored(self) -> int:
        """How many images have scores."""
        return int((self.table["status"] != "unreadable").sum())

    def write(self, out: str | Path) -> Path:
        """Write ``scores.csv``, ``summary.json``, ``run.json`` and ``report.html`` to ``out``.

        And ``distances.csv`` and ``features.safetensors``, where distances were asked for.

        Each file appears whole or not at all; the folder is made where it is missing.

        Raises:
            RealBenchError: a file cannot be written; the message names it.
        """
        from realbench.scoring.report import write_score_report

        folder = output_folder(out)
        make_folder(folder)
        write_atomically(folder / "scores.csv", table_csv(self.table))
        (folder / "distances.csv").unlink(missing_ok=True)  # of an earlier run
        (folder / FEATURES_FILE).unlink(missing_ok=True)
        if len(self.distances):
            write_atomically(folder / "distances.csv", table_csv(self.distances))
            write_atomically(folder / FEATURES_FILE, features_bytes(self.features))
        write_atomically(folder / "summary.json", json_bytes(self.summary))
        write_atomically(folder / "run.json", json_bytes(self.manifest))
        checked(folder / "report.html", lambda: write_score_report(self, folder))
        return folder


@checked_settings
def score(
    *folders: str | Path,
    prompts: str | Path | None = None,
    reference: str | Path | None = None,
    detectors: str | Path | Sequence[str | Path] = DEFAULT_DETECTORS,
    quality: Sequence[str | Path] = (),
    weights: Mapping[str, Mapping[str, str | Path]] | None = None,
    out: str | Path | None = None,
    distances: bool = False,
    matched: bool = False,
    device: str = "auto",
    precision: Precision = "float32",
    max_false_alarm: float = 0.05,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    workers: int | None = None,
    batch_size: int | None = None,
    cache: bool = True,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> ScoreRun:
    """Score folders of images with an ensemble of detectors.

    Args:
        folders: one per model; images are found in them and below.
        prompts: a suite's name, or a file of prompts (an image's stem is its prompt id).
        reference: folder of photographs to compare with.
        detectors: names of bundled detectors, or folders with a ``card.toml``.
        quality: measures of image quality and alignment, reported beside realism: names, or
            folders with a ``measure.toml``. Those that read prompts need ``prompts``.
        weights: the user's own files, by detector or measure and part (``"weights"``,
            ``"backbone"``).
        matched: bring every image to one shape, size and format before a detector sees it, so
            that these tell no model from the photographs.
        out: folder that receives CSV, summary, manifest and report.
        distances: whether to compare each folder as a whole with the photographs, too
            (docs/distances.md).
        device: where the networks run; ``"auto"`` prefers a GPU.
        precision: of published networks; ``"bfloat16"`` is meant for GPUs, and moves their
            scores a little (the embedded detectors choose for themselves).
        max_false_alarm: the share of photographs that verdicts may call generated, and of
            generated images that they may call photographs, above 0 and at most 0.5.
        max_pixels: larger images are reported, not decoded.
        workers: decoding threads, by default one per core.
        batch_size: images a forward pass, by default one that suits the device.
        cache: whether to look scores up and to keep them (see :mod:`realbench.scoring.cache`).
        seed: of the bootstrap.
        progress: called as files finish.

    Returns:
        the run; ``run.table`` has a row per image, ``run.folders`` one per folder.

    Raises:
        UsageError: a folder, file, detector or device that cannot be used.
        RealBenchError: weights or results that cannot be read or written.
    """
    started = datetime.now(UTC)
    run_folder = None if out is None else output_folder(out)
    check_bound(max_false_alarm)
    _check_numbers(max_pixels=max_pixels, workers=workers, batch_size=batch_size, seed=seed + 1)
    if not folders:
        raise UsageError("no folder is given: name at least one folder of images")
    places = set_folders(folders)
    reference = None if reference is None else set_photographs(reference)
    suite = load_suite(prompts) if prompts is not None else None
    given = dict(weights or {})
    measures = find_measures(quality, given)
    if distances and reference is None:
        raise UsageError("distances are from photographs: name their folder with --reference")
    encoders = find_features(given) if distances else []
    own = {card.name for card in [*measures, *encoders]}
    files = {name: parts for name, parts in given.items() if name not in own}
    cards = find_cards(detectors, files, precision)
    check_measures(measures, [card.name for card in [*cards, *encoders]], suite)
    held_out = find_sample(cards)
    rule = None if held_out is None else held_out.rule(cards, max_false_alarm)
    inputs = find_inputs(places, reference)
    if suite is not None and prompts is not None:
        warn_of_other_prompts(suite, prompts, inputs.files)
    caches = [cache_path()] if cache else []
    if run_folder is not None:
        make_run_folder(run_folder, "realbench score", inputs.folders.values())
        _warn_of_replacement(run_folder, list(inputs.folders))
        if cache:
            caches.append(run_folder / ".scores.sqlite")  # where the usual place cannot be used
    protocol = Protocol(matched=matched)
    networks = Networks(cards, measures, encoders, device=device, batch_size=batch_size)
    texts = {} if suite is None else {key: one.prompt for key, one in suite.prompts.items()}
    own_prompts = [texts.get(file.prompt_id) for _, file in inputs.files]
    clock = time.perf_counter()
    with open_cache(caches) as store:
        scores = score_files(
            inputs.paths,
            networks,
            cache=store,
            protocol=protocol,
            prompts=own_prompts,
            workers=workers,
            max_pixels=max_pixels,
            progress=progress,
        )
        table = _table(inputs.files, scores, cards, rule)
        notes = [*inputs.notes, *notes_on_models(inputs)]
        notes += mark_copies(table, scores.pixels, inputs.photos)
        if not matched:
            notes += _shortcut_notes(inputs, table)
        notes += add_quality(table, scores, networks, own_prompts, store, inputs.photos)
    seconds = time.perf_counter() - clock
    features = {card.name: scores.features(card.name) for card in encoders}
    far = None
    if distances and inputs.photos is not None:
        others = [name for name in inputs.folders if name != inputs.photos]
        used = [protocol.used(card) for card in encoders]
        far, more = compare(table, inputs.photos, others, features, used, seed)
        notes += more
    summary = summarize(
        table,
        folders=inputs.shown[: len(folders)],
        reference=None if inputs.photos is None else inputs.shown[-1],
        detectors=[card.name for card in cards],
        prompts=None if suite is None else suite.prompts,
        quality=[card.name for card in measures],
        verdict=None if held_out is None or rule is None else held_out.describe(cards, rule),
        seed=seed,
    )
    summary["notes"] += [*notes, *doubts(cards, rule)]
    summary["distances"] = far
    manifest = describe_run(
        arguments={
            "folders": [printable(folder) for folder in folders],
            "prompts": None if prompts is None else printable(prompts),
            "reference": None if reference is None else printable(reference),
            "device": device,
            "distances": distances,
            "matched": matched,
            "precision": precision,
            "max_false_alarm": max_false_alarm,
            "max_pixels": max_pixels,
            "workers": workers,
            "batch_size": batch_size,
            "cache": cache,
        },
        suite=suite,
        cards=cards,
        protocol=protocol,
        measures=measures,
        device=networks.device,
        seed=seed,
        started=started,
        seconds=seconds,
        counts=scores.counts(),
        timings=scores.timings,
    )
    where = {(name, file.image): file.path for name, file in inputs.files}
    run = ScoreRun(table, summary, manifest, where, features)
    if out is not None:
        run.write(out)
    return run


def _shortcut_notes(inputs: Inputs, table: pd.DataFrame) -> list[str]:
    if inputs.photos is None:
        return []
    status = zip(inputs.files, table["status"], strict=True)
    return shortcut_notes([file for file, one in status if one == "ok"], inputs.photos)


def _warn_of_replacement(out: Path, names: Sequence[str]) -> None:
    """Say that the run in ``out`` had folders that this one has not, and goes."""
    try:
        earlier = read_summary(out)["folders"]
    except RealBenchError:  # none, or a damaged one, which is replaced
        return
    gone = [one["folder"] for one in earlier if one["folder"] not in names]
    if gone:
        message = (
            f"{printable(out)} held a run that had {', '.join(map(printable, gone[:3]))}, too: its "
            "files are replaced (scores stay in the cache; another --out keeps both)"
        )
        warnings.warn(message, RealBenchWarning, stacklevel=4)


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            least = 0 if name == "seed" else 1
            raise UsageError(f"{name} must be at least {least}")


def _table(
    files: Sequence[tuple[str, ImageFile]],
    scores: FileScores,
    cards: Sequence[Card],
    rule: VerdictRule | None,
) -> pd.DataFrame:
    table = scores.table(files)
    logits = {card.name: scores.of(card.name) for card in cards}
    probabilities = {name: probability(values) for name, values in logits.items()}
    table["realism"] = combine_cards(cards, logits)
    for name, values in probabilities.items():
        table[name] = values
    table["disagreement"] = disagreement(np.stack(list(probabilities.values()), axis=1))
    table["verdict"] = "" if rule is None else rule.verdicts(table["realism"])
    return table
