"""Quality measures of a run's images, as columns of its table: no other column is touched.

What the cache lacks is decoded, prepared and scored in batches.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from realbench.errors import RealBenchError, UsageError
from realbench.images import UnreadableImage, decode, read_bytes_and_hash
from realbench.prompts import Suite
from realbench.quality.cards import MeasureCard
from realbench.scoring.cache import ScoreCache
from realbench.scoring.layout import core_count, use_threads
from realbench.scoring.pipeline import Progress
from realbench.text import printable

if TYPE_CHECKING:
    import torch

    from realbench.quality.measure import Measure

T = TypeVar("T")

_BATCH_ON_CPU, _BATCH_ELSEWHERE = 8, 64


def check_measures(
    measures: Sequence[MeasureCard], detectors: Sequence[str], suite: Suite | None
) -> None:
    """Refuse what could not be measured, before any image is scored."""
    for card in measures:
        if card.name in detectors:
            raise UsageError(
                f"{card.name!r} names a detector and a quality measure of this run: rename a card"
            )
        if card.needs_prompt and suite is None:
            raise UsageError(
                f"--quality {card.name} compares images with their prompts: give --prompts"
            )
        _ = card.fingerprint  # its weights must be here, or be fetched now


def add_quality(
    measures: Sequence[MeasureCard],
    table: pd.DataFrame,
    paths: Sequence[Path],
    suite: Suite | None,
    store: ScoreCache,
    *,
    progress: Callable[[Progress], None] | None,
    **options: Any,
) -> list[str]:
    """Add a column for each measure at the table's end; return what the user should know."""
    if not measures:
        return []
    from realbench.scoring.quality import Item, measure_images

    prompts = {} if suite is None else suite.prompts
    rows = table.index[table["status"] == "ok"]
    own = [prompts.get(str(table.at[row, "prompt_id"])) for row in rows]
    items = [
        Item(paths[row], str(table.at[row, "sha256"]), None if one is None else one.prompt)
        for row, one in zip(rows, own, strict=True)
    ]

    def told(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(done, total, 0, 0, stage))

    measured = measure_images(measures, items, store, progress=told, **options)
    for name, scores in measured.scores.items():
        table[name] = np.nan
        table.loc[rows, name] = scores
    return measured.notes


@dataclass(frozen=True, slots=True)
class Item:
    """An image to measure.

    Attributes:
        path: where it lies.
        sha256: of its contents, as the detectors saw them.
        prompt: its text; None where it has none.
    """

    path: Path
    sha256: str
    prompt: str | None


