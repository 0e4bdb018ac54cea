"""Stands before the reward server's app: who is answered, and how much may arrive how slowly."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from realbench.loopback import host_name, is_loopback
from realbench.reward.token import Token
from realbench.serve.reward_limits import Limits, MemoryBudget, Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HEALTH = "/health"
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_CLOSE = (b"connection", b"close")
_LINGER_SECONDS = 1.0


@dataclass
class Gate:
    """Lets requests in until the server drains, and counts those inside.

    Attributes:
        draining: Whether new ones are turned away.
        inside: Requests that were let in and are not answered yet.
    """

    draining: bool = False
    inside: int = 0

    @contextmanager
    def passage(self) -> Iterator[None]:
        """Count a request while it is inside.

        Raises:
            Refusal: the server drains.
        """
        if self.draining:
            raise _closing()
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


@dataclass(kw_only=True)
class Guard:
    """Checks a request's head before anything of its body is read.

    Refused are: whoever does not show the token (all but ``/health`` need it); web pages, which
    have no business here (``Origin``), and, where no token keeps them out, those that have given
    this machine a name of their own (DNS rebinding); new work while the server drains; bodies that
    are too large, or come too slowly.

    Attributes:
        app: What answers the rest.
        host: The address that is listened on.
        token: What a client has to show; None for nothing.
        limits: See there.
        gate: Counts those who were let in.
        memory: From which the bytes of bodies are taken until they are answered.
        on_refusal: Called with the kind of each refusal.
    """

    app: App
    host: str
    token: Token | None
    limits: Limits
    gate: Gate
    memory: MemoryBudget
    on_refusal: Callable[[str], None]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        exchange = _Exchange(headers, receive, send, self.limits, self.memory)
        try:
            self._check(scope, headers)
            if scope["method"] != "POST":
                await self.app(scope, exchange.receive, exchange.send)
                return
            with self.gate.passage():
                await self.app(scope, exchange.receive, exchange.send)
        except Refusal as refusal:
            self.on_refusal(refusal.kind)
            await answer_refusal(refusal, exchange.send, close=True)
        except asyncio.CancelledError:  # the server ends before this request did
            if not exchange.answering:
                await answer_refusal(_closing(), exchange.send, close=True)
        finally:
            exchange.close()

    def _check(self, scope: MutableMapping[str, Any], headers: dict[bytes, list[bytes]]) -> None:
        hosts = headers.get(b"host", [])
        # With a token, the name does not matter, and a proxy may keep that of its own address.
        only_local_names = self.token is None and is_loopback(self.host)
        if only_local_names and (
            len(hosts) != 1 or not is_loopback(host_name(hosts[0].decode("latin-1")))
        ):
            raise Refusal(403, "this server does not answer to that name", "foreign")
        site = headers.get(b"sec-fetch-site", [b"none"])
        if b"origin" in headers or site != [b"none"]:
            raise Refusal(403, "requests from web pages are refused", "foreign")
        if scope["path"] == HEALTH:
            return
        if self.token is not None:
            shown = headers.get(b"authorization", [])
            if len(shown) != 1 or not self.token.fits(shown[0]):
                raise Refusal(401, "show the token: Authorization: Bearer TOKEN", "token")
        length = headers.get(b"content-length", [b"0"])[0]
        if not length.isdigit() or int(length) > self.limits.max_body:
            raise _too_large(self.limits)


def _closing() -> Refusal:
    return Refusal(503, "the server is shutting down", "draining", retry_after=5)


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"more than {limits.max_body:,} bytes in one request", "too-large")


async def answer_refusal(refusal: Refusal, send: Send, *, close: bool = False) -> None:
    """Send a refusal as JSON, ``{"error": ...}``, with ``Retry-After`` where it has one."""
    body = json.dumps({"error": refusal.reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.retry_after is not None:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    if close:
        headers.append(_CLOSE)
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Exchange:
    """A request's body on its way in, measured, and its answer on the way out."""

    def __init__(
        self,
        headers: dict[bytes, list[bytes]],
        receive: Receive,
        send: Send,
        limits: Limits,
        memory: MemoryBudget,
    ) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._memory = memory
        self._start = time.monotonic()
        self._received = self._held = 0
        self.answering = False
        length = headers.get(b"content-length", [b"0"])[0]
        self._whole = length == b"0" and b"transfer-encoding" not in headers

    async def receive(self) -> Message:
        if self._whole:  # what still comes is that the client goes
            return await self._receive()
        end = self._start + self._limits.body_seconds + self._received / self._limits.body_rate
        try:
            message = await asyncio.wait_for(self._receive(), max(0, end - time.monotonic()))
        except TimeoutError:
            raise Refusal(408, "the request came too slowly", "slow") from None
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._received += size
            if self._received > self._limits.max_body:
                raise _too_large(self._limits)
            self._memory.take(size)
            self._held += size
            self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.answering = True
            headers = [*message.get("headers", []), *_HEADERS]
            if not self._whole and _CLOSE not in headers:
                headers.append(_CLOSE)
            message = {**message, "headers": headers}
        elif not self._whole and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        """Throw away what is still being sent, for a moment.

        A connection that is closed upon unread bytes is reset, and the client would lose the
        answer that tells it what was wrong.
        """
        end = time.monotonic() + _LINGER_SECONDS
        while (left := end - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(self._receive(), left)
            except TimeoutError:
                return
            if message["type"] != "http.request" or not message.get("more_body", False):
                return

    def close(self) -> None:
        self._memory.give_back(self._held)
