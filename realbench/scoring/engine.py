"""The one way to score files: with detectors, and measures and networks of features beside them.

A file is read, hashed and decoded once, whatever looks at it; what the cache knows is not even
decoded.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from realbench.detection import perturbations
from realbench.detection.cards import Card, fetch_weights
from realbench.detection.detector import keep_freed_memory
from realbench.detection.registry import load_detector
from realbench.distances.compare import FeaturesUsed
from realbench.distances.features import FeatureCard, load_features
from realbench.errors import UsageError
from realbench.images import DEFAULT_MAX_PIXELS, ImageFile
from realbench.prompts import Suite
from realbench.quality.cards import MeasureCard
from realbench.scoring.cache import ScoreCache
from realbench.scoring.layout import choose_layout, decoding_threads, find_batch_sizes
from realbench.scoring.pipeline import Engine, Outcome, Pipeline, Progress, cut_key

if TYPE_CHECKING:
    from realbench.detection.detector import Detector
    from realbench.distances.features import Network
    from realbench.quality.measure import Measure

T = TypeVar("T")
Change = Callable[[np.ndarray], np.ndarray]

# Raise it when a change does something else under the same name: kept scores then miss.
_VERSION = 1


class Protocol:
    """The changes that every image goes through, in turn, before any detector sees it.

    Args:
        matched: whether to begin with the matched protocol (:func:`perturbations.matched`).
        then: what comes then, and its name.
    """

    def __init__(self, *, matched: bool = False, then: tuple[str, Change] | None = None) -> None:
        self.matched = matched
        self.changes: list[Change] = [perturbations.matched] if matched else []
        self.name = "matched" if matched else ""
        if then is not None:
            self.changes.append(then[1])
            self.name += f"/{then[0]}"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Change uint8 RGB (H, W, 3) of any size."""
        for change in self.changes:
            image = change(image)
        return image

    def fingerprint(self, fingerprint: str) -> str:
        """Return what the scores of a detector with ``fingerprint`` are kept under."""
        if not self.changes:
            return fingerprint
        return hashlib.sha256(f"{fingerprint} {self.name} {_VERSION}".encode()).hexdigest()

    def used(self, card: FeatureCard) -> FeaturesUsed:
        """Return the record of a network whose features are of the changed images."""
        fingerprint = self.fingerprint(card.fingerprint)
        return {"name": card.name, "title": card.title, "fingerprint": fingerprint}


class _OnDemand(Mapping[str, T]):
    """Networks by name, each loaded when it is asked for, by one thread."""

    def __init__(self, names: Iterable[str], load: Callable[[str], T]) -> None:
        self._names = list(names)
        self._load = load
        self._loaded: dict[str, T] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> T:
        if name not in self._names:
            raise KeyError(name)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def loaded(self, name: str) -> T | None:
        """Return a network if it is loaded."""
        return self._loaded.get(name)


