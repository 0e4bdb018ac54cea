"""Coroutines for callers that have no event loop, or have one that must not be blocked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class BackgroundLoop:
    """An event loop in a thread of its own, for use in a ``with`` statement.

    Leaving it cancels what still runs, waits until that has ended, and calls ``at_end``.
    """

    def __init__(self, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._at_end = at_end
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live()), name="judge requests", daemon=True
        )

    def __enter__(self) -> BackgroundLoop:
        self._thread.start()
        self._loop, self._end = self._started.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def submit(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start a coroutine; the future has its result, or its exception."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, function: Callable[[], object]) -> None:
        """Have ``function`` called in the loop, soon."""
        self._loop.call_soon_threadsafe(function)

    async def _live(self) -> None:
        self._started.set_result((asyncio.get_running_loop(), end := asyncio.Event()))
        await end.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._at_end()
