"""The reward over HTTP: its routes, and how a request becomes rewards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from realbench.errors import UsageError
from realbench.reward.reward import WeightedReward
from realbench.scoring.layout import decoding_threads
from realbench.serve.reward_batching import Batcher, Threads, Values
from realbench.serve.reward_form import read_form
from realbench.serve.reward_guard import HEALTH, Gate
from realbench.serve.reward_images import SentImages
from realbench.serve.reward_limits import Limits, MemoryBudget, RateLimit, Refusal
from realbench.serve.reward_metrics import RewardMetrics
from realbench.version import __version__

REWARD, METRICS = "/v1/reward", "/metrics"
_CLIENT_GONE = 499  # as nginx logs it; nobody is there to read it


@dataclass(eq=False)
class RewardApp:
    """What is behind the routes.

    Attributes:
        reward: What is served.
        batcher: Which calls it.
        limits: See there.
        gate: Whether the server drains.
        memory: From which decoded images are taken.
        counters: Of what is done.
        on_failure: Called with one line when the reward fails.
    """

    reward: WeightedReward
    batcher: Batcher
    limits: Limits
    gate: Gate
    memory: MemoryBudget
    counters: RewardMetrics
    on_failure: Callable[[str], None]

    def __post_init__(self) -> None:
        self._rate = RateLimit(self.limits.rate, self.limits.max_images)
        count = decoding_threads()
        # Files that take seconds have threads of their own, and only other such files wait.
        self._quick, self._slow = Threads(count, "decode"), Threads(count, "decode-slow")

    def fastapi(self) -> FastAPI:
        """Return the app: ``/v1/reward``, ``/health`` and ``/metrics``."""
        app = FastAPI(title="RealBench reward", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_api_route(REWARD, self.describe, methods=["GET"])
        app.add_api_route(REWARD, self.answer, methods=["POST"])
        app.add_api_route(HEALTH, self.health, methods=["GET", "HEAD"])
        app.add_api_route(METRICS, self.metrics, methods=["GET"])
        app.add_exception_handler(404, _unknown)
        app.add_exception_handler(405, _unknown)
        return app

    async def describe(self) -> JSONResponse:
        return JSONResponse(
            {"version": __version__, **self.reward.describe(), "limits": self.limits.describe()}
        )

    async def health(self) -> JSONResponse:
        if self.gate.draining:
            return JSONResponse({"status": "draining"}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(self) -> Response:
        return Response(self.counters.text(), headers={"content-type": self.counters.content_type})

    async def answer(self, request: Request) -> Response:
        start = time.monotonic()
        images = 0
        try:
            values = await self._values(request)
        except Refusal as refusal:
            self.counters.count_refusal(refusal.kind)
            answer: Response = _error(refusal.status, refusal.reason, refusal.retry_after)
        except ClientDisconnect:
            answer = Response(status_code=_CLIENT_GONE)
        except UsageError as error:  # such as a prompt that has no reference image
            answer = _error(422, str(error))
        except Exception as error:
            self.on_failure(f"the reward failed: {' '.join(str(error).split())[:500]}")
            answer = _error(500, "the reward failed; the server's messages say why")
        else:
            total = self.reward.total(values)
            images = len(total)
            answer = JSONResponse(
                {
                    # A float32 is exact as the number of double precision that JSON has.
                    "reward": total.tolist(),
                    "components": {name: array.tolist() for name, array in values.items()},
                    "weights": self.reward.weights,
                }
            )
        self.counters.count_request(answer.status_code, time.monotonic() - start, images)
        return answer

    async def _values(self, request: Request) -> Values:
        content_type = request.headers.get("content-type", "")
        form = await read_form(content_type, request.stream(), self.limits)
        sent = SentImages(form.images, self.limits)
        if not sent.count:
            raise Refusal(422, "no images were sent", "form")
        prompts = form.prompts * sent.count if len(form.prompts) == 1 else form.prompts
        if len(prompts) != sent.count:
            raise Refusal(
                422,
                f"images: {sent.count}, prompts: {len(prompts)}; send one for each image, or one",
                "form",
            )
        self._rate.take(request.client.host if request.client else "", sent.count)
        decoded = 3 * sent.pixels
        self.memory.take(decoded)
        try:
            images = []
            for n in range(len(form.images)):  # one by one, so that requests take turns
                threads = self._slow if sent.slow(n) else self._quick
                images += await threads.run(partial(sent.decode, n))
            form.images.clear()
            return await _while_there(request, self.batcher(images, prompts))
        finally:
            self.memory.give_back(decoded)


async def _while_there(request: Request, work: Coroutine[Any, Any, Values]) -> Values:
    """Return what ``work`` does, unless the client goes away first."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


def _error(status: int, reason: str, retry_after: int | None = None) -> JSONResponse:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return JSONResponse({"error": reason}, status, headers)


async def _unknown(_: Request, error: Exception) -> JSONResponse:
    status = getattr(error, "status_code", 404)
    return _error(status, f"there is POST {REWARD}, GET {REWARD}, {HEALTH} and {METRICS}")
