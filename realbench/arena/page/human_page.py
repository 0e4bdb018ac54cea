"""The page on which a person says which of two images looks more like a photograph.

It is blind: whose the pictures are is known to the judge alone (``arena/judges/human.py``), and
the page gets nothing but bytes under random names.
"""

from __future__ import annotations

import asyncio
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from realbench.config.config_files import first_problem
from realbench.images import UnreadableImage

Choice = Literal["left", "right", "tie"]
Answer = Literal["done", "stale", "ended"]
"""``stale``: about a pair that is not the current one, as from a second window. ``ended``: nobody
waits for votes any more, so that it may not have been kept."""

SECONDS_TO_UNDO = 60.0
"""How long the last vote can be taken back before the session ends by itself."""


def _token() -> str:
    return secrets.token_urlsafe(12)


@dataclass(frozen=True, slots=True, eq=False)
class PagePicture:
    """A picture as the page gets it, under a name that tells nothing.

    Attributes:
        load: Reads what the browser is sent: bytes and media type, such as ``"image/jpeg"``;
            raises UnreadableImage.
        token: Its name in the page's addresses.
    """

    load: Callable[[], tuple[bytes, str]] = field(repr=False)
    token: str = field(default_factory=_token)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two pictures to choose from.

    Attributes:
        prompt: The prompt's text, if it is known.
        left: The picture called A on the page.
        right: The picture called B.
        token: What the page calls the pair.
    """

    prompt: str | None
    left: PagePicture
    right: PagePicture
    token: str = field(default_factory=_token)


@dataclass(slots=True, eq=False)
class Request:
    """Something that the person did, until :meth:`VotingSession.confirm`.

    Attributes:
        kind: ``"vote"``, ``"undo"`` or ``"finish"``.
        pair: What a vote is on, or what an undo takes back.
        choice: Of a vote.
        seconds: For how long the pair was looked at before the vote.
    """

    kind: Literal["vote", "undo", "finish"]
    pair: Pair | None = None
    choice: Choice = "tie"
    seconds: float = 0.0
    pair_token: str = ""
    answer: Future[Answer] = field(default_factory=Future)


class VotingSession:
    """The pairs ahead, those judged, and the requests in between. Safe to use from any thread.

    The page's requests come in on the server's thread and wait here; the judge, on a thread of its
    own, takes them one by one, and answers each only when the vote is on disk.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._ahead: deque[Pair] = deque()
        self._judged: list[Pair] = []
        self._n_done = 0
        self._total: int | None = None
        self._exhausted = False
        self._ended = False
        self._deadline: float | None = None

    # --- The judge's side ----------------------------------------------------------------------

    def offer(self, pair: Pair) -> None:
        """Add a pair at the end."""
        with self._lock:
            self._ahead.append(pair)

    def expect(self, n_done: int, n_left: int) -> None:
        """Say how many pairs were judged before this session, and how many it will have."""
        with self._lock:
            self._n_done, self._total = n_done, n_done + n_left

    def pass_over(self) -> None:
        """Say that one of the pairs that were expected will not come."""
        with self._lock:
            self._total = None if self._total is None else self._total - 1

    def exhaust(self) -> None:
        """Say that no more pairs will come."""
        with self._lock:
            self._exhausted = True

    @property
    def n_ahead(self) -> int:
        """How many pairs wait, the current one included."""
        with self._lock:
            return len(self._ahead)

    def next_request(self) -> Request | None:
        """Wait for what the person does next; None when it is over.

        It is over when the person says so, or :data:`SECONDS_TO_UNDO` after the last vote. What
        is about another pair than the current one is answered here and passed over.
        """
        while True:
            try:
                request = self._requests.get(timeout=self._seconds_left())
            except queue.Empty:
                return None
            if not request.answer.set_running_or_notify_cancel():
                continue
            if request.kind == "finish":
                self.end()
                request.answer.set_result("done")
                return None
            request.pair = self._pair_of(request)
            if request.pair is not None:
                return request
            request.answer.set_result("stale")

    def _seconds_left(self) -> float | None:
        with self._lock:
            if self._ahead or not self._exhausted:
                self._deadline = None
                return None
            now = time.monotonic()
            self._deadline = self._deadline or now + SECONDS_TO_UNDO
            return max(0.0, self._deadline - now)

    def _pair_of(self, request: Request) -> Pair | None:
        with self._lock:
            if request.kind == "undo":
                return self._judged[-1] if self._judged else None
            current = self._ahead[0] if self._ahead else None
            return current if current and current.token == request.pair_token else None

    def confirm(self, request: Request) -> None:
        """Say that a request is carried out and on disk: the page goes on to the next pair."""
        with self._lock:
            if request.kind == "vote":
                self._judged.append(self._ahead.popleft())
            else:
                self._ahead.appendleft(self._judged.pop())
        request.answer.set_result("done")

    def end(self, unconfirmed: Request | None = None) -> None:
        """Take no more requests, and tell those that still wait."""
        with self._lock:
            self._ended = True
        if unconfirmed is not None and not unconfirmed.answer.done():
            unconfirmed.answer.set_result("ended")
        while True:
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                return
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_result("ended")

    # --- The page's side -----------------------------------------------------------------------

    def submit(self, request: Request) -> Future[Answer]:
        """Hand a request to the judge; the answer comes when it is carried out."""
        with self._lock:
            if not self._ended:
                self._requests.put(request)
                return request.answer
        request.answer.set_result("ended")
        return request.answer

    def picture(self, token: str) -> PagePicture | None:
        """Return a picture of a pair that is ahead."""
        with self._lock:
            pairs = list(self._ahead)
        return next(
            (p for pair in pairs for p in (pair.left, pair.right) if p.token == token), None
        )

    def state(self) -> dict[str, Any]:
        """Return what the page shows, as plain JSON types.

        ``phase`` is ``voting``, ``waiting`` (the next pair is being read), ``last`` (all are
        judged, the last can be taken back) or ``ended``.
        """
        with self._lock:
            if self._ended:
                phase = "ended"
            elif self._ahead:
                phase = "voting"
            else:
                phase = "last" if self._exhausted else "waiting"
            left = SECONDS_TO_UNDO
            if self._deadline is not None:
                left = max(0.0, self._deadline - time.monotonic())
            return {
                "phase": phase,
                "complete": self._exhausted and not self._ahead,
                "session": len(self._judged),
                "done": self._n_done + len(self._judged),
                "total": self._total,
                "can_undo": bool(self._judged) and not self._ended,
                "closes_in": left if phase == "last" else None,
                "pairs": [_as_json(pair) for pair in self._ahead],
            }


