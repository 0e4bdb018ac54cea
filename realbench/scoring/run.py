"""A Detector-Scoring run: folders in, table, summary, manifest and report out."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import realbench
from realbench.detection.ensemble import combine, disagreement, probability
from realbench.detection.registry import DEFAULT_DETECTORS, find_card
from realbench.errors import RealBenchError, UsageError
from realbench.images import DEFAULT_MAX_PIXELS, ImageFile, find_images, printable
from realbench.prompts import load_prompts
from realbench.scoring.cache import ScoreCache, cache_path
from realbench.scoring.pipeline import Outcome, Pipeline, choose_layout
from realbench.scoring.summary import summarize

if TYPE_CHECKING:
    from realbench.detection.detector import Detector

LEADING_COLUMNS = ("folder", "image", "prompt_id", "sha256", "status", "reason", "realism")
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "pandas", "scipy", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: files finished of all, and how many of them came from the cache."""

    done: int
    total: int
    cached: int
    failed: int


@dataclass
class ScoreRun:
    """The result of scoring folders; behaves as its table where a table is wanted.

    Attributes:
        table: a row per image, with the columns of ``scores.csv``.
        summary: per-folder figures and comparisons, as in ``summary.json``.
        manifest: what was run, as in ``run.json``.
        paths: where each (folder, image) of the table lies.
    """

    table: pd.DataFrame
    summary: dict[str, Any]
    manifest: dict[str, Any]
    paths: dict[tuple[str, str], Path] = field(repr=False)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, column: str) -> pd.Series:
        return self.table[column]

    def _repr_html_(self) -> str:
        return self.folders.to_html()

    @property
    def folders(self) -> pd.DataFrame:
        """One row per folder, best first: rank, n, mean realism with its interval, escape rate."""
        rows = []
        for entry in sorted(self.summary["folders"], key=lambda e: e["rank"] or sys.maxsize):
            realism, escape = entry["realism"], entry["escape_rate"]
            row = {key: entry[key] for key in ("folder", "rank", "rank_low", "rank_high")}
            row |= {"n": entry["n"], "n_failed": entry["n_failed"], "realism": realism["mean"]}
            row |= {"low": realism["low"], "high": realism["high"], "escape_rate": escape["mean"]}
            rows.append(row | {name: one["mean"] for name, one in entry["detectors"].items()})
        return pd.DataFrame(rows).set_index("folder")

    @property
    def failures(self) -> pd.DataFrame:
        """The rows of images that could not be read, with the reason."""
        return self.table[self.table["status"] != "ok"]

    @property
    def n_scored(self) -> int:
        """How many images have scores."""
        return int((self.table["status"] == "ok").sum())

    def write(self, out: str | Path) -> Path:
        """Write ``scores.csv``, ``summary.json``, ``run.json`` and ``report.html`` to ``out``.

        Each file appears whole or not at all; the folder is made where it is missing.

        Raises:
            RealBenchError: a file cannot be written; the message names it.
        """
        from realbench.report import write_score_report

        folder = Path(out)
        _checked(folder, lambda: folder.mkdir(parents=True, exist_ok=True))
        write_atomically(folder / "scores.csv", table_csv(self.table))
        write_atomically(folder / "summary.json", _json(self.summary))
        write_atomically(folder / "run.json", _json(self.manifest))
        _checked(folder / "report.html", lambda: write_score_report(self, folder))
        return folder


