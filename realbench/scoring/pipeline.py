"""Reads, decodes, prepares and scores images, all at the same time.

Decoding threads look each file up and turn it into the small input tensors of every detector that
lacks its score; the thread that called collects them into batches, which run on forward threads.
The order of the files decides nothing, so batches fill across folders. Scores and failures reach
the caller as they come.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from realbench.detection.memory import is_memory_shortage
from realbench.detection.preparation import prepare_for
from realbench.errors import RealBenchError
from realbench.images import UnreadableImage, decode, pixel_count, read_bytes_and_hash
from realbench.scoring.cache import ScoreCache, Stat, file_stat
from realbench.scoring.layout import Layout, use_threads
from realbench.text import printable

if TYPE_CHECKING:
    import torch

    from realbench.detection.detector import Detector

# Decoded pixels in flight: a few ordinary images, or one of any size alone.
_PIXELS_IN_FLIGHT = 64_000_000
# How long a run that ends early waits for its decoding threads: a huge image takes seconds.
_PATIENCE_SECONDS = 3.0
# The same before anything was scored: a thread may be importing torch, and nothing is lost.
_SHORT_PATIENCE_SECONDS = 0.2


@dataclass(slots=True)
class Outcome:
    """What came of one file: its hash and logits by detector, or the reason of its failure."""

    sha256: str = ""
    logits: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: files finished of all, and how many of them came from the cache.

    ``stage`` is ``"scoring"`` for the detectors, then the name of each quality measure.
    """

    done: int
    total: int
    cached: int
    failed: int
    stage: str = "scoring"


@dataclass(slots=True)
class Timings:
    """Seconds summed over threads: reading and decoding, preparing, forward passes."""

    read_and_decode: float = 0.0
    prepare: float = 0.0
    forward: float = 0.0


@dataclass(frozen=True, slots=True)
class Engine:
    """Loaded detectors, by name, and how they share the processor.

    ``batch_sizes`` has the images a batch of detectors for which they were found out.
    """

    detectors: Mapping[str, Detector]
    layout: Layout
    batch_sizes: Mapping[str, int] = field(default_factory=dict)

    def images(self, name: str, views: int) -> int:
        """Return the images a batch for a detector that sees ``views`` views of each."""
        return self.batch_sizes.get(name) or self.layout.images(views)

    @property
    def largest_batch(self) -> int:
        """The most images that any batch has."""
        return max([self.layout.batch_size, *self.batch_sizes.values()])


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
    """A decoding thread's result for one file.

    Attributes:
        stat: of the file before it was read.
        known: logits that the cache had; None where another file brought the content already.
        prepared: the inputs of the detectors that lack a score.
        alone: this file's outcome is no other's.
    """

    index: int
    sha256: str
    stat: Stat | None = None
    known: dict[str, float] | None = None
    prepared: Mapping[str, torch.Tensor] = field(default_factory=dict)
    reason: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class _Scored:
    detector: str
    shas: Sequence[str]
    logits: Sequence[float]


class _Stopped(Exception):  # noqa: N818 - nothing went wrong in the thread that meets it
    """The run ends; whatever a thread was doing is not wanted any more."""


Event = _Read | _Scored | BaseException
OnOutcome = Callable[[int, Outcome], None]


class Pipeline:
    """Scores files with detectors that may still have to be loaded.

    Args:
        fingerprints: detector name to fingerprint, in the order of the result's columns.
        load: loads the detectors; called when the first image needs them, on a thread.
        cache: what is known already.
        decoders: number of decoding threads.
        max_pixels: larger images are not decoded.
    """

    def __init__(
        self,
        fingerprints: Mapping[str, str],
        load: Callable[[], Engine],
        cache: ScoreCache,
        *,
        decoders: int,
        max_pixels: int,
    ) -> None:
        self.fingerprints = dict(fingerprints)
        self.load = load
        self.cache = cache
        self.decoders = decoders
        self.max_pixels = max_pixels
        self.timings = Timings()
        self._clock = threading.Lock()

    def run(self, paths: Sequence[Path], on_outcome: OnOutcome) -> None:
        """Score ``paths``; ``on_outcome`` gets each index once, in the order of completion.

        It is called on the calling thread. On an exception (Ctrl-C too) the threads are stopped
        and what was scored is in the cache.

        Raises:
            RealBenchError: the detectors cannot be loaded, or one of them fails.
        """
        if paths:
            _Run(self, paths, on_outcome).go()

    def known(self, sha256: str) -> dict[str, float]:
        """Return the cached logits of an image by detector name."""
        found = self.cache.logits(sha256, list(self.fingerprints.values()))
        return {name: found[mark] for name, mark in self.fingerprints.items() if mark in found}

    def add_time(self, name: str, seconds: float) -> None:
        """Add to one of the timings, from any thread."""
        with self._clock:
            setattr(self.timings, name, getattr(self.timings, name) + seconds)


