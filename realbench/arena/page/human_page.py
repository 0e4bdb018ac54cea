"""The page on which a person says which of two images looks more like a photograph.

It is blind: whose the pictures are is known to the judge alone (``arena/judges/human.py``), and
the page gets nothing but bytes under random names.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from realbench.arena.page.voting_session import Choice, Request, VotingSession
from realbench.images import UnreadableImage

QUESTION = "Which looks more like a real photograph?"
GUIDANCE = "Judge only that: not beauty, and not how well it fits the prompt."
"""What the page asks; a test holds it to it, as the judge's fingerprint depends on it."""

_STATIC = Path(__file__).with_name("static")
_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "zoom.js": ("zoom.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
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

    for name, (file, media_type) in _FILES.items():
        page.add_api_route(f"/{name}", _static(file, media_type), methods=["GET"])

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
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = f" ({'.'.join(map(str, first['loc']))})" if first["loc"] else ""
            return PlainTextResponse(f"this is no vote: {first['msg']}{where}", 422)
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
    app.add_exception_handler(404, _not_found)
    return app


def _static(file: str, media_type: str) -> Any:
    content = (_STATIC / file).read_bytes()

    async def send() -> Response:
        return Response(content, media_type=media_type)

    return send


async def _not_found(*_: object) -> Response:
    return PlainTextResponse("not here; open the address that realbench printed, whole", 404)
