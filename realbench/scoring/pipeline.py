"""Reads, decodes, prepares and scores images, all at the same time.

Decoding threads look each file up and turn it into the small input tensors of every detector,
quality measure and network of features that lacks what it made of it, so that a file is read,
hashed and decoded once, whatever their number; the thread that called collects them into batches,
which run on forward threads. The order of the files decides nothing, so batches fill across
folders. Scores and failures reach the caller as they come.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from realbench.detection.detector import is_memory_shortage, prepare_for
from realbench.errors import RealBenchError
from realbench.images import UnreadableImage, decode, pixel_count, pixel_digest, read_bytes_and_hash
from realbench.scoring.cache import ScoreCache, Stat, file_stat
from realbench.scoring.layout import Layout, use_threads
from realbench.text import printable

if TYPE_CHECKING:
    import torch

    from realbench.detection.detector import Detector
    from realbench.distances.features import Network
    from realbench.quality.cards import MeasureCard
    from realbench.quality.measure import Measure

# Decoded pixels in flight: a few ordinary images, or one of any size alone.
_PIXELS_IN_FLIGHT = 64_000_000
# How long a run that ends early waits for its decoding threads: a huge image takes seconds.
_PATIENCE_SECONDS = 3.0
# The same before anything was scored: a thread may be importing torch, and nothing is lost.
_SHORT_PATIENCE_SECONDS = 0.2

# What is known of an image: a detector's logit, a measure's score, or features, float32 (d,).
Value: TypeAlias = float | np.ndarray


@dataclass(slots=True)
class Outcome:
    """What came of one file: its hash and logits by detector, or the reason of its failure.

    Quality measures have their scores beside the logits, by name, and networks their features.
    ``pixels`` is the hash of what the file decodes to; empty where it cannot be decoded.
    """

    sha256: str = ""
    pixels: str = ""
    logits: dict[str, Value] = field(default_factory=dict)
    reason: str = ""
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: files finished of all, and how many of them came from the cache."""

    done: int
    total: int
    cached: int
    failed: int


@dataclass(frozen=True, slots=True)
class Engine:
    """Loaded detectors, quality measures and networks of features, by name, and their processor.

    ``batch_sizes`` has the images a batch of detectors for which they were found out; ``change``
    is done to an image before a detector sees it, or a network of features.
    """

    detectors: Mapping[str, Detector]
    layout: Layout
    batch_sizes: Mapping[str, int] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    change: Callable[[np.ndarray], np.ndarray] | None = None
    networks: Mapping[str, Network] = field(default_factory=dict)

    def images(self, name: str, prepared: torch.Tensor) -> int:
        """Return the images a batch; of each a detector sees several views, others one."""
        views = len(prepared) if name in self.detectors else 1
        return self.batch_sizes.get(name) or self.layout.images(views)

    def prepare(self, names: Sequence[str], image: np.ndarray) -> dict[str, torch.Tensor]:
        """Return what each of ``names`` sees of an image, uint8 RGB (H, W, 3)."""
        seen = {n: self.measures[n].prepare(image) for n in names if n in self.measures}
        if self.change and len(seen) < len(names):
            image = self.change(image)
        own = [name for name in names if name in self.detectors]
        seen |= prepare_for(self.detectors, own, image)
        return seen | {n: self.networks[n].prepare(image) for n in names if n in self.networks}

    def scores(
        self, name: str, tensors: Sequence[torch.Tensor], prompts: Sequence[str]
    ) -> Sequence[Value]:
        """Return what a detector, a measure or a network of features makes of a batch."""
        if name in self.detectors:
            return score_batch(self.detectors[name], tensors)
        if name in self.networks:
            return list(self.networks[name].features(tensors))
        import torch

        found: list[float] = (
            self.measures[name].scores(torch.stack(list(tensors)), prompts).tolist()
        )
        return found


class _PixelBudget:
    """Lets images in while their pixels fit; a single larger one waits until it is alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    def take(self, pixels: int) -> int:
        pixels = min(pixels, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._used + pixels <= self._limit)
            self._used += pixels
        return pixels

    def give(self, pixels: int) -> None:
        with self._changed:
            self._used -= pixels
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Read:
    """A decoding thread's result for one file."""

    index: int
    job: Job
    stat: Stat | None = None  # of the file before it was read
    pixels: str = ""
    known: dict[str, Value] | None = None  # None where another file brought the content already
    prepared: Mapping[str, torch.Tensor] = field(default_factory=dict)
    reason: str = ""
    alone: bool = False  # this file's outcome is no other's