class _Run:
    """The threads and the book-keeping of one call of :meth:`Pipeline.run`."""

    def __init__(self, pipeline: Pipeline, paths: Sequence[Path], on_outcome: OnOutcome) -> None:
        self.p = pipeline
        self.paths = paths
        self.on_outcome = on_outcome
        self.todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(paths)):
            self.todo.put(index)
        self.events: queue.Queue[Event] = queue.Queue()
        self.stopped = threading.Event()
        self.pixels = _PixelBudget(_PIXELS_IN_FLIGHT)
        # One permit per prepared image that is not scored; the engine's batches add more.
        self.slots = threading.Semaphore(pipeline.decoders)
        self.engine: Engine | None = None
        self.loading = threading.Lock()
        self.forwards: ThreadPoolExecutor | None = None
        self.claimed: set[str] = set()
        self.claims = threading.Lock()
        self.unfinished: dict[str, Outcome] = {}
        self.finished: dict[str, Outcome] = {}
        self.waiting: dict[str, list[int]] = {}
        self.batches: dict[str, list[tuple[str, torch.Tensor]]] = {
            name: [] for name in pipeline.fingerprints
        }

    def go(self) -> None:
        decoders = [
            threading.Thread(target=self._decode_all, daemon=True, name=f"realbench-decode-{n}")
            for n in range(min(self.p.decoders, len(self.paths)))
        ]
        try:
            for thread in decoders:
                thread.start()
            self._collect()
        finally:
            self._stop(decoders)

    def _stop(self, decoders: Sequence[threading.Thread]) -> None:
        """End the threads, and keep the scores of the batches that were running."""
        self.stopped.set()
        for _ in decoders:
            self.slots.release()
        patience = _SHORT_PATIENCE_SECONDS if self.engine is None else _PATIENCE_SECONDS
        deadline = time.monotonic() + patience
        for thread in decoders:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        if self.forwards is not None:
            self.forwards.shutdown(wait=True, cancel_futures=True)
        while not self.events.empty():
            event = self.events.get()
            if isinstance(event, _Scored):
                self._keep(event)

    # --- decoding threads ---

    def _decode_all(self) -> None:
        try:
            while not self.stopped.is_set():
                try:
                    index = self.todo.get_nowait()
                except queue.Empty:
                    return
                self.events.put(self._read(index))
        except _Stopped:
            pass
        except BaseException as error:  # handed to the calling thread, which raises it
            self.stopped.set()
            self.events.put(error)

    def _read(self, index: int) -> _Read:
        path = self.paths[index]
        remembered = self.p.cache.known_sha256(path)
        if remembered:
            known = self.p.known(remembered)
            if len(known) == len(self.p.fingerprints):
                return _Read(index, remembered, known=known, alone=True)
        sha256, stat, start = "", file_stat(path), time.perf_counter()
        try:
            data, sha256 = read_bytes_and_hash(path)
            with self.claims:
                if sha256 in self.claimed:
                    return _Read(index, sha256, stat)
                self.claimed.add(sha256)
            known = self.p.known(sha256)
            missing = [name for name in self.p.fingerprints if name not in known]
            prepared = self._prepare(data, missing, start) if missing else {}
        except UnreadableImage as error:
            reason = printable(" ".join(error.reason.split()))
            return _Read(index, sha256, stat, known={}, reason=reason, alone=not sha256)
        return _Read(index, sha256, stat, known, prepared)

    def _prepare(self, data: bytes, names: Sequence[str], start: float) -> dict[str, torch.Tensor]:
        """Decode an image and prepare it for detectors; keeps one of the slots."""
        pixels = pixel_count(data, max_pixels=self.p.max_pixels)
        self.slots.acquire()
        pixels = self.pixels.take(pixels)
        try:
            if self.stopped.is_set():
                raise _Stopped
            image = decode(data, max_pixels=self.p.max_pixels)
            self.p.add_time("read_and_decode", time.perf_counter() - start)
            detectors = self._loaded().detectors
            start = time.perf_counter()
            prepared = prepare_for(detectors, names, image)
            self.p.add_time("prepare", time.perf_counter() - start)
        except UnreadableImage:
            self.slots.release()
            raise
        finally:
            self.pixels.give(pixels)
        return prepared

    def _loaded(self) -> Engine:
        """Return the engine; the first thread that needs it loads it."""
        with self.loading:
            if self.engine is None:
                if self.stopped.is_set():
                    raise _Stopped
                try:
                    engine = self.p.load()
                except BaseException:
                    self.stopped.set()  # before another thread gets the lock and tries again
                    raise
                layout = engine.layout
                # Every detector may hold an unfinished batch while the forward threads hold two.
                self.slots.release(
                    engine.largest_batch * (len(engine.detectors) + 2 * layout.forwards)
                )
                self.forwards = ThreadPoolExecutor(
                    layout.forwards,
                    thread_name_prefix="realbench-forward",
                    initializer=use_threads,
                    initargs=(layout.threads_per_forward,),
                )
                self.engine = engine
        use_threads(1)  # a thread of this run decodes on one core; several of them fill all
        return self.engine

    # --- the calling thread ---

    def _collect(self) -> None:
        left = reading = len(self.paths)
        while left:
            event = self.events.get()
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, _Read):
                reading -= 1
                left -= self._take_read(event)
            else:
                left -= self._take_scored(event)
            if not reading:
                for name in self.batches:
                    self._submit(name)

    def _take_read(self, read: _Read) -> int:
        """Book a file that was read; return how many files are finished by it."""
        if read.sha256 and read.stat is not None:
            self.p.cache.put_file(self.paths[read.index], read.stat, read.sha256)
        if read.known is None:  # a twin of a file that was read before
            if read.sha256 in self.finished:
                self.on_outcome(read.index, self.finished[read.sha256])
                return 1
            self.waiting.setdefault(read.sha256, []).append(read.index)
            return 0
        outcome = Outcome(read.sha256, read.known, read.reason)
        outcome.cached = not (read.prepared or read.reason)
        if read.alone:
            self.on_outcome(read.index, outcome)
            return 1
        self.waiting.setdefault(read.sha256, []).append(read.index)
        if not read.prepared:
            return self._finish(outcome)
        self.unfinished[read.sha256] = outcome
        for name, tensor in read.prepared.items():
            self.batches[name].append((read.sha256, tensor))
            if self.engine and len(self.batches[name]) >= self.engine.images(name, len(tensor)):
                self._submit(name)
        return 0

    def _take_scored(self, scored: _Scored) -> int:
        self._keep(scored)
        finished = 0
        for sha256, logit in zip(scored.shas, scored.logits, strict=True):
            outcome = self.unfinished[sha256]
            outcome.logits[scored.detector] = logit
            if len(outcome.logits) == len(self.p.fingerprints):
                del self.unfinished[sha256]
                self.slots.release()
                finished += self._finish(outcome)
        return finished

    def _keep(self, scored: _Scored) -> None:
        logits = dict(zip(scored.shas, scored.logits, strict=True))
        self.p.cache.put_logits(self.p.fingerprints[scored.detector], logits)

    def _finish(self, outcome: Outcome) -> int:
        self.finished[outcome.sha256] = outcome
        indices = self.waiting.pop(outcome.sha256)
        for index in indices:
            self.on_outcome(index, outcome)
        return len(indices)

    def _submit(self, name: str) -> None:
        batch, self.batches[name] = self.batches[name], []
        if batch and self.forwards is not None:
            self.forwards.submit(self._forward, name, batch)

    # --- forward threads ---

    def _forward(self, name: str, batch: Sequence[tuple[str, torch.Tensor]]) -> None:
        try:
            start = time.perf_counter()
            shas, tensors = zip(*batch, strict=True)
            logits = score_batch(self._loaded_already()[name], tensors)
            self.p.add_time("forward", time.perf_counter() - start)
            if not all(map(math.isfinite, logits)):
                raise RealBenchError(
                    f"detector {name} gives a score that is not a number: its weights or its "
                    "card are wrong"
                )
            self.events.put(_Scored(name, shas, logits))
        except BaseException as error:  # handed to the calling thread, which raises it
            self.events.put(_explained(error, name))

    def _loaded_already(self) -> Mapping[str, Detector]:
        assert self.engine is not None
        return self.engine.detectors


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


def _explained(error: BaseException, name: str) -> BaseException:
    """Turn torch's many ways to say that memory is short into a message for the user."""
    if is_memory_shortage(error):
        return RealBenchError(f"not enough memory to run {name}: try a smaller --batch-size")
    return error
