"""Reads, decodes, prepares and scores images, all at the same time.

Decoding threads turn each file into the small input tensors of every detector that lacks its
score; the thread that called collects them into batches, which run on forward threads. The order
of the files decides nothing, so batches fill across folders. Scores and failures reach the
caller as they come.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from realbench.images import UnreadableImage, decode, pixel_count, read_bytes_and_hash
from realbench.scoring.cache import ScoreCache, Stat, file_stat

if TYPE_CHECKING:
    import torch

    from realbench.detection.detector import Detector

# Decoded pixels in flight: a few ordinary images, or one of any size alone.
_PIXELS_IN_FLIGHT = 64_000_000


@dataclass(slots=True)
class Outcome:
    """What came of one file: its hash and logits by detector, or the reason of its failure."""

    sha256: str = ""
    logits: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    cached: bool = False


@dataclass(slots=True)
class Timings:
    """Seconds summed over threads: reading and decoding, preparing, forward passes."""

    read_and_decode: float = 0.0
    prepare: float = 0.0
    forward: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """How the processor is shared: numbers of threads and images a batch."""

    decoders: int
    forwards: int
    threads_per_forward: int
    batch_size: int


def choose_layout(
    device: str, *, workers: int | None = None, batch_size: int | None = None
) -> Layout:
    """Choose threads and batch size for ``device``.

    On a CPU every forward pass runs on one thread and several run at once: threads that share
    one pass wait for one another at each layer, and for the decoders too.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    decoders = workers or min(cores, 16)
    if device != "cpu":
        return Layout(decoders, 1, cores, batch_size or 64)
    forwards = min(cores, 8)
    return Layout(decoders, forwards, max(1, cores // forwards), batch_size or 8)


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
    """A decoder's result for one file.

    ``known`` are logits that the cache had, ``prepared`` the inputs of the other detectors; both
    are None for a file whose content another file brought already.
    """

    index: int
    sha256: str
    stat: Stat | None
    known: dict[str, float] | None = None
    prepared: Mapping[str, torch.Tensor] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Scored:
    detector: str
    shas: Sequence[str]
    logits: Sequence[float]


Event = _Read | _Scored | BaseException
OnOutcome = Callable[[int, Outcome], None]


class Pipeline:
    """Scores files with detectors that may still have to be loaded.

    Args:
        fingerprints: detector name to fingerprint, in the order of the result's columns.
        load: loads the detectors; called once, when the first image needs them.
        cache: what is known already.
        max_pixels: larger images are not decoded.
    """

    def __init__(
        self,
        fingerprints: Mapping[str, str],
        load: Callable[[], Mapping[str, Detector]],
        cache: ScoreCache,
        *,
        layout: Layout,
        max_pixels: int,
    ) -> None:
        self._fingerprints = dict(fingerprints)
        self._names = {fingerprint: name for name, fingerprint in self._fingerprints.items()}
        self._load = load
        self._cache = cache
        self._layout = layout
        self._max_pixels = max_pixels
        self.timings = Timings()
        self._clock = threading.Lock()

    def run(self, paths: Sequence[Path], on_outcome: OnOutcome) -> None:
        """Score ``paths``; ``on_outcome`` gets each index once, in the order of completion.

        It is called on the calling thread. On an exception (Ctrl-C too) the threads are stopped
        and what was scored is in the cache.
        """
        unknown = []
        for index, path in enumerate(paths):
            sha256 = self._cache.known_sha256(path)
            known = self._known(sha256) if sha256 else {}
            if sha256 and len(known) == len(self._fingerprints):
                on_outcome(index, Outcome(sha256, known, cached=True))
            else:
                unknown.append(index)
        if unknown:
            _Run(self, paths, on_outcome).go(unknown)

    def _known(self, sha256: str) -> dict[str, float]:
        found = self._cache.logits(sha256, list(self._fingerprints.values()))
        return {self._names[fingerprint]: logit for fingerprint, logit in found.items()}

    def _add_time(self, name: str, seconds: float) -> None:
        with self._clock:
            setattr(self.timings, name, getattr(self.timings, name) + seconds)


class _Run:
    """The threads and the book-keeping of one call of :meth:`Pipeline.run`."""

    def __init__(self, pipeline: Pipeline, paths: Sequence[Path], on_outcome: OnOutcome) -> None:
        self.p = pipeline
        self.paths = paths
        self.on_outcome = on_outcome
        self.loaded: Mapping[str, Detector] | None = None
        self.loading = threading.Lock()
        self.events: queue.Queue[Event] = queue.Queue()
        self.stopped = threading.Event()
        self.pixels = _PixelBudget(_PIXELS_IN_FLIGHT)
        layout = pipeline._layout
        # Every detector may hold an unfinished batch while the forward threads hold two each.
        detectors = len(pipeline._fingerprints)
        self.slots = threading.Semaphore(layout.batch_size * (detectors + 2 * layout.forwards))
        self.claimed: set[str] = set()
        self.claims = threading.Lock()
        self.unfinished: dict[str, Outcome] = {}
        self.finished: dict[str, Outcome] = {}
        self.waiting: dict[str, list[int]] = {}
        self.batches: dict[str, list[tuple[str, torch.Tensor]]] = {
            name: [] for name in pipeline._fingerprints
        }
        self.running = 0

    def go(self, indices: Iterable[int]) -> None:
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        left = 0
        for index in indices:
            todo.put(index)
            left += 1
        layout = self.p._layout
        decoders = [
            threading.Thread(target=self._decode_all, args=(todo,), daemon=True)
            for _ in range(min(layout.decoders, left))
        ]
        forwards = ThreadPoolExecutor(
            layout.forwards,
            initializer=use_threads,
            initargs=(layout.threads_per_forward,),
        )
        try:
            for thread in decoders:
                thread.start()
            self._collect(left, forwards)
        finally:
            self.stopped.set()
            for _ in decoders:
                self.slots.release()
            forwards.shutdown(wait=True, cancel_futures=True)

    # --- decoding threads ---

    def _decode_all(self, todo: queue.SimpleQueue[int]) -> None:
        try:
            while not self.stopped.is_set():
                try:
                    index = todo.get_nowait()
                except queue.Empty:
                    return
                self.slots.acquire()
                self.events.put(self._read(index))
        except BaseException as error:  # handed to the calling thread, which raises it
            self.events.put(error)

    def _read(self, index: int) -> _Read:
        path, sha256 = self.paths[index], ""
        stat = file_stat(path)
        start = time.perf_counter()
        try:
            data, sha256 = read_bytes_and_hash(path)
            with self.claims:
                if sha256 in self.claimed:
                    return _Read(index, sha256, stat)
                self.claimed.add(sha256)
            known = self.p._known(sha256)
            missing = [name for name in self.p._fingerprints if name not in known]
            prepared = self._prepare(data, missing, start) if missing else {}
        except UnreadableImage as error:
            return _Read(index, sha256, stat, {}, {}, error.reason)
        return _Read(index, sha256, stat, known, prepared)

    def _prepare(self, data: bytes, names: Sequence[str], start: float) -> dict[str, torch.Tensor]:
        detectors = self._detectors()
        pixels = self.pixels.take(pixel_count(data, max_pixels=self.p._max_pixels))
        try:
            image = decode(data, max_pixels=self.p._max_pixels)
            middle = time.perf_counter()
            prepared = {name: detectors[name].prepare(image) for name in names}
        finally:
            self.pixels.give(pixels)
        self.p._add_time("read_and_decode", middle - start)
        self.p._add_time("prepare", time.perf_counter() - middle)
        return prepared

    def _detectors(self) -> Mapping[str, Detector]:
        with self.loading:
            if self.loaded is None:
                self.loaded = self.p._load()
            return self.loaded

    # --- the calling thread ---

    def _collect(self, left: int, forwards: ThreadPoolExecutor) -> None:
        reading = left
        while left:
            event = self.events.get()
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, _Read):
                reading -= 1
                left -= self._take_read(event, forwards)
            else:
                self.running -= 1
                left -= self._take_scored(event)
            if not reading:
                self._flush(forwards)

    def _take_read(self, read: _Read, forwards: ThreadPoolExecutor) -> int:
        """Book a file that was read; return how many files are finished by it."""
        if not read.sha256:
            self.slots.release()
            self.on_outcome(read.index, Outcome(reason=read.reason))
            return 1
        self.p._cache.put_file(self.paths[read.index], read.stat, read.sha256)
        if read.known is not None:
            return self._take_first(read, forwards)
        self.slots.release()
        if read.sha256 in self.finished:
            self.on_outcome(read.index, self.finished[read.sha256])
            return 1
        self.waiting.setdefault(read.sha256, []).append(read.index)
        return 0

    def _take_first(self, read: _Read, forwards: ThreadPoolExecutor) -> int:
        """Book the first file of a content; its twins wait for it."""
        known, prepared = read.known or {}, read.prepared or {}
        outcome = Outcome(read.sha256, known, read.reason, cached=not (prepared or read.reason))
        self.waiting.setdefault(read.sha256, []).append(read.index)
        if not prepared:
            return self._finish(outcome)
        self.unfinished[read.sha256] = outcome
        for name, tensor in prepared.items():
            self.batches[name].append((read.sha256, tensor))
            if len(self.batches[name]) >= self.p._layout.batch_size:
                self._submit(name, forwards)
        return 0

    def _take_scored(self, scored: _Scored) -> int:
        logits = dict(zip(scored.shas, scored.logits, strict=True))
        self.p._cache.put_logits(self.p._fingerprints[scored.detector], logits)
        finished = 0
        for sha256, logit in logits.items():
            outcome = self.unfinished[sha256]
            outcome.logits[scored.detector] = logit
            if len(outcome.logits) == len(self.p._fingerprints):
                del self.unfinished[sha256]
                finished += self._finish(outcome)
        return finished

    def _finish(self, outcome: Outcome) -> int:
        self.slots.release()
        self.finished[outcome.sha256] = outcome
        indices = self.waiting.pop(outcome.sha256)
        for index in indices:
            self.on_outcome(index, outcome)
        return len(indices)

    def _flush(self, forwards: ThreadPoolExecutor) -> None:
        for name, batch in self.batches.items():
            if batch:
                self._submit(name, forwards)

    def _submit(self, name: str, forwards: ThreadPoolExecutor) -> None:
        batch, self.batches[name] = self.batches[name], []
        self.running += 1
        forwards.submit(self._forward, name, batch)

    # --- forward threads ---

    def _forward(self, name: str, batch: Sequence[tuple[str, torch.Tensor]]) -> None:
        import torch

        try:
            start = time.perf_counter()
            shas, tensors = zip(*batch, strict=True)
            logits = self._detectors()[name].logits(torch.stack(tensors)).tolist()
            self.p._add_time("forward", time.perf_counter() - start)
            self.events.put(_Scored(name, shas, logits))
        except BaseException as error:  # handed to the calling thread, which raises it
            self.events.put(error)


def use_threads(count: int) -> None:
    """Let torch compute on ``count`` threads when it is called from this thread."""
    import torch

    torch.set_num_threads(count)
