"""A benchmark of detectors: photographs and folders of generated images in, measures out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from realbench.bench.check import images_per_second
from realbench.bench.labelled import check_apart
from realbench.bench.measures import (
    DEGRADATIONS,
    ENSEMBLE,
    Degradation,
    chains,
    correlations,
    measure,
    robustness,
)
from realbench.detection.ensemble import combine_cards, probability
from realbench.detection.ensembles import find_cards
from realbench.detection.registry import DEFAULT_DETECTORS
from realbench.detection.specs import Precision
from realbench.errors import RealBenchError, UsageError
from realbench.images import DEFAULT_MAX_PIXELS, ImageFile, UnreadableImage, read_image
from realbench.runs.files import (
    checked,
    json_bytes,
    make_folder,
    output_folder,
    table_csv,
    write_atomically,
)
from realbench.runs.folder import make_run_folder, package_versions
from realbench.scoring import shortcuts
from realbench.scoring.cache import ScoreCache, cache_path, open_cache
from realbench.scoring.engine import Networks, Protocol, score_files
from realbench.scoring.folders import apart, display_names, find_files, mark_copies
from realbench.scoring.pipeline import Progress
from realbench.sets.naming import set_folders, set_photographs
from realbench.text import printable

if TYPE_CHECKING:
    from realbench.detection.cards import Card

SCHEMA_VERSION = 1
DEFAULT_SAMPLE = 64
_SPEED_IMAGES = 16
_FEW_FOR_1_FPR = 100


@dataclass(repr=False)
class BenchRun:
    """The result of a benchmark.

    Attributes:
        results: all figures, as in ``bench.json``.
        scores: a row per image: folder, image, prompt id, SHA-256, whether it is a photograph,
            status, reason and P(real) by detector and ``ensemble``, as in ``scores.csv``.
    """

    results: dict[str, Any]
    scores: pd.DataFrame

    def __repr__(self) -> str:
        return self.table[["detector", "generator", "auc", "auc_low", "auc_high"]].to_string()

    @property
    def table(self) -> pd.DataFrame:
        """A row per detector and generator (undegraded), then those of the degradations."""
        rows = [_flat(one) for one in self.results["results"]]
        rows += [_flat(one) for one in self.results["robustness"]]
        return pd.DataFrame(rows)

    def write(self, out: str | Path) -> Path:
        """Write ``bench.csv``, ``bench.json``, ``scores.csv`` and ``report.html`` to ``out``.

        Raises:
            RealBenchError: a file cannot be written; the message names it.
        """
        from realbench.bench.report import write_bench_report

        folder = output_folder(out)
        make_folder(folder)
        write_atomically(folder / "bench.csv", table_csv(self.table))
        write_atomically(folder / "bench.json", json_bytes(self.results))
        write_atomically(folder / "scores.csv", table_csv(self.scores))
        checked(folder / "report.html", lambda: write_bench_report(self.results, folder))
        return folder


def _flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result as a row: estimates become three columns."""
    row: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            row |= {
                key: value["estimate"],
                f"{key}_low": value["low"],
                f"{key}_high": value["high"],
            }
        else:
            row[key] = "(all)" if key == "generator" and value is None else value
    return row