def _as_json(pair: Pair) -> dict[str, Any]:
    return {
        "id": pair.token,
        "prompt": pair.prompt,
        "left": f"image/{pair.left.token}",
        "right": f"image/{pair.right.token}",
    }


QUESTION = "Which looks more like a real photograph?"
GUIDANCE = "Judge only that: not beauty, and not how well it fits the prompt."
"""What the page asks; a test holds it to it, as the judge's fingerprint depends on it."""

_STATIC = Path(__file__).with_name("static")
_MOST_VOTE_BYTES = 4096
_STATUS = {"done": 200, "stale": 409, "ended": 503}


class _Vote(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pair: str = Field(max_length=64)
    choice: Choice
    seconds: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False)


def human_page(session: VotingSession, token: str) -> FastAPI:
    """Return the page and its interface, all of it below ``/TOKEN/``.

    ``state`` tells what to show; ``vote``, ``undo`` and ``finish`` are answered once they are
    carried out, with the state that follows: 200, or 409 for a pair that is not the current one,
    or 503 when nobody takes votes any more. What is no vote is answered 422, or 413 where it is
    larger than any.

    Args:
        session: What is shown and what is done with the votes.
        token: The secret without which nothing is answered.
    """
    page = APIRouter(prefix=f"/{token}")

    @page.get("/state")
    def state() -> JSONResponse:
        return JSONResponse(session.state())

    @page.get("/image/{name}")
    def image(name: str) -> Response:
        picture = session.picture(name)
        if picture is None:
            return PlainTextResponse("this pair is no longer shown", 404)
        try:
            data, media_type = picture.load()
        except UnreadableImage as error:
            return PlainTextResponse(error.reason, 410)
        return Response(data, media_type=media_type)

    async def carry_out(request: Request) -> JSONResponse:
        answer = await asyncio.wrap_future(session.submit(request))
        return JSONResponse(session.state(), _STATUS[answer])

    @page.post("/vote")
    async def vote(request: HttpRequest) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_VOTE_BYTES:
                return PlainTextResponse("this is too large for a vote", 413)
        try:
            vote = _Vote.model_validate_json(body)
        except ValidationError as error:
            return PlainTextResponse(f"this is no vote: {first_problem(error, '')}", 422)
        return await carry_out(
            Request("vote", choice=vote.choice, seconds=vote.seconds, pair_token=vote.pair)
        )

    @page.post("/undo")
    async def undo() -> JSONResponse:
        return await carry_out(Request("undo"))

    @page.post("/finish")
    async def finish() -> JSONResponse:
        return await carry_out(Request("finish"))

    app = FastAPI(title="RealBench", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(page)
    app.mount(f"/{token}", StaticFiles(directory=_STATIC, html=True))
    app.add_exception_handler(404, _not_found)
    return app


async def _not_found(*_: object) -> Response:
    return PlainTextResponse("not here; open the address that realbench printed, whole", 404)
