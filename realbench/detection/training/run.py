"""The training command: folds and the final fit in parallel, then calibration and the record.

Every piece of work is a file in the work folder, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from realbench.detection.cards import Card
from realbench.detection.training.data import TrainingImage
from realbench.detection.training.recipe import Recipe
from realbench.detection.training.workers import worker_pool
from realbench.files import write_whole

Report = Callable[[str], None]
Watch = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One fit: ``fold`` None is the final one, on all data; ``statistics`` are files.

    ``squares`` is the folder of the pictures that blocks are trained on, where the recipe has them
    trained, and ``start`` the trained detector that is adapted instead. One that
    ``calibrates_only`` is scored on what its calibration needs, not for a record.
    """

    recipe: Recipe
    images: tuple[TrainingImage, ...]
    fold: int | None
    folder: Path
    statistics: tuple[Path, ...]
    squares: Path | None = None
    start: Card | None = None
    calibrates_only: bool = False

    @property
    def label(self) -> str:
        return "final" if self.fold is None else f"fold-{self.fold}"

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.label}.safetensors"

    @property
    def scores(self) -> Path:
        return self.folder / f"{self.label}.csv"

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.label}.checkpoint"

    @property
    def done(self) -> bool:
        return self.weights.exists() and (self.fold is None or self.scores.exists())


def job_folder(
    work: Path,
    name: str,
    recipe: Recipe,
    images: Sequence[TrainingImage],
    digest: str,
    start: Card | None = None,
) -> Path:
    """Return the work folder of a detector: another recipe, start or data, another folder.

    Data differ by contents (``digest``) and by what is said of them: sources, folds, round trips.
    """
    said = sorted(
        (i.source, i.subset, i.source_fold, i.prompt_fold, i.real, i.round_trip) for i in images
    )
    decisive = [recipe.model_dump(mode="json"), digest, said]
    if start is not None:
        decisive.append(start.uncalibrated)
    text = json.dumps(decisive)
    return work / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def train(jobs: Sequence[Job], workers: int, report: Report, watch: Watch | None = None) -> None:
    """Do the jobs that are not done yet, ``workers`` at a time, each on one thread.

    Args:
        watch: receives, every second or so, how far the trainings of blocks are: steps done,
            steps in all, and the mean of their losses.
    """
    waiting = [job for job in jobs if not job.done]
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
    if not waiting:
        return
    with worker_pool(workers) as pool:
        futures = {pool.submit(_do, job): job for job in waiting}
        left = set(futures)
        while left:
            done, left = wait(left, timeout=1.0, return_when=FIRST_COMPLETED)
            if watch is not None:
                _watch(jobs, watch)
            for future in done:
                job = futures[future]
                report(f"{job.recipe.kind} {job.label}: {future.result()}")


def _watch(jobs: Sequence[Job], watch: Watch) -> None:
    from realbench.detection.training.tuning import Progress, progress_file

    tuned = [job for job in jobs if job.recipe.tuned is not None]
    found = [p for job in tuned if (p := Progress.read(progress_file(job.checkpoint)))]
    if found:
        total = sum(job.recipe.tuned.steps for job in tuned if job.recipe.tuned)
        watch(sum(p.step for p in found), total, sum(p.loss for p in found) / len(found))


def _do(job: Job) -> str:
    from safetensors.torch import load_file, save_file

    from realbench.detection.training.evaluate import held_out_scores
    from realbench.detection.training.fit import adapt, fit
    from realbench.detection.training.network import pretrained_network
    from realbench.detection.training.statistics import load_statistics
    from realbench.detection.training.tuning import Squares, tune
    from realbench.detection.weights import pack, unpack

    start = time.monotonic()
    network = pretrained_network(job.recipe, job.start)
    if not job.weights.exists():  # else fitted before, and stopped before its scores were written
        if job.squares is not None:
            pixels = Squares(job.squares)
            tune(network, job.images, job.recipe, job.fold, pixels, job.checkpoint)
        statistics = load_statistics(job.statistics)
        learn = fit if job.start is None else adapt
        learn(network, statistics, job.images, job.recipe, job.fold)
        packed = pack(network.state_dict(), job.recipe.bits)
        write_whole(job.weights, lambda path: save_file(packed, path))
    network.load_state_dict(unpack(load_file(job.weights)))  # as it is shipped, rounded
    if job.fold is not None:
        table = held_out_scores(
            network, job.images, job.recipe, job.fold, calibrates_only=job.calibrates_only
        )
        write_whole(job.scores, lambda path: table.to_csv(path, index=False))
    learned = sum(image.trains(job.fold) for image in job.images)
    return f"{learned} images, {time.monotonic() - start:.0f} s"


def held_out(jobs: Sequence[Job]) -> pd.DataFrame:
    """Return the held-out scores of all folds in one table."""
    return pd.concat([pd.read_csv(job.scores) for job in jobs if job.fold is not None])


def save_json(path: Path, value: object) -> None:
    """Write indented JSON, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
