"""Runs the reward server: in this process until a signal, or in a thread of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from realbench.errors import RealBenchError, UsageError
from realbench.loopback import is_loopback, listen, reachable
from realbench.reward.reward import WeightedReward
from realbench.reward.token import TOKEN_VARIABLE, Token
from realbench.serve.reward_app import RewardApp
from realbench.serve.reward_batching import Batcher
from realbench.serve.reward_guard import Gate, Guard
from realbench.serve.reward_limits import Limits, MemoryBudget
from realbench.serve.reward_metrics import RewardMetrics

DEFAULT_PORT = 8765
_KEEP_ALIVE_SECONDS = 60
_GRACE_SECONDS = 2.0  # in which clients are told 503 after a signal, though nothing is under way


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a reward is served.

    Attributes:
        host: The address to listen on; a loopback one is reached from this machine alone.
        port: 0 takes a free one.
        token: What clients have to show; other than loopback addresses need one.
        max_batch: Images at which a forward pass is full.
        max_wait: Seconds that the first request waits for others to fill a pass.
        drain_seconds: In which requests may end after SIGTERM.
        limits: See :class:`~realbench.serve.reward_limits.Limits`.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token: Token | None = None
    max_batch: int = 64
    max_wait: float = 0.005
    drain_seconds: float = 60.0
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Raise UsageError where the address is open to others and no token is asked for."""
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"others reach {self.host}: set a token in ${TOKEN_VARIABLE} or with "
                "--token-file, or listen on 127.0.0.1"
            )


class RewardServer:
    """A reward behind an address.

    Args:
        reward: What is served; it is called from one thread.
        options: See there.
        say: Called with one line on what the server does.
        complain: Called with one line when the reward fails.
    """

    def __init__(
        self,
        reward: WeightedReward,
        options: ServerOptions | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
        complain: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._reward = reward
        self._options = options or ServerOptions()
        self._options.check()
        self._say = say
        self._complain = complain

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain.

        Requests that are under way are finished, new ones get 503; a second signal ends them.

        Raises:
            UsageError: the port is in use or not allowed, or there is no such address here.
        """
        options = self._options
        listening = listen(options.host, options.port)
        port = listening.getsockname()[1]
        with_token = "a token is needed" if options.token else "no token is needed"
        server = self._server(
            f"Serving {self._reward} on {_address(options.host, port)} ({with_token})"
        )
        try:
            server.run(sockets=[listening])
        finally:
            listening.close()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve from a thread while the context lasts; yield the address, such as ``http://…``.

        Raises:
            UsageError: as :meth:`run`.
            RealBenchError: the server does not start.
        """
        options = self._options
        listening = listen(options.host, options.port)
        server = self._server()
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listening]}, name="reward-server", daemon=True
        )
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise RealBenchError(f"the server on {options.host} did not start")
                time.sleep(0.005)
            yield _address(options.host, listening.getsockname()[1])
        finally:
            server.drain()
            thread.join()
            listening.close()

    def _server(self, greeting: str = "") -> _Server:
        options, limits = self._options, self._options.limits
        metrics, gate, memory = RewardMetrics(), Gate(), MemoryBudget(options.limits.max_memory)
        batcher = Batcher(
            self._reward,
            max_batch=options.max_batch,
            max_wait=options.max_wait,
            max_waiting=limits.max_waiting,
            on_batch=metrics.count_batch,
        )
        metrics.watch("waiting_images", "Images that wait for a pass", lambda: batcher.waiting)
        metrics.watch("requests_inside", "Requests under way", lambda: gate.inside)
        metrics.watch("memory_bytes", "Bytes that requests hold", lambda: memory.used)
        app = RewardApp(
            reward=self._reward,
            batcher=batcher,
            limits=limits,
            gate=gate,
            memory=memory,
            counters=metrics,
            on_failure=self._complain,
        )
        guard = Guard(
            app=app.fastapi(),
            host=options.host,
            token=options.token,
            limits=limits,
            gate=gate,
            memory=memory,
            on_refusal=metrics.count_refusal,
        )

        class Protocol(_Protocol):
            head_seconds = limits.header_seconds

        config = uvicorn.Config(
            guard,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.max_connections,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=2,
        )
        return _Server(config, gate, options.drain_seconds, self._say, greeting)


def _address(host: str, port: int) -> str:
    return f"http://{reachable(host)}:{port}"


class _Server(uvicorn.Server):
    """Goes on listening while it drains, so that new requests are told so."""

    def __init__(
        self,
        config: uvicorn.Config,
        gate: Gate,
        drain_seconds: float,
        say: Callable[[str], None],
        greeting: str,
    ) -> None:
        super().__init__(config)
        self._greeting = greeting
        self._gate = gate
        self._drain_seconds = drain_seconds
        self._say = say
        self._drained_by: float | None = None
        self._grace = self._open_until = 0.0

    async def startup(self, *args: Any, **kwargs: Any) -> None:
        await super().startup(*args, **kwargs)
        if self._greeting:  # whoever reads it may send signals, which are caught by now
            self._say(self._greeting)

    def drain(self) -> None:
        """Turn new requests away and end when those inside are answered."""
        self._gate.draining = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # The signal is not kept for uvicorn, which would raise it again when all is done: this
        # is the ordinary end of a server.
        if self._gate.draining:
            self.should_exit = self.force_exit = True
        self._grace = min(_GRACE_SECONDS, self._drain_seconds)
        self.drain()

    async def on_tick(self, counter: int) -> bool:
        if self._gate.draining:
            now = time.monotonic()
            if self._drained_by is None:
                self._drained_by = now + self._drain_seconds
                self._open_until = now + self._grace
                self._say(f"Draining: {self._gate.inside} requests are under way")
            if self._gate.inside == 0 and now >= self._open_until:
                self.should_exit = True
            elif now > self._drained_by:
                self._say(f"{self._gate.inside} requests were not answered in time")
                self.should_exit = self.force_exit = True
        return await super().on_tick(counter)


class _Protocol(H11Protocol):
    """HTTP/1.1 with a limit to the time in which a request's head arrives.

    Without one, a client that sends a byte now and then holds a connection for ever (slow loris).
    """

    head_seconds = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_timer()

    def _watch_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # the head is here
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
