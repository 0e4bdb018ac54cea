"""Dynamic batching: requests of several clients fill one forward pass."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from realbench.errors import RealBenchError
from realbench.reward.reward import WeightedReward
from realbench.serve.reward_limits import Refusal

Values = dict[str, np.ndarray]


@dataclass(eq=False)
class _Request:
    images: Sequence[np.ndarray]
    prompts: Sequence[str]
    answer: asyncio.Future[Values]
    arrived: float = field(default_factory=time.monotonic)


Answers = list[Values | Exception]
Result = TypeVar("Result")


class Threads:
    """Threads that work for an event loop; those of an executor would hold up a process's end."""

    def __init__(self, count: int, name: str) -> None:
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._count = count
        for n in range(count):
            threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True).start()

    async def run(self, function: Callable[[], Result]) -> Result:
        """Return what ``function`` does; it is not called where the caller is cancelled first."""
        future: Future[Result] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)

        self._todo.put(work)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Have the threads end when they have done what was asked of them."""
        for _ in range(self._count):
            self._todo.put(None)

    def _work(self) -> None:
        while (work := self._todo.get()) is not None:
            work()


@dataclass(eq=False, kw_only=True)
class Batcher:
    """Collects requests and has the reward called on many of them at once, from one thread.

    While a pass runs, requests gather for the next. When nothing runs, the first waits up to
    ``max_wait`` for company. A request is never split; one with more images than ``max_batch``
    is a batch of its own. When a batch fails, its requests are tried one by one, so that a
    request that cannot be rewarded fails alone.

    Attributes:
        reward: What is served.
        max_batch: Images at which a batch is full.
        max_wait: Seconds that the first request of a batch waits.
        max_waiting: Images that may wait.
        on_batch: Called after each pass with its number of requests, of images, and its seconds.
    """

    reward: WeightedReward = field(kw_only=False)
    max_batch: int
    max_wait: float
    max_waiting: int
    on_batch: Callable[[int, int, float], None] = lambda *_: None

    def __post_init__(self) -> None:
        self._waiting: deque[_Request] = deque()
        self._arrival = asyncio.Event()
        self._worker = Threads(1, "reward")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Images that wait for a pass."""
        return sum(len(one.images) for one in self._waiting)

    async def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> Values:
        """Return the reward's components, by name, each float32 (n,).

        Raises:
            Refusal: too many images wait already.
            Exception: what the reward raised.
        """
        if self._waiting and self.waiting + len(images) > self.max_waiting:
            raise Refusal(503, "too many images wait: try again", "busy", retry_after=1)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        request = _Request(images, prompts, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._arrival.set()
        try:
            return await request.answer
        finally:  # whoever waited may be gone: nothing is computed for it then
            if request in self._waiting:
                self._waiting.remove(request)

    async def close(self) -> None:
        """End the task; requests that wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
        for one in self._waiting:
            one.answer.cancel()
        self._worker.close()

    async def _run(self) -> None:
        while True:
            batch = await self._next_batch()
            if not batch:
                continue
            start = time.monotonic()
            try:
                answers = await self._worker.run(partial(self._score, batch))
            except Exception as error:  # not the reward's: those come as answers
                answers = [error] * len(batch)
            self.on_batch(
                len(batch), sum(len(one.images) for one in batch), time.monotonic() - start
            )
            for request, answer in zip(batch, answers, strict=True):
                if request.answer.done():  # given up by its client
                    continue
                if isinstance(answer, Exception):
                    request.answer.set_exception(answer)
                else:
                    request.answer.set_result(answer)

    async def _next_batch(self) -> list[_Request]:
        while not self._waiting:
            self._arrival.clear()
            await self._arrival.wait()
        deadline = self._waiting[0].arrived + self.max_wait
        while self.waiting < self.max_batch and (left := deadline - time.monotonic()) > 0:
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), left)
            except TimeoutError:
                break
        batch: list[_Request] = []
        room = self.max_batch
        while self._waiting and (not batch or len(self._waiting[0].images) <= room):
            request = self._waiting.popleft()
            room -= len(request.images)
            if not request.answer.done():
                batch.append(request)
        return batch

    def _score(self, batch: Sequence[_Request]) -> Answers:
        images = [image for one in batch for image in one.images]
        prompts = [prompt for one in batch for prompt in one.prompts]
        try:
            values = self.reward.each(images, prompts)
        except Exception as error:
            if len(batch) == 1:
                ours = isinstance(error, RealBenchError)
                return [error if ours else RealBenchError(f"{type(error).__name__}: {error}")]
            return [self._score([one])[0] for one in batch]
        ends = np.cumsum([len(one.images) for one in batch])[:-1]
        parts = {name: np.split(array, ends) for name, array in values.items()}
        return [{name: parts[name][n] for name in parts} for n in range(len(batch))]
