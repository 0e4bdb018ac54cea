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
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

from realbench.arena.judges.background import BackgroundLoop
from realbench.arena.judges.encoding import PictureEncoder, describe_encoding
from realbench.arena.judges.judge import BudgetSpentError, JudgeOptions, Judgment, Showing
from realbench.arena.judges.openai_answers import UnusableAnswerError, read_verdict
from realbench.arena.judges.openai_budget import Budget
from realbench.arena.judges.openai_dialect import Dialect
from realbench.arena.judges.openai_endpoint import Endpoint, EndpointError
from realbench.arena.judges.openai_settings import (
    OPENAI_URL,
    Redactor,
    read_key,
    read_settings,
    shown_url,
)
from realbench.arena.template import DEFAULT_TEMPLATE, load_template
from realbench.errors import RealBenchError
from realbench.images import UnreadableImage

LONGEST_RAW = 2000
"""Characters of an unusable answer that are kept."""

MOST_FAILURES = 10
"""Showings in a row that an endpoint may fail to answer before the run ends."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A judgment, and whether the endpoint, rather than the model, is what failed."""

    judgment: Judgment
    failed: bool = False


class OpenAIJudge:
    """Asks a model at a chat endpoint which of two pictures is the more realistic photograph.

    The key is read from the environment (``OPENAI_API_KEY``, or the variable that
    ``api_key_env`` names) and kept out of every text; with ``base_url`` none is needed. Without
    it, ``OPENAI_BASE_URL`` counts, and then OpenAI itself. The first showing is asked alone, to
    find out what the endpoint takes; then ``concurrency`` at a time.

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
        self._key = read_key(options.api_key_env, self._settings.base_url)
        self._redactor = Redactor(self._key, self._settings.base_url)
        self._template = load_template(options.template or DEFAULT_TEMPLATE)
        self._budget = Budget(
            self._settings.price_in, self._settings.price_out, self._settings.max_cost
        )
        self._response_format: str | None = None
        self._dialect = Dialect()
        if self._settings.base_url == OPENAI_URL:  # where new models take the new name alone
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
            "openai_version": version("openai"),
        }

    def judge(self, showings: Iterable[Showing]) -> Iterator[tuple[Showing, Judgment]]:
        """Judge showings; see :class:`realbench.arena.judges.judge.Judge`.

        Judgments that the endpoint failed to give are held back until it answers again, or all
        is done. When it fails :data:`MOST_FAILURES` times in a row, they are dropped and the run
        ends, so that its showings are still open when it is continued.

        Raises:
            RealBenchError: the endpoint cannot be used, or has stopped working.
            BudgetSpentError: ``max_cost`` is reached; what was under way has been yielded.
        """
        source = iter(showings)
        done: queue.SimpleQueue[tuple[Showing, Future[_Outcome]]] = queue.SimpleQueue()
        held: list[tuple[Showing, Judgment]] = []
        waiting: Showing | None = None
        stop: Exception | None = None
        budget = self._budget
        budget.pending = 0
        room = 1
        with self._session() as session:
            while True:
                while stop is None and budget.pending < room:
                    waiting = waiting or next(source, None)
                    if waiting is None or not budget.allows_another():
                        break
                    budget.pending += 1
                    future = session.begin(waiting)
                    future.add_done_callback(partial(_put, done, waiting))
                    waiting = None
                if not budget.pending:
                    break
                showing, future = done.get()
                budget.pending -= 1
                room = self._settings.concurrency
                try:
                    outcome = future.result()
                except RealBenchError as error:
                    stop = stop or error
                    session.stop()
                    continue
                if outcome.failed:
                    if stop is None:
                        held.append((showing, outcome.judgment))
                    if len(held) >= MOST_FAILURES:
                        stop = self._gave_up(outcome.judgment)
                        held.clear()
                        session.stop()
                    continue
                yield from held
                held.clear()
                yield showing, outcome.judgment
            if stop is None:
                yield from held
        if stop is not None:
            raise stop
        if waiting is not None:
            raise BudgetSpentError(budget.message())

    @contextmanager
    def _session(self) -> Iterator[_Session]:
        encoder = self._encoder()
        settings = self._settings
        endpoint = Endpoint(settings, self._template, self._key, self._redactor, self._dialect)
        try:
            with BackgroundLoop(at_end=endpoint.close) as loop:
                yield _Session(
                    loop, endpoint, encoder, self._budget, self._redactor, settings.answer_retries
                )
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

    def _encoder(self) -> PictureEncoder:
        return PictureEncoder(self._settings.image_size, self._settings.image_format)

    def _gave_up(self, last: Judgment) -> RealBenchError:
        return RealBenchError(
            f"{self._shown_url} has failed {MOST_FAILURES} times in a row, the last time with: "
            f"{last.reason}; what was judged is kept: run the same command again when it works"
        )


@dataclass(frozen=True, slots=True)
class _Session:
    """What one call of ``judge`` works with."""

    loop: BackgroundLoop
    endpoint: Endpoint
    encoder: PictureEncoder
    budget: Budget
    redactor: Redactor
    answer_retries: int

    def begin(self, showing: Showing) -> Future[_Outcome]:
        """Start to judge a showing."""
        return self.loop.submit(self._judge(showing))

    def stop(self) -> None:
        """Have nothing tried again."""
        self.loop.call(self.endpoint.stop)

    async def _judge(self, showing: Showing) -> _Outcome:
        clock = time.perf_counter()
        outcome = await self._outcome(showing)
        seconds = time.perf_counter() - clock
        return replace(outcome, judgment=replace(outcome.judgment, seconds=seconds))

    async def _outcome(self, showing: Showing) -> _Outcome:
        """Ask until there is a verdict, or no more is to be tried."""
        wording = self.endpoint.template.reasoned_wording(showing.prompt)
        encoding = [self.encoder.submit(picture) for picture in (showing.first, showing.second)]
        try:
            first, second = [await asyncio.wrap_future(future) for future in encoding]
        except UnreadableImage as error:
            return _Outcome(Judgment("invalid", reason=str(error)))
        usage: dict[str, float] = {}
        problem, raw = "", None
        attempts = 0
        for ask in range(1 + self.answer_retries):
            try:
                reply, requests = await self.endpoint.ask(wording, first, second)
            except EndpointError as error:
                attempts += error.requests
                return _Outcome(self._invalid(str(error), raw, attempts, usage), True)
            attempts += requests
            self._charge(reply.usage, usage)
            try:
                verdict, reason = read_verdict(reply, self.endpoint.template)
            except UnusableAnswerError as error:
                problem, raw = str(error), reply.refusal or reply.text
                if self.endpoint.is_stopped or ask == self.answer_retries:
                    break
                if not self.budget.allows_again():
                    problem += "; not asked again, since --max-cost is reached"
                    break
            else:
                reason = None if reason is None else self.redactor.text(reason)
                return _Outcome(Judgment(verdict, reason=reason, attempts=attempts, usage=usage))
        return _Outcome(self._invalid(problem, raw, attempts, usage))

    def _charge(self, counted: Mapping[str, float], usage: dict[str, float]) -> None:
        """Add one answer's tokens and cost to those of its showing."""
        cost = self.budget.charge(counted)
        for name, amount in (*counted.items(), *([("cost", cost)] if cost is not None else [])):
            usage[name] = usage.get(name, 0) + amount

    def _invalid(
        self, problem: str, raw: str | None, attempts: int, usage: dict[str, float]
    ) -> Judgment:
        return Judgment(
            "invalid",
            reason=self.redactor.line(problem),
            raw=None if raw is None else self.redactor.text(raw)[:LONGEST_RAW],
            attempts=max(1, attempts),
            usage=usage,
        )


def _put(
    done: queue.SimpleQueue[tuple[Showing, Future[_Outcome]]],
    showing: Showing,
    future: Future[_Outcome],
) -> None:
    done.put((showing, future))