def score(
    *folders: str | Path,
    prompts: str | Path | None = None,
    reference: str | Path | None = None,
    detectors: Sequence[str | Path] = DEFAULT_DETECTORS,
    out: str | Path | None = None,
    device: str = "auto",
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
        prompts: JSONL suite that names the prompts (a file's stem is its prompt id).
        reference: folder of photographs to compare with.
        detectors: names of bundled detectors, or folders with a ``card.toml``.
        out: folder that receives CSV, summary, manifest and report.
        device: where the networks run; ``"auto"`` prefers a GPU.
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
    if not folders:
        raise UsageError("no folder is given: name at least one folder of images")
    suite = load_prompts(prompts) if prompts is not None else None
    cards = [find_card(one) for one in ([detectors] if isinstance(detectors, str) else detectors)]
    if not cards or len({card.name for card in cards}) < len(cards):
        raise UsageError("name each detector once, and at least one")
    every = [*folders, *([reference] if reference is not None else [])]
    names = display_names([Path(folder) for folder in every])
    problems: list[str] = []
    files = [
        (name, file)
        for name, folder in zip(names, every, strict=True)
        for file in find_images(
            folder, on_problem=lambda path, why: problems.append(f"{printable(path)}: {why}")
        )
    ]
    if out is not None:
        _checked(Path(out), lambda: Path(out).mkdir(parents=True, exist_ok=True))

    fingerprints = {card.name: card.fingerprint for card in cards}
    levels = {card.name: card.level for card in cards}
    used_device: list[str] = []

    def load() -> Mapping[str, Detector]:
        from realbench.scoring.scorer import choose_device, load_detectors

        used_device.append(choose_device(device))
        return load_detectors([card.path for card in cards], used_device[0])

    layout = choose_layout(device, workers=workers, batch_size=batch_size)
    outcomes: dict[int, Outcome] = {}

    def on_outcome(index: int, outcome: Outcome) -> None:
        outcomes[index] = outcome
        if progress is not None:
            counts["cached"] += outcome.cached
            counts["failed"] += bool(outcome.reason)
            progress(Progress(len(outcomes), len(files), counts["cached"], counts["failed"]))

    counts = {"cached": 0, "failed": 0}
    clock = time.perf_counter()
    with ScoreCache(cache_path() if cache else None) as store:
        pipeline = Pipeline(fingerprints, load, store, layout=layout, max_pixels=max_pixels)
        pipeline.run([file.path for _, file in files], on_outcome)
    seconds = time.perf_counter() - clock

    table = _table(files, outcomes, levels)
    shown = [(name, printable(folder)) for name, folder in zip(names, every, strict=True)]
    summary = summarize(
        table,
        folders=shown[: len(folders)],
        reference=shown[-1] if reference is not None else None,
        detectors=list(fingerprints),
        prompts=suite,
        seed=seed,
    )
    summary["notes"] += problems
    n_scored = int((table["status"] == "ok").sum())
    n_cached = sum(outcome.cached for outcome in outcomes.values())
    manifest = {
        "schema_version": 1,
        "versions": _versions(),
        "platform": platform.platform(),
        "device": used_device[0] if used_device else "none (all scores were cached)",
        "detectors": [
            {
                "name": card.name,
                "level": card.level,
                "fingerprint": fingerprints[card.name],
                "weights_sha256": card.weights.sha256,
            }
            for card in cards
        ],
        "arguments": {
            "folders": [printable(folder) for folder in folders],
            "prompts": None if prompts is None else printable(prompts),
            "reference": None if reference is None else printable(reference),
            "max_pixels": max_pixels,
            "workers": layout.decoders,
            "batch_size": layout.batch_size,
            "cache": cache,
        },
        "argv": [printable(part) for part in sys.argv],
        "seed": seed,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_scored": n_scored,
        "n_cached": n_cached,
        "n_failed": len(table) - n_scored,
        "timings": {
            "total_seconds": round(seconds, 3),
            "images_per_second": round(len(table) / max(seconds, 1e-9), 2),
            "read_and_decode_thread_seconds": round(pipeline.timings.read_and_decode, 3),
            "prepare_thread_seconds": round(pipeline.timings.prepare, 3),
            "forward_thread_seconds": round(pipeline.timings.forward, 3),
        },
    }
    paths = {(name, file.image): file.path for name, file in files}
    run = ScoreRun(table, summary, manifest, paths)
    if out is not None:
        run.write(out)
    return run


def display_names(folders: Sequence[Path]) -> list[str]:
    """Name each folder by the shortest tail of its path that no other one has.

    Raises:
        UsageError: a folder is given twice.
    """
    full = [Path(os.path.realpath(folder)) for folder in folders]
    for n, path in enumerate(full):
        if path in full[:n]:
            raise UsageError(f"the folder {printable(folders[n])} is given twice: give it once")
    names = []
    for path in full:
        length = 1
        others = [other.parts for other in full if other != path]
        while any(other[-length:] == path.parts[-length:] for other in others):
            length += 1
        names.append(printable("/".join(path.parts[-length:])))
    return names


def _table(
    files: Sequence[tuple[str, ImageFile]],
    outcomes: Mapping[int, Outcome],
    levels: Mapping[str, str],
) -> pd.DataFrame:
    results = [outcomes[n] for n in range(len(files))]
    table = pd.DataFrame(
        {
            "folder": [name for name, _ in files],
            "image": [file.image for _, file in files],
            "prompt_id": [file.prompt_id for _, file in files],
            "sha256": [result.sha256 for result in results],
            "status": ["unreadable" if result.reason else "ok" for result in results],
            "reason": [result.reason for result in results],
        }
    )
    logits = {
        name: np.array([result.logits.get(name, np.nan) for result in results], np.float64)
        for name in levels
    }
    probabilities = {name: probability(values) for name, values in logits.items()}
    table["realism"] = combine(logits, levels)
    for name, values in probabilities.items():
        table[name] = values
    table["disagreement"] = disagreement(np.stack(list(probabilities.values()), axis=1))
    return table


def table_csv(table: pd.DataFrame) -> bytes:
    """Return the table as the bytes of ``scores.csv``: UTF-8, six decimals, empty for missing."""
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.6f", quoting=csv.QUOTE_MINIMAL)
    return text.getvalue().encode()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _versions() -> dict[str, str]:
    versions = {"realgen": realbench.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent, whatever happens.

    Raises:
        RealBenchError: it cannot be written (a full disk, say); an older version is untouched.
    """

    def write() -> None:
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    _checked(path, write)


def _checked(path: Path, action: Callable[[], object]) -> None:
    try:
        action()
    except FileExistsError as error:
        raise UsageError(f"{printable(path)} is a file: give a folder for --out") from error
    except NotADirectoryError as error:
        raise UsageError(f"{printable(path)} lies below a file: give another --out") from error
    except OSError as error:
        advice = {
            errno.ENOSPC: "free some space and run the same command again",
            errno.EDQUOT: "free some of your quota and run the same command again",
        }.get(error.errno or 0, "choose a place that can be written and run it again")
        raise RealBenchError(
            f"cannot write {printable(path)} ({error.strerror or error}): {advice}; "
            "scores are kept in the cache"
        ) from error