@dataclass(frozen=True, slots=True)
class _Scored:
    name: str
    jobs: Sequence[Job]
    logits: Sequence[Value]


class _Stopped(Exception):  # noqa: N818 - nothing went wrong in the thread that meets it
    """The run ends; whatever a thread was doing is not wanted any more."""


Event = _Read | _Scored | BaseException
# The SHA-256 of an image, and its prompt where a measure reads it: what is scored once.
Job = tuple[str, str]
OnOutcome = Callable[[int, Outcome], None]


class Pipeline:
    """Scores files once with detectors that may still have to be loaded.

    Args:
        fingerprints: detector name to fingerprint, in the order of the result's columns.
        load: loads all of them; called when the first image needs one, on a thread.
        cache: what is known already.
        decoders: number of decoding threads.
        max_pixels: larger images are not decoded.
        measures: cards of quality measures, by name.
        networks: fingerprints of the networks of features, by name.

    Attributes:
        timings: seconds summed over threads, by what they were spent on.
    """

    def __init__(
        self,
        fingerprints: Mapping[str, str],
        load: Callable[[], Engine],
        cache: ScoreCache,
        *,
        decoders: int,
        max_pixels: int,
        measures: Mapping[str, MeasureCard] | None = None,
        networks: Mapping[str, str] | None = None,
    ) -> None:
        self.fingerprints = dict(fingerprints)
        self.load = load
        self.cache = cache
        self.decoders = decoders
        self.max_pixels = max_pixels
        self.measures = dict(measures or {})
        self.networks = dict(networks or {})
        self.timings = dict.fromkeys(("read_and_decode", "prepare", "forward"), 0.0)
        self._clock = threading.Lock()
        self._todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._events: queue.Queue[Event] = queue.Queue()
        self._stopped = threading.Event()
        self._pixels = _PixelBudget(_PIXELS_IN_FLIGHT)
        # One permit per prepared image that is not scored; the engine's batches add more.
        self._slots = threading.Semaphore(decoders)
        self._engine: Engine | None = None
        self._loading = threading.Lock()
        self._forwards: ThreadPoolExecutor | None = None
        self._claimed: set[Job] = set()
        self._claims = threading.Lock()
        self._first: dict[tuple[str, str], Value] = {}
        self._unfinished: dict[Job, Outcome] = {}
        self._finished: dict[Job, Outcome] = {}
        self._waiting: dict[Job, list[int]] = {}
        self._batches: dict[str, list[tuple[Job, torch.Tensor]]] = {
            name: [] for name in [*self.fingerprints, *self.measures, *self.networks]
        }

    def run(
        self,
        paths: Sequence[Path],
        on_outcome: OnOutcome,
        prompts: Sequence[str | None] | None = None,
    ) -> None:
        """Score ``paths``; ``on_outcome`` gets each index once, in the order of completion.

        A measure that compares images with their ``prompts`` scores those that have one. It is
        called on the calling thread. On an exception (Ctrl-C too) the threads are stopped
        and what was scored is in the cache.

        Raises:
            RealBenchError: the detectors cannot be loaded, or one of them fails.
        """
        reads = any(card.needs_prompt for card in self.measures.values())
        own = prompts if reads and prompts is not None else [None] * len(paths)
        self._paths, self._prompts = paths, [one or "" for one in own]
        self._on_outcome = on_outcome
        for index in range(len(paths)):
            self._todo.put(index)
        decoders = [
            threading.Thread(target=self._decode_all, daemon=True, name=f"realbench-decode-{n}")
            for n in range(min(self.decoders, len(paths)))
        ]
        try:
            for thread in decoders:
                thread.start()
            self._collect()
        finally:
            self._stop(decoders)

    def _keys(self, prompt: str) -> dict[str, str]:
        """Return under what is cached what all that look at an image make of it, by their name."""
        measures = {
            name: card.key(prompt)
            for name, card in self.measures.items()
            if prompt or not card.needs_prompt
        }
        return self.fingerprints | measures | self.networks

    def _known(self, job: Job) -> dict[str, Value]:
        keys = self._keys(job[1])
        found: dict[str, Value] = {**self.cache.logits(job[0], list(keys.values()))}
        for key in self.networks.values():
            if vector := self.cache.vector(job[0], key):
                found[key] = np.frombuffer(vector, np.float32)
        return {name: found[key] for name, key in keys.items() if key in found}

    def _add_time(self, name: str, start: float) -> None:
        with self._clock:
            self.timings[name] += time.perf_counter() - start

    def _stop(self, decoders: Sequence[threading.Thread]) -> None:
        """End the threads, and keep the scores of the batches that were running."""
        self._stopped.set()
        for _ in decoders:
            self._slots.release()
        patience = _SHORT_PATIENCE_SECONDS if self._engine is None else _PATIENCE_SECONDS
        deadline = time.monotonic() + patience
        for thread in decoders:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._forwards is not None:
            self._forwards.shutdown(wait=True, cancel_futures=True)
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, _Scored):
                self._keep(event)

    # --- decoding threads ---

    def _decode_all(self) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    index = self._todo.get_nowait()
                except queue.Empty:
                    return
                self._events.put(self._read(index))
        except _Stopped:
            pass
        except BaseException as error:  # handed to the calling thread, which raises it
            self._stopped.set()
            self._events.put(error)

    def _read(self, index: int) -> _Read:
        path, prompt = self._paths[index], self._prompts[index]
        remembered = self.cache.known_sha256(path)
        if remembered:
            job, pixels = (remembered, prompt), self.cache.pixels(remembered)
            known = self._known(job)
            if pixels and len(known) == len(self._keys(prompt)):
                return _Read(index, job, pixels=pixels, known=known, alone=True)
        job, stat, start = ("", prompt), file_stat(path), time.perf_counter()
        try:
            data, sha256 = read_bytes_and_hash(path)
            job = (sha256, prompt)
            with self._claims:
                if job in self._claimed:
                    return _Read(index, job, stat)
                self._claimed.add(job)
            known = self._known(job)
            missing = [name for name in self._keys(prompt) if name not in known]
            pixels = self.cache.pixels(sha256)
            prepared: dict[str, torch.Tensor] = {}
            if missing or not pixels:
                pixels, prepared = self._prepare(data, missing, start)
        except UnreadableImage as error:
            reason = printable(" ".join(error.reason.split()))
            return _Read(index, job, stat, known={}, reason=reason, alone=not job[0])
        return _Read(index, job, stat, pixels, known, prepared)

    def _prepare(
        self, data: bytes, names: Sequence[str], start: float
    ) -> tuple[str, dict[str, torch.Tensor]]:
        """Return the hash of an image's pixels, and what each detector sees: that keeps a slot."""
        pixels = pixel_count(data, max_pixels=self.max_pixels)
        self._slots.acquire()
        pixels = self._pixels.take(pixels)
        try:
            if self._stopped.is_set():
                raise _Stopped
            image = decode(data, max_pixels=self.max_pixels)
            digest = pixel_digest(image)
            self._add_time("read_and_decode", start)
            if not names:
                self._slots.release()
                return digest, {}
            engine = self._loaded()
            start = time.perf_counter()
            prepared = engine.prepare(names, image)
            self._add_time("prepare", start)
        except UnreadableImage:
            self._slots.release()
            raise
        finally:
            self._pixels.give(pixels)
        return digest, prepared

    def _loaded(self) -> Engine:
        """Return the engine; the first thread that needs it loads it."""
        with self._loading:
            if self._engine is None:
                if self._stopped.is_set():
                    raise _Stopped
                try:
                    engine = self.load()
                except BaseException:
                    self._stopped.set()  # before another thread gets the lock and tries again
                    raise
                layout = engine.layout
                # Each network may hold an unfinished batch while the forward threads hold two.
                networks = len(self._batches)
                largest = max([layout.batch_size, *engine.batch_sizes.values()])
                self._slots.release(largest * (networks + 2 * layout.forwards))
                self._forwards = ThreadPoolExecutor(
                    layout.forwards,
                    thread_name_prefix="realbench-forward",
                    initializer=use_threads,
                    initargs=(layout.threads_per_forward,),
                )
                self._engine = engine
        use_threads(1)  # a thread of this run decodes on one core; several of them fill all
        return self._engine

    # --- the calling thread ---

    def _collect(self) -> None:
        left = reading = len(self._paths)
        while left:
            event = self._events.get()
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, _Read):
                reading -= 1
                left -= self._take_read(event)
            else:
                left -= self._take_scored(event)
            if not reading:
                for name in self._batches:
                    self._submit(name)

    def _take_read(self, read: _Read) -> int:
        """Book a file that was read; return how many files are finished by it."""
        sha256, job = read.job[0], read.job
        if sha256 and read.stat is not None:
            self.cache.put_file(self._paths[read.index], read.stat, sha256)
        if read.pixels and not read.alone:
            self.cache.put_pixels(sha256, read.pixels)
        if read.known is None:  # a twin of a file that was read before
            if job in self._finished:
                self._on_outcome(read.index, self._finished[job])
                return 1
            self._waiting.setdefault(job, []).append(read.index)
            return 0
        outcome = Outcome(sha256, read.pixels, read.known, read.reason)
        outcome.cached = not (read.prepared or read.reason)
        if read.alone:
            self._on_outcome(read.index, outcome)
            return 1
        self._waiting.setdefault(job, []).append(read.index)
        if not read.prepared:
            return self._finish(job, outcome)
        self._unfinished[job] = outcome
        for name, tensor in read.prepared.items():
            self._batches[name].append((job, tensor))
            if self._engine and len(self._batches[name]) >= self._engine.images(name, tensor):
                self._submit(name)
        return 0

    def _take_scored(self, scored: _Scored) -> int:
        self._keep(scored)
        finished = 0
        for job, logit in zip(scored.jobs, self._agreed(scored), strict=True):
            outcome = self._unfinished[job]
            outcome.logits[scored.name] = logit
            if len(outcome.logits) == len(self._keys(job[1])):
                del self._unfinished[job]
                self._slots.release()
                finished += self._finish(job, outcome)
        return finished

    def _agreed(self, scored: _Scored) -> Sequence[Value]:
        """Return a batch's logits, of an image with several prompts those that came first.

        Another batch may round the same image's logit otherwise, and it has but one.
        """
        if scored.name in self.measures:
            return scored.logits
        pairs = zip(scored.jobs, scored.logits, strict=True)
        return [self._first.setdefault((sha, scored.name), logit) for (sha, _), logit in pairs]

    def _keep(self, scored: _Scored) -> None:
        assert self._engine is not None
        pairs = list(zip(scored.jobs, self._agreed(scored), strict=True))
        if scored.name in self.networks:
            vectors = {sha256: np.float32(one).tobytes() for (sha256, _), one in pairs}
            self.cache.put_vectors(self.networks[scored.name], vectors)
            return
        if scored.name in self.fingerprints:
            logits = {sha256: float(one) for (sha256, _), one in pairs}
            self.cache.put_logits(self.fingerprints[scored.name], logits)
            return
        card, measure = self.measures[scored.name], self._engine.measures[scored.name]
        for (sha256, prompt), score in pairs:
            if card.needs_prompt and measure.cuts(prompt):
                self.cache.put_logits(cut_key(card, prompt), {sha256: 1.0})
            self.cache.put_logits(card.key(prompt), {sha256: float(score)})

    def _finish(self, job: Job, outcome: Outcome) -> int:
        self._finished[job] = outcome
        indices = self._waiting.pop(job)
        for index in indices:
            self._on_outcome(index, outcome)
        return len(indices)

    def _submit(self, name: str) -> None:
        batch, self._batches[name] = self._batches[name], []
        if batch and self._forwards is not None:
            self._forwards.submit(self._forward, name, batch)

    # --- forward threads ---

    def _forward(self, name: str, batch: Sequence[tuple[Job, torch.Tensor]]) -> None:
        assert self._engine is not None
        try:
            start = time.perf_counter()
            jobs, tensors = zip(*batch, strict=True)
            logits = self._engine.scores(name, tensors, [prompt for _, prompt in jobs])
            self._add_time("forward", start)
            if not all(np.isfinite(one).all() for one in logits):
                raise RealBenchError(
                    f"{name} gives a score that is not a number: its weights or its card are wrong"
                )
            self._events.put(_Scored(name, jobs, logits))
        except BaseException as error:  # handed to the calling thread, which raises it
            if is_memory_shortage(error):  # torch says so in many ways
                error = RealBenchError(
                    f"not enough memory to run {name}: try a smaller --batch-size"
                )
            self._events.put(error)


def cut_key(card: MeasureCard, prompt: str) -> str:
    """Return under what the cache knows that a prompt was too long to be read whole."""
    return hashlib.sha256(f"{card.key(prompt)} cut".encode()).hexdigest()


def score_batch(detector: Detector, tensors: Sequence[torch.Tensor]) -> list[float]:
    """Return the logits of prepared images; where memory is short, in smaller batches.

    Raises:
        RuntimeError, MemoryError: it is too short for a single image.
    """
    import torch

    try:
        logits: list[float] = detector.logits(torch.stack(list(tensors))).tolist()
        return logits
    except (RuntimeError, MemoryError) as error:
        if len(tensors) == 1 or not is_memory_shortage(error):
            raise
    if torch.cuda.is_available():  # out of the handler, which held the failed batch's tensors
        torch.cuda.empty_cache()
    middle = len(tensors) // 2
    return score_batch(detector, tensors[:middle]) + score_batch(detector, tensors[middle:])
