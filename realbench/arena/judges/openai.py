"""The ``openai:MODEL`` judge: a vision-language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from anyio.from_thread import BlockingPortal, start_blocking_portal

from realbench.arena.judges.judge import BudgetSpentError, JudgeOptions, Judgment, Showing
from realbench.arena.judges.openai_answers import UnusableAnswerError, read_verdict
from realbench.arena.judges.openai_endpoint import Dialect, Endpoint, EndpointError
from realbench.arena.judges.openai_settings import (
    Redactor,
    Settings,
    account_headers,
    is_openai,
    read_key,
    read_settings,
)
from realbench.arena.judges.pictures import PictureEncoder, describe_encoding
from realbench.arena.template import DEFAULT_TEMPLATE, load_template
from realbench.errors import RealBenchError, UsageError
from realbench.http_client import shown_url
from realbench.images import UnreadableImage

LONGEST_RAW = 2000
"""Characters of an unusable answer that are kept."""

MOST_FAILURES = 10
"""Showings in a row that an endpoint may fail to answer before the run ends."""

_TOKENS_A_PRICE = 1_000_000
# Answers without a count of tokens after which it is clear that the endpoint gives none.
_MOST_UNCOUNTED = 3


class _Session(NamedTuple):
    """What one call of ``judge`` works with."""

    portal: BlockingPortal
    endpoint: Endpoint
    encoder: PictureEncoder


class _Timed(NamedTuple):
    """When a showing was asked, or the endpoint failed to judge it."""

    showing: Showing
    time: float  # by the performance counter


class OpenAIJudge:
    """Asks a model at a chat endpoint which of two pictures is the more realistic photograph.

    The endpoint is at ``base_url``, else at ``OPENAI_BASE_URL``, else OpenAI's. The key is read
    from the environment and kept out of every text: for OpenAI itself from ``OPENAI_API_KEY``,
    for any server from the variable that ``api_key_env`` names; others get none. The first
    showing is asked alone, to find out what the endpoint takes; then ``concurrency`` at a time.

    Args:
        model: The model's name at the endpoint.
        options: See :class:`JudgeOptions`; every None takes this judge's default.

    Raises:
        UsageError: an option is not valid, or there is no key.
    """

    orders = 2
    is_vlm = True

    def __init__(self, model: str, options: JudgeOptions | None = None) -> None:
        options = options or JudgeOptions()
        self._settings = read_settings(model, options)
        self._max_pixels = options.max_pixels
        self._key = read_key(self._settings)
        account_headers(self._settings.base_url)  # said now, where they cannot be sent
        self._redactor = Redactor(self._key, self._settings.base_url)
        self._template = load_template(options.template or DEFAULT_TEMPLATE)
        self._budget = Budget(self._settings)
        self._response_format: str | None = None
        self._dialect = Dialect()
        if is_openai(self._settings.base_url):  # where new models take the new name alone
            limits = self._dialect.token_limits
            self._dialect = replace(self._dialect, token_limits=limits[::-1])

    def __repr__(self) -> str:
        return f"OpenAIJudge({self._settings.model!r}, base_url={self._shown_url!r})"

    @property
    def name(self) -> str:
        return f"openai:{self._settings.model}"

    @property
    def fingerprint(self) -> str:
        """Hex digest of model, template, images and temperature; the endpoint's place is not in it.

        A local server may come back at another port, and is still the same judge.
        """
        decisive = {
            "kind": "openai",
            "model": self._settings.model,
            "template": self._template.sha256,
            "images": self._images(),
            "temperature": self._settings.temperature,
        }
        text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def spent(self) -> float:
        """What this judge's answers have cost so far, in the currency of the prices."""
        return self._budget.spent

    def describe(self) -> dict[str, Any]:
        """Return the settings for ``run.json``.

        ``response_format`` is the kind of structured output that the endpoint took, None until it
        has answered.
        """
        return {
            "kind": "openai",
            "template": self._template.describe(),
            "images": self._images(),
            "response_format": self._response_format,
            **self._settings.model_dump(mode="json", exclude={"image_size", "image_format"}),
            "base_url": self._shown_url,
        }

    def judge(self, showings: Iterable[Showing]) -> Iterator[tuple[Showing, Judgment]]:
        """Judge showings; see :class:`realbench.arena.judges.judge.Judge`.

        Judgments that the endpoint failed to give are held back until it answers what was asked
        after them, or all is done. When it fails :data:`MOST_FAILURES` times in a row, they are
        dropped and the run ends, so that its showings are still open when it is continued.

        Raises:
            RealBenchError: the endpoint cannot be used, or has stopped working.
            BudgetSpentError: ``max_cost`` is reached; what was under way has been yielded.
        """
        source = iter(showings)
        asked: dict[Future[tuple[Judgment, bool]], _Timed] = {}
        done: queue.SimpleQueue[Future[tuple[Judgment, bool]]] = queue.SimpleQueue()
        held: list[tuple[_Timed, Judgment]] = []
        failures = 0
        waiting: Showing | None = None
        stop: Exception | None = None
        budget = self._budget
        room = 1
        with self._session() as session:
            while True:
                budget.pending = len(asked)
                while stop is None and budget.pending < room:
                    waiting = waiting or next(source, None)
                    if waiting is None or not budget.allows_another():
                        break
                    future = session.portal.start_task_soon(self._judge, session, waiting)
                    asked[future] = _Timed(waiting, time.perf_counter())
                    waiting = None
                    future.add_done_callback(done.put)
                    budget.pending = len(asked)
                if not asked:
                    break
                future = done.get()
                showing, start = asked.pop(future)
                budget.pending = len(asked)
                room = self._settings.concurrency
                try:
                    judgment, failed = future.result()
                except RealBenchError as error:
                    stop = stop or error
                    session.portal.call(session.endpoint.stop)
                    continue
                if not failed:
                    failures = 0
                    # An answer that was under way when others failed says nothing of the endpoint
                    # after them.
                    while held and held[0][0].time <= start:
                        failed_one, invalid = held.pop(0)
                        yield failed_one.showing, invalid
                    yield showing, judgment
                elif stop is None:
                    held.append((_Timed(showing, time.perf_counter()), judgment))
                    failures += 1
                    if failures >= MOST_FAILURES:
                        stop = self._gave_up(judgment)
                        session.portal.call(session.endpoint.stop)
            if stop is None:
                yield from ((failure.showing, invalid) for failure, invalid in held)
        if stop is not None:
            raise stop
        if waiting is not None:
            raise BudgetSpentError(budget.message())

    @contextmanager
    def _session(self) -> Iterator[_Session]:
        """Open the endpoint in an event loop of its own: the caller's must not be blocked."""
        settings = self._settings
        encoder = PictureEncoder(
            settings.image_size, settings.image_format, max_pixels=self._max_pixels
        )
        endpoint = Endpoint(settings, self._template, self._key, self._redactor, self._dialect)
        try:
            with (
                start_blocking_portal(name="judge requests") as portal,
                portal.wrap_async_context_manager(endpoint.client),
            ):
                yield _Session(portal, endpoint, encoder)
        finally:
            encoder.close()
            self._dialect = endpoint.dialect
            if endpoint.proven:
                self._response_format = endpoint.dialect.response_format

    @property
    def _shown_url(self) -> str:
        return shown_url(self._settings.base_url)

    def _images(self) -> dict[str, Any]:
        return describe_encoding(self._settings.image_size, self._settings.image_format)

    def _gave_up(self, last: Judgment) -> RealBenchError:
        return RealBenchError(
            f"{self._shown_url} has failed {MOST_FAILURES} times in a row, the last time with: "
            f"{last.reason}; what was judged is kept: run the same command again when it works"
        )

    async def _judge(self, session: _Session, showing: Showing) -> tuple[Judgment, bool]:
        """Return a judgment, and whether the endpoint, rather than the model, is what failed."""
        clock = time.perf_counter()
        judgment, failed = await self._outcome(session, showing)
        return replace(judgment, seconds=time.perf_counter() - clock), failed

    async def _outcome(self, session: _Session, showing: Showing) -> tuple[Judgment, bool]:
        """Ask until there is a verdict, or no more is to be tried."""
        wording = self._template.reasoned_wording(showing.prompt)
        encoding = [session.encoder.submit(picture) for picture in (showing.first, showing.second)]
        try:
            first, second = [await asyncio.wrap_future(future) for future in encoding]
        except UnreadableImage as error:
            return Judgment("invalid", reason=str(error)), False
        usage: dict[str, float] = {}
        problem, raw = "", None
        attempts, retries = 0, self._settings.answer_retries
        for ask in range(1 + retries):
            try:
                reply, requests = await session.endpoint.ask(wording, first, second)
            except EndpointError as error:
                return self._invalid(str(error), raw, attempts + error.requests, usage), True
            attempts += requests
            self._charge(reply.usage, usage)
            try:
                verdict, reason = read_verdict(reply, self._template)
            except UnusableAnswerError as error:
                problem, raw = str(error), reply.refusal or reply.text
                if session.endpoint.is_stopped or ask == retries:
                    break
                if not self._budget.allows_again():
                    problem += "; not asked again, since --max-cost is reached"
                    break
            else:
                reason = None if reason is None else self._redactor.text(reason)
                return Judgment(verdict, reason=reason, attempts=attempts, usage=usage), False
        return self._invalid(problem, raw, attempts, usage), False

    def _charge(self, counted: Mapping[str, float], usage: dict[str, float]) -> None:
        cost = self._budget.charge(counted)
        for name, amount in (*counted.items(), *([("cost", cost)] if cost is not None else [])):
            usage[name] = usage.get(name, 0) + amount

    def _invalid(
        self, problem: str, raw: str | None, attempts: int, usage: dict[str, float]
    ) -> Judgment:
        return Judgment(
            "invalid",
            reason=self._redactor.line(problem),
            raw=None if raw is None else self._redactor.text(raw)[:LONGEST_RAW],
            attempts=max(1, attempts),
            usage=usage,
        )