@dataclass
class Measured:
    """What measuring gave.

    Attributes:
        scores: by measure, float64 (n,) in the order of the items; NaN where there is no score.
        notes: what the user should know, a line each.
    """

    scores: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure_images(
    cards: Sequence[MeasureCard],
    items: Sequence[Item],
    store: ScoreCache,
    *,
    device: Callable[[], str],
    batch_size: int | None = None,
    workers: int = 1,
    max_pixels: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> Measured:
    """Score images with quality measures, one measure after the other.

    Scores are cached under the image, the measure and, where it reads one, the prompt, as each
    batch is done; a run that is killed loses none of them.

    Args:
        cards: of the measures.
        items: the images.
        store: what is known already, and what learns the new scores.
        device: says where the networks run; asked when one is needed.
        batch_size: images a batch, by default one that suits the device.
        workers: decoding threads.
        max_pixels: larger images are not decoded.
        progress: gets a measure's name, how many images it has done, and of how many.

    Raises:
        RealBenchError: a measure cannot be loaded, or fails.
    """
    result = Measured()
    for card in cards:
        run = _Run(card, items, store, max_pixels)
        result.scores[card.name] = run.scores
        todo = run.missing()
        if todo:
            from realbench.quality.measure import load_measure

            place = device()
            measure = load_measure(card, place)
            size = batch_size or (_BATCH_ON_CPU if place.startswith("cpu") else _BATCH_ELSEWHERE)
            run.score(measure, todo, size, workers, progress)
        result.notes += run.notes()
    return result


class _Run:
    """One measure on all images."""

    def __init__(
        self, card: MeasureCard, items: Sequence[Item], store: ScoreCache, max_pixels: int
    ) -> None:
        self.card = card
        self.items = items
        self.store = store
        self.max_pixels = max_pixels
        self.scores = np.full(len(items), np.nan)
        self.cut: set[str] = set()
        self.failed: list[str] = []
        self.without = 0

    def missing(self) -> dict[tuple[str, str], list[int]]:
        """Fill in what the cache has; return the places of the rest by image and cache key."""
        todo: dict[tuple[str, str], list[int]] = {}
        for place, item in enumerate(self.items):
            if self.card.needs_prompt and item.prompt is None:
                self.without += 1
                continue
            key = self.card.key(item.prompt)
            known = self.store.logits(item.sha256, [key, _cut_key(key)])
            if key in known:
                self.scores[place] = known[key]
                self.cut |= {self._prompt(place)} if _cut_key(key) in known else set()
            else:
                todo.setdefault((item.sha256, key), []).append(place)
        return todo

    def score(
        self,
        measure: Measure,
        todo: dict[tuple[str, str], list[int]],
        size: int,
        workers: int,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        use_threads(core_count())
        done = 0
        for batch in _batches(self._prepared(measure, todo, workers, ahead=2 * size), size):
            places = [todo[key][0] for key, _ in batch]
            prompts = [self._prompt(place) for place in places]
            scores = self._checked(measure, [pixels for _, pixels in batch], prompts)
            for (key, _), prompt, score in zip(batch, prompts, scores, strict=True):
                if measure.cuts(prompt):
                    self.cut.add(prompt)
                    self.store.put_logits(_cut_key(key[1]), {key[0]: 1.0})
                self.store.put_logits(key[1], {key[0]: score})
                self.scores[todo[key]] = score
                done += len(todo[key])
            if progress is not None:
                progress(self.card.name, done, sum(map(len, todo.values())))

    def _prompt(self, place: int) -> str:
        return (self.items[place].prompt or "") if self.card.needs_prompt else ""

    def _checked(
        self, measure: Measure, pixels: Sequence[torch.Tensor], prompts: Sequence[str]
    ) -> list[float]:
        import torch

        try:
            scores: list[float] = measure.scores(torch.stack(list(pixels)), prompts).tolist()
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
                raise RealBenchError(
                    f"not enough memory to run {self.card.name}: try a smaller --batch-size"
                ) from error
            raise
        if not all(map(math.isfinite, scores)):
            raise RealBenchError(
                f"measure {self.card.name} gives a score that is not a number: its weights or its "
                "card are wrong"
            )
        return scores

    def _prepared(
        self,
        measure: Measure,
        todo: dict[tuple[str, str], list[int]],
        workers: int,
        ahead: int,
    ) -> Iterator[tuple[tuple[str, str], torch.Tensor]]:
        """Yield images as the network sees them, decoded on threads, at most ``ahead`` early."""

        def prepare(place: int) -> torch.Tensor:
            use_threads(1)
            data, sha256 = read_bytes_and_hash(self.items[place].path)
            if sha256 != self.items[place].sha256:
                raise UnreadableImage("the file changed during the run")
            return measure.prepare(decode(data, max_pixels=self.max_pixels))

        waiting: deque[tuple[tuple[str, str], Future[torch.Tensor]]] = deque()
        keys = iter(todo)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="realbench-quality")
        try:
            while True:
                while len(waiting) < ahead and (key := next(keys, None)) is not None:
                    waiting.append((key, pool.submit(prepare, todo[key][0])))
                if not waiting:
                    return
                key, future = waiting.popleft()
                try:
                    yield key, future.result()
                except UnreadableImage as error:  # since the detectors saw it
                    path = printable(self.items[todo[key][0]].path)
                    self.failed.append(f"{path}: {error.reason}")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def notes(self) -> list[str]:
        """Say in a line each what has no score, and what was not read whole."""
        name = self.card.name
        notes = [f"{name}: no score for {one}" for one in self.failed[:5]]
        if len(self.failed) > 5:
            notes.append(f"{name}: no score for {len(self.failed) - 5} more images")
        if self.without:
            images = "image has" if self.without == 1 else "images have"
            notes.append(f"{name}: no score for {self.without}, which {images} no prompt")
        if self.cut:
            prompts = "prompt is" if len(self.cut) == 1 else "prompts are"
            notes.append(
                f"{name}: {len(self.cut)} {prompts} longer than it reads; it saw their beginning"
            )
        return notes


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch


def _cut_key(key: str) -> str:
    """Return under what the cache knows that a prompt was too long to be read whole."""
    return hashlib.sha256(f"{key} cut".encode()).hexdigest()