class Networks:
    """Detectors, measures and networks of features by their cards, loaded once an image needs them.

    Args:
        device: where they run; ``"auto"`` prefers a GPU.
        batch_size: images a forward pass, by default one that suits the device.

    Attributes:
        device: where they run; None as long as nothing was loaded.
        detectors: by name, loaded as they are asked for.

    Raises:
        UsageError: the device is unknown, or the machine does not have it.
        RealBenchError: weights are neither here nor to be had.
    """

    def __init__(
        self,
        cards: Sequence[Card],
        measures: Sequence[MeasureCard] = (),
        encoders: Sequence[FeatureCard] = (),
        *,
        device: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        fetch_weights([*cards, *measures])
        keep_freed_memory()  # while there are no threads yet
        self.cards = {card.name: card for card in cards}
        self.measures = {card.name: card for card in measures}
        self.encoders = {card.name: card for card in encoders}
        self.device: str | None = None
        self.detectors: Mapping[str, Detector] = _OnDemand(
            self.cards, lambda name: load_detector(self.cards[name], self.choose_device())
        )
        self._measures: _OnDemand[Measure] = _OnDemand(self.measures, self._load_measure)
        self._encoders: _OnDemand[Network] = _OnDemand(self.encoders, self._load_encoder)
        self._wanted_device = device
        self._batch_size = batch_size
        self._sizes: dict[str, int] | None = None if batch_size is None else {}
        if device not in ("auto", "cpu"):
            self.choose_device()  # a wrong one is refused even if every score is in the cache

    def choose_device(self) -> str:
        """Return where they run, from now on."""
        from realbench.scoring.scorer import choose_device

        self.device = self.device or choose_device(self._wanted_device)
        return self.device

    def engine(self, protocol: Protocol, images: int) -> Engine:
        """Return what scores so many images."""
        device = self.choose_device()
        if self._sizes is None:
            self._sizes = find_batch_sizes(self.detectors, device, most=images)
        layout = choose_layout(device, self._batch_size)
        return Engine(self.detectors, layout, self._sizes, self._measures, protocol, self._encoders)

    def cuts(self, name: str, prompt: str) -> bool | None:
        """Whether a measure reads the beginning of a prompt alone; None where it is not loaded."""
        measure = self._measures.loaded(name)
        return None if measure is None else measure.cuts(prompt)

    def _load_measure(self, name: str) -> Measure:
        from realbench.quality.measure import load_measure

        return load_measure(self.measures[name], self.choose_device())

    def _load_encoder(self, name: str) -> Network:
        return load_features(self.encoders[name], self.choose_device())


@dataclass(frozen=True)
class FileScores:
    """What came of files.

    Attributes:
        outcomes: one for each file, in their order.
        timings: seconds summed over threads, by what they were spent on.
    """

    outcomes: list[Outcome]
    timings: dict[str, float]

    @property
    def pixels(self) -> list[str]:
        """The hash of each file's pixels, which copies share; empty where it cannot be used."""
        return [one.pixels for one in self.outcomes]

    def of(self, name: str) -> np.ndarray:
        """Return a detector's logits or a measure's scores, float64 (n,); NaN for none."""
        return np.array([one.logits.get(name, np.nan) for one in self.outcomes], np.float64)

    def features(self, name: str) -> np.ndarray:
        """Return what a network made of each file, float32 (n, d); NaN for none."""
        found = [one.logits.get(name) for one in self.outcomes]
        none = np.full_like(next((one for one in found if one is not None), []), np.nan, np.float32)
        return np.array([none if one is None else one for one in found], np.float32)

    def table(self, files: Sequence[tuple[str, ImageFile]]) -> pd.DataFrame:
        """Return a row per file, without its scores; ``files`` are they, with their folder."""
        return pd.DataFrame(
            {
                "folder": [name for name, _ in files],
                "image": [file.image for _, file in files],
                "prompt_id": [file.prompt_id for _, file in files],
                "sha256": [one.sha256 for one in self.outcomes],
                "status": ["unreadable" if one.reason else "ok" for one in self.outcomes],
                "reason": [one.reason for one in self.outcomes],
            }
        )

    def counts(self) -> dict[str, int]:
        """Return how many files have scores, how many of them from the cache, and how many not."""
        failed = sum(bool(one.reason) for one in self.outcomes)
        return {
            "n_scored": len(self.outcomes) - failed,
            "n_cached": sum(one.cached for one in self.outcomes),
            "n_failed": failed,
        }


def score_files(
    paths: Sequence[Path],
    cards: Sequence[Card] | Networks,
    *,
    cache: ScoreCache | None = None,
    protocol: Protocol | None = None,
    prompts: Sequence[str | None] | None = None,
    workers: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Callable[[Progress], None] | None = None,
) -> FileScores:
    """Score image files with detectors, and with what else the networks have.

    Files of the same content are scored once. Scores are cached as they come, so that a run that
    is killed loses none of them.

    Args:
        cards: of the detectors, or networks, which stay loaded for the next call.
        cache: what is known already, and what learns the new scores.
        protocol: what is done to each image before a detector sees it.
        prompts: each file's, for measures that read it; None where it has none.
        workers: decoding threads, by default one per core.
        max_pixels: larger images are not decoded.
        progress: called on the calling thread as files finish.

    Raises:
        UsageError: the device cannot be used.
        RealBenchError: a network cannot be loaded, or fails.
    """
    networks = cards if isinstance(cards, Networks) else Networks(cards)
    seen = protocol or Protocol()
    outcomes: dict[int, Outcome] = {}
    cached = failed = 0

    def take(index: int, outcome: Outcome) -> None:
        nonlocal cached, failed
        outcomes[index] = outcome
        cached += outcome.cached
        failed += bool(outcome.reason)
        if progress is not None:
            progress(Progress(len(outcomes), len(paths), cached, failed))

    pipeline = Pipeline(
        {name: seen.fingerprint(card.fingerprint) for name, card in networks.cards.items()},
        lambda: networks.engine(seen, len(paths)),
        cache or ScoreCache(None),
        decoders=decoding_threads(workers),
        max_pixels=max_pixels,
        measures=networks.measures,
        networks={
            name: seen.fingerprint(one.fingerprint) for name, one in networks.encoders.items()
        },
    )
    pipeline.run(paths, take, prompts)
    return FileScores([outcomes[n] for n in range(len(paths))], pipeline.timings)


def check_measures(
    measures: Sequence[MeasureCard], others: Sequence[str], suite: Suite | None
) -> None:
    """Refuse what could not be measured, before any image is scored.

    Args:
        others: the names of the run's detectors and networks of features.
    """
    names = [*others, *(card.name for card in measures)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{name!r} names two of this run's detectors, quality measures and networks of "
                "features: rename a card"
            )
    for card in measures:
        if card.needs_prompt and suite is None:
            raise UsageError(
                f"--quality {card.name} compares images with their prompts: give --prompts"
            )
        _ = card.fingerprint  # its weights must be here, or be fetched now


def add_quality(
    table: pd.DataFrame,
    scores: FileScores,
    networks: Networks,
    prompts: Sequence[str | None],
    cache: ScoreCache,
    reference: str | None,
) -> list[str]:
    """Add a column for each measure at the table's end; return what the user should know.

    A copy has no score, unless the measure reads a prompt and the copy has one of its own.

    Args:
        table: a row per file, copies marked.
        cache: knows which prompts were too long.
    """
    content = table[["folder", "prompt_id"]].assign(pixels=scores.pixels)
    photographs = set(content.loc[content["folder"] == reference, "pixels"])
    foreign = (content["folder"] != reference) & content["pixels"].isin(photographs)
    again = content.duplicated()
    notes = []
    for card in networks.measures.values():
        copies = (foreign | again) if card.needs_prompt else table["status"] == "copy"
        table[card.name] = np.where(copies, np.nan, scores.of(card.name))
        if card.needs_prompt:
            notes += _prompt_notes(card, table, prompts, networks, cache)
    return notes


def _prompt_notes(
    card: MeasureCard,
    table: pd.DataFrame,
    prompts: Sequence[str | None],
    networks: Networks,
    cache: ScoreCache,
) -> list[str]:
    """Say in a line each what has no score, and what was not read whole."""
    rows = zip(table["status"], table["sha256"], prompts, strict=True)
    used = [(sha256, prompt) for status, sha256, prompt in rows if status != "unreadable"]
    without = sum(prompt is None for _, prompt in used)
    cut = set()
    for sha256, prompt in dict.fromkeys(used):
        if prompt is not None:
            told = networks.cuts(card.name, prompt)
            if told or (told is None and cache.logits(sha256, [cut_key(card, prompt)])):
                cut.add(prompt)
    notes = []
    if without:
        images = "image has" if without == 1 else "images have"
        notes.append(f"{card.name}: no score for {without}, which {images} no prompt")
    if cut:
        longer = "prompt is" if len(cut) == 1 else "prompts are"
        notes.append(
            f"{card.name}: {len(cut)} {longer} longer than it reads; it saw their beginning"
        )
    return notes