def bench(
    *generated: str | Path,
    real: str | Path,
    detectors: Sequence[str | Path] = DEFAULT_DETECTORS,
    weights: Mapping[str, Mapping[str, str | Path]] | None = None,
    matched: bool = False,
    perturb: bool = False,
    sample: int = DEFAULT_SAMPLE,
    out: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    workers: int | None = None,
    batch_size: int | None = None,
    cache: bool = True,
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> BenchRun:
    """Measure detectors on photographs and folders of generated images.

    Args:
        generated: a folder per generator.
        real: a folder of photographs.
        detectors: names of detectors, or folders with a ``card.toml``.
        weights: the user's own files, by detector and part.
        matched: bring every image to the same shape, size and format first (see
            :func:`realbench.detection.perturbations.matched`).
        perturb: measure robustness, too, under :data:`realbench.bench.measures.DEGRADATIONS` and
            chains of one to five random degradations.
        sample: images of each folder that are degraded, drawn by ``seed``.
        out: folder that receives the files of :meth:`BenchRun.write`.
        resamples, seed: of the bootstrap; the seed draws the sample and the chains, too.

    Other arguments are those of :func:`realbench.scoring.score`.

    Raises:
        UsageError: a folder, file, detector or device that cannot be used.
        RealBenchError: no image of a class can be read, weights are missing or results cannot be
            written.
    """
    if not generated:
        raise UsageError("no folder of generated images is given: name at least one")
    if sample < 2:
        raise UsageError("sample must be at least 2")
    started, clock = datetime.now(UTC), time.perf_counter()
    cards = find_cards(detectors, weights, precision)
    if any(card.name == ENSEMBLE for card in cards):
        raise UsageError(
            f"a detector is named {ENSEMBLE!r}, which is what all of them together are"
        )
    real, generated = set_photographs(real), tuple(set_folders(generated))
    every = [real, *generated]
    names = display_names([Path(folder) for folder in every])
    files, problems = find_files(names, every)
    check_apart(
        [one for one in files if one[0] == names[0]], [one for one in files if one[0] != names[0]]
    )
    files, overlaps = apart(names, every, files)
    problems += overlaps
    if out is not None:
        make_run_folder(output_folder(out), "realbench detectors bench", every)
    networks = Networks(cards, device=device, batch_size=batch_size)
    parts = _sampled(files, names, sample, seed) if perturb else []
    degradations = (*DEGRADATIONS, *chains(seed)) if perturb else ()
    total = len(files) + len(parts) * len(degradations)
    run = _Run(cards, networks, workers, max_pixels, total, progress)
    with open_cache([cache_path()] if cache else []) as store:
        scores, pixels = run.score(files, names[0], Protocol(matched=matched), store)
        problems += mark_copies(scores, pixels, names[0])
        _check_classes(scores)
        degraded: list[tuple[Degradation, pd.DataFrame]] = []
        for degradation in degradations:
            protocol = Protocol(matched=matched, then=(degradation.name, degradation))
            table, _ = run.score(parts, names[0], protocol, store)
            copied = _keys(table).isin(_keys(scores[scores["status"] == "copy"]))
            degraded.append((degradation, table[~copied]))
    ok = scores[scores["status"] == "ok"]
    by_class = (
        shortcuts.read_headers(file.path for name, file in files if (name == names[0]) is real_ones)
        for real_ones in (True, False)
    )
    found = shortcuts.find_shortcuts(*by_class)
    told = shortcuts.warning(found) if not matched else None
    n_real = int(ok["real"].sum())
    if n_real < _FEW_FOR_1_FPR:
        problems.append(
            f"TPR at 1 % FPR is coarse with {n_real} photographs: one of them is more than 1 %, so "
            "none may be accused"
        )
    judges = [card.name for card in cards] + ([ENSEMBLE] if len(cards) > 1 else [])
    options = {"resamples": resamples, "seed": seed}
    # Those of the images that were degraded.
    undegraded = ok[_keys(ok).isin(_keys(degraded[0][1]))] if degraded else ok.iloc[:0]
    results = {
        "schema_version": SCHEMA_VERSION,
        "matched": matched,
        "real": _describe(real, names[0], scores),
        "generated": [
            _describe(folder, name, scores)
            for folder, name in zip(generated, names[1:], strict=True)
        ],
        "detectors": run.describe(files, Protocol(matched=matched)),
        "device": networks.choose_device(),
        "results": measure(ok, judges, names[1:], **options),
        "robustness": robustness(undegraded, degraded, judges, names[1:], **options),
        "correlations": correlations(ok, [card.name for card in cards], **options),
        "shortcuts": found,
        "warnings": [told] if told else [],
        "notes": problems,
        "failures": scores.loc[
            scores["status"] == "unreadable", ["folder", "image", "reason"]
        ].to_dict("records"),
        "arguments": {
            "real": printable(real),
            "generated": [printable(folder) for folder in generated],
            "matched": matched,
            "perturb": perturb,
            "sample": sample if perturb else None,
            **options,
        },
        "versions": package_versions(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 1),
    }  # fmt: skip
    result = BenchRun(results, scores)
    if out is not None:
        result.write(out)
    return result


@dataclass
class _Run:
    """The detectors of a benchmark, loaded once, and how far it is."""

    cards: Sequence[Card]
    networks: Networks
    workers: int | None
    max_pixels: int
    total: int
    progress: Callable[[Progress], None] | None
    before: Progress = field(default_factory=lambda: Progress(0, 0, 0, 0))

    def score(
        self,
        files: Sequence[tuple[str, ImageFile]],
        real: str,
        protocol: Protocol,
        store: ScoreCache,
    ) -> tuple[pd.DataFrame, list[str]]:
        """Score files after ``protocol``; ``real`` names the photographs' folder.

        Returns:
            a row per file with P(real), and the hash of each one's pixels.
        """
        before = self.before

        def tell(now: Progress) -> None:
            self.before = Progress(
                before.done + now.done,
                self.total,
                before.cached + now.cached,
                before.failed + now.failed,
            )
            if self.progress is not None:
                self.progress(self.before)

        scores = score_files(
            [file.path for _, file in files],
            self.networks,
            cache=store,
            protocol=protocol,
            workers=self.workers,
            max_pixels=self.max_pixels,
            progress=tell,
        )
        table = scores.table(files)
        table.insert(4, "real", table["folder"] == real)
        logits = {card.name: scores.of(card.name) for card in self.cards}
        for name, values in logits.items():
            table[name] = probability(values)
        if len(logits) > 1:
            table[ENSEMBLE] = combine_cards(self.cards, logits)
        return table, scores.pixels

    def describe(
        self, files: Sequence[tuple[str, ImageFile]], protocol: Protocol
    ) -> list[dict[str, Any]]:
        """Return what the detectors are, and how fast they are on the first images."""
        images = []
        for _, file in files:
            try:
                images.append(protocol(read_image(file.path, max_pixels=self.max_pixels)))
            except UnreadableImage:
                continue
            if len(images) == _SPEED_IMAGES:
                break
        return [
            {
                "name": name,
                "level": one.level,
                "fingerprint": one.fingerprint,
                "images_per_second": round(
                    images_per_second(one, images, self.networks.choose_device()), 2
                ),
            }
            for name, one in self.networks.detectors.items()
        ]


def _sampled(
    files: Sequence[tuple[str, ImageFile]], names: Sequence[str], sample: int, seed: int
) -> list[tuple[str, ImageFile]]:
    """Draw up to ``sample`` files of each folder, in their order."""
    rng = np.random.default_rng(seed)
    kept: list[tuple[str, ImageFile]] = []
    for name in names:
        mine = [one for one in files if one[0] == name]
        chosen = rng.choice(len(mine), min(sample, len(mine)), replace=False)
        kept += [mine[n] for n in sorted(chosen)]
    return kept


def _keys(table: pd.DataFrame) -> pd.Index:
    return table.set_index(["folder", "image"]).index


def _check_classes(scores: pd.DataFrame) -> None:
    for folder, rows in scores.groupby("folder", sort=False):
        if not (rows["status"] == "ok").any():
            first = rows.iloc[0]
            raise RealBenchError(
                f"none of the {len(rows)} images of {folder} can be used, "
                f"first {first['image']}: {first['reason']}"
            )


def _describe(folder: str | Path, name: str, scores: pd.DataFrame) -> dict[str, Any]:
    mine = scores[scores["folder"] == name]
    ok = mine[mine["status"] == "ok"]
    return {
        "folder": name,
        "path": printable(folder),
        "n": len(ok),
        "n_failed": int((mine["status"] == "unreadable").sum()),
        "n_copies": int((mine["status"] == "copy").sum()),
        "n_prompts": int(ok["prompt_id"].nunique()),
    }