class Budget:
    """Adds up costs and keeps them within a limit, as far as a mean can foresee them.

    Attributes:
        spent: What was spent so far.
        pending: Showings that are under way; each may have an answer in the making.

    Raises:
        UsageError: only one price is given, or a limit without prices.
    """

    def __init__(self, settings: Settings) -> None:
        price_in, price_out = settings.price_in, settings.price_out
        if (price_in is None) != (price_out is None):
            raise UsageError("--price-in and --price-out belong together: give both (0 is allowed)")
        if settings.max_cost is not None and not (price_in or price_out):
            raise UsageError(
                "--max-cost needs prices: give --price-in and --price-out per million tokens"
            )
        self.spent = 0.0
        self._prices = None if price_in is None or price_out is None else (price_in, price_out)
        self._max_cost = settings.max_cost
        self.pending = 0
        self._charged = 0
        self._dearest = 0.0
        self._uncounted = 0

    def charge(self, usage: Mapping[str, float]) -> float | None:
        """Add what an answer cost, and return it; None where no price or no count is known.

        With a limit, an answer whose tokens were not counted is charged like the dearest one.

        Raises:
            RealBenchError: there is a limit, but the endpoint counts no tokens.
        """
        if self._prices is None:
            return None
        self._charged += 1
        if "input_tokens" in usage and "output_tokens" in usage:
            price_in, price_out = self._prices
            cost = usage["input_tokens"] * price_in + usage["output_tokens"] * price_out
            cost /= _TOKENS_A_PRICE
            self._dearest = max(self._dearest, cost)
            self.spent += cost
            return cost
        self._uncounted += 1
        if self._max_cost is not None and not self._dearest and self._uncounted >= _MOST_UNCOUNTED:
            raise RealBenchError(
                "the endpoint does not say how many tokens it used, so that --max-cost cannot be "
                "kept: give --max-votes instead"
            )
        if self._max_cost is not None:
            self.spent += self._dearest
        return None

    def allows_another(self) -> bool:
        """Whether one more showing can be paid, besides those that are under way.

        Answers whose cost is not known yet are taken to cost the mean of the others.
        """
        return self._allows(self.pending + 1)

    def allows_again(self) -> bool:
        """Whether one of the showings that are under way can be asked once more."""
        return self._allows(self.pending)

    def _allows(self, answers: int) -> bool:
        if self._max_cost is None:
            return True
        mean = self.spent / self._charged if self._charged else 0.0
        # Sums of prices such as 0.1 are not exact.
        most = self._max_cost * (1 + 1e-9)
        return self.spent < self._max_cost and self.spent + answers * mean <= most

    def message(self) -> str:
        """Say in one line that the limit is reached."""
        mean = ""
        if self._charged:
            mean = f", and an answer costs about {self.spent / self._charged:.4g}"
        return (
            f"--max-cost {self._max_cost:g} is reached: {self.spent:.4g} is spent{mean}; run the "
            "same command again to go on"
        )
