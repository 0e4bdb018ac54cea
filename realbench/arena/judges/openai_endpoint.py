"""One chat endpoint: sends requests, retries what may pass, and tells what cannot."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import SecretStr

from realbench.arena.judges.openai_answers import Reply, UnusableAnswerError, read_reply
from realbench.arena.judges.openai_dialect import Dialect
from realbench.arena.judges.openai_settings import Redactor, Settings, shown_url
from realbench.arena.template import Template, Wording
from realbench.errors import RealBenchError

if TYPE_CHECKING:
    from openai import APIError, APIStatusError

LONGEST_PAUSE = 600.0
"""Seconds of ``Retry-After`` that are waited; an endpoint that asks for more ends the run."""

_LONGEST_BACKOFF = 60.0
_CONNECT_SECONDS = 10.0
_MOST_REPLY_BYTES = 8 * 2**20
# Some servers repeat the whole request, pictures included, after what is wrong with it.
_MOST_SAID = 2000
# What is sent where there is no key, since the client wants one.
_NO_KEY = "none"


class EndpointError(Exception):
    """A request failed for good, or too often; ``str()`` is one line that says why."""

    def __init__(self, reason: str, requests: int) -> None:
        super().__init__(reason)
        self.requests = requests


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a request gave no reply, in words that hold no secret.

    ``kind`` says what to do: give up the run, give up the request, try again, or try again with
    fewer optional parts. ``pause`` is what the server asks to wait; ``said`` is all it says.
    """

    kind: Literal["fatal", "refused", "transient", "part refused"]
    reason: str
    pause: float | None = None
    said: str = ""


class Endpoint:
    """An OpenAI-compatible chat endpoint; for use within one event loop.

    Requests wait together where the server tells one of them to (``Retry-After``).

    Attributes:
        template: The judge's instructions.
        dialect: The optional parts of a request that the endpoint takes, as far as is known.
        proven: Whether it has answered a request.
    """

    def __init__(
        self,
        settings: Settings,
        template: Template,
        key: SecretStr | None,
        redactor: Redactor,
        dialect: Dialect,
    ) -> None:
        from openai import AsyncOpenAI, Timeout

        self.dialect = dialect
        self.proven = False
        self.template = template
        self._settings = settings
        self._redactor = redactor
        self._shown = shown_url(settings.base_url)
        self._not_before = 0.0
        self._stopped = asyncio.Event()
        address = urlsplit(settings.base_url)
        self._client = AsyncOpenAI(
            api_key=key.get_secret_value() if key else _NO_KEY,
            base_url=urlunsplit((*address[:3], "", "")),
            default_query=dict(parse_qsl(address.query)),
            timeout=Timeout(settings.timeout, connect=min(settings.timeout, _CONNECT_SECONDS)),
            max_retries=0,  # its waiting could not be interrupted, nor shared between requests
        )

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    async def close(self) -> None:
        await self._client.close()

    def stop(self) -> None:
        """Let requests that are under way finish, but make no further one."""
        self._stopped.set()

    async def ask(self, wording: Wording, first: str, second: str) -> tuple[Reply, int]:
        """Show two pictures (data URLs); return the reply and how many requests it took.

        Requests that an endpoint refused for one of their optional parts are not counted.

        Raises:
            EndpointError: this request failed for good, or too often.
            RealBenchError: no request can succeed.
        """
        dialect = self.dialect
        requests = 0
        while True:
            await self._wait_for_permission(requests)
            outcome = await self._send(dialect, wording, first, second)
            if isinstance(outcome, Reply):
                self.proven = True
                self.dialect = dialect
                return outcome, requests + 1
            if outcome.kind == "fatal":
                raise RealBenchError(outcome.reason)
            if outcome.kind == "part refused":
                simpler = dialect.without_refused(outcome.said, proven=self.proven)
                if simpler is not None:
                    dialect = simpler
                    continue
            requests += 1
            if outcome.kind != "transient" or requests > self._settings.max_retries:
                raise EndpointError(outcome.reason, requests)
            await self._pause(requests, outcome)

    async def _wait_for_permission(self, requests: int) -> None:
        loop = asyncio.get_running_loop()
        while (wait := self._not_before - loop.time()) > 0:
            await self._sleep(wait, requests)

    async def _pause(self, failures: int, failure: _Failure) -> None:
        """Wait before the next try: as long as the server says, or twice as long each time.

        Randomness keeps requests that failed together from coming together again.
        """
        backoff = min(_LONGEST_BACKOFF, self._settings.backoff * 2.0 ** (failures - 1))
        if failure.pause is None:
            await self._sleep(backoff * random.uniform(0.5, 1.0), failures)
            return
        if failure.pause > LONGEST_PAUSE:
            raise RealBenchError(
                f"{self._shown} asks to wait {failure.pause:.0f} s ({failure.reason}): run the same"
                " command again after that; what was judged is kept"
            )
        resume = asyncio.get_running_loop().time() + failure.pause
        self._not_before = max(self._not_before, resume)
        await self._sleep(failure.pause + backoff * random.uniform(0.0, 0.25), failures)

    async def _sleep(self, seconds: float, requests: int) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)
        if self.is_stopped:
            raise EndpointError("the run is stopping", requests)

    async def _send(
        self, dialect: Dialect, wording: Wording, first: str, second: str
    ) -> Reply | _Failure:
        """Make one request.

        Errors are turned into values here, so that no exception of the client, whose request
        holds the key and whose message is the server's, hangs on to one that a user sees.
        """
        from openai import APIError, APIStatusError

        settings = self._settings
        optional = dialect.arguments(
            self.template,
            temperature=settings.temperature,
            max_output_tokens=settings.max_output_tokens,
        )
        try:
            # The client's timeout is for each piece of an answer; this one is for all of it.
            async with asyncio.timeout(settings.timeout):
                body = await self._body(dialect.messages(wording, first, second), optional)
        except TimeoutError:
            return self._timed_out()
        except APIStatusError as error:
            return self._refusal(error)
        except APIError as error:
            return self._no_connection(error)
        except _TooLongError:
            return _Failure("transient", f"the reply has more than {_MOST_REPLY_BYTES:,} bytes")
        except Exception as error:  # of the HTTP library, whose name differs between versions
            return _Failure("transient", f"the connection broke ({self._name(error)})")
        try:
            return read_reply(body)
        except UnusableAnswerError as error:
            return _Failure("transient", self._redactor.line(f"{self._shown}: {error}"))

    async def _body(self, messages: Any, optional: dict[str, Any]) -> bytes:
        """Return the bytes of a reply, as many as a reply may have."""
        body = bytearray()
        completions = self._client.chat.completions.with_streaming_response
        async with completions.create(
            model=self._settings.model, messages=messages, **optional
        ) as response:
            async for piece in response.iter_bytes():
                body += piece
                if len(body) > _MOST_REPLY_BYTES:
                    raise _TooLongError
        return bytes(body)

    def _timed_out(self) -> _Failure:
        return _Failure("transient", f"no answer within {self._settings.timeout:g} s")

    def _no_connection(self, error: APIError) -> _Failure:
        from openai import APITimeoutError

        if isinstance(error, APITimeoutError):
            return self._timed_out()
        cause = error.__cause__ or error
        if type(cause).__name__ == "ConnectError" and not self.proven:
            return _Failure(
                "fatal",
                f"cannot reach {self._shown} ({self._name(cause)}): "
                "start the server, or correct --base-url",
            )
        return _Failure("transient", f"the connection failed ({self._name(cause)})")

    def _refusal(self, error: APIStatusError) -> _Failure:
        status, model = error.status_code, self._settings.model
        said = _server_text(error)[:_MOST_SAID]
        line = self._redactor.line(said)
        reason = f"HTTP {status}" + (f": {line}" if line else "")
        if status == 401:
            # What the server says here is often a part of the key.
            return _Failure(
                "fatal",
                f"{self._shown} does not accept the key (HTTP 401): "
                f"set a valid one in {self._settings.api_key_env}",
            )
        if status == 402 or (status == 429 and error.code == "insufficient_quota"):
            return _Failure(
                "fatal", f"{self._shown} wants to be paid ({reason}): check the account"
            )
        if status == 403 and not self.proven:
            return _Failure(
                "fatal",
                f"{self._shown} forbids the use of {model} with the key in "
                f"{self._settings.api_key_env} ({reason}): check what it is allowed",
            )
        if status == 404 and not self.proven:
            return _Failure(
                "fatal",
                f"{self._shown} has no model {model!r}, or no chat endpoint ({reason}): "
                "correct the model's name or --base-url, which mostly ends in /v1",
            )
        if status in (408, 409, 425, 429) or (status >= 500 and status != 501):
            return _Failure("transient", reason, retry_after(error.response.headers))
        if status in (400, 415, 422, 501):
            return _Failure("part refused", reason, said=said)
        return _Failure("refused", reason)

    def _name(self, error: BaseException) -> str:
        said = self._redactor.line(str(error))[:200]
        return f"{type(error).__name__}: {said}" if said else type(error).__name__


class _TooLongError(Exception):
    pass


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, or None where it does not.

    ``Retry-After`` is a number of seconds or an HTTP date (RFC 9110, 10.2.3); the number of
    milliseconds in ``retry-after-ms``, which OpenAI sends beside it, is more exact and goes first.
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        if not math.isnan(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _server_text(error: APIStatusError) -> str:
    """Return what a server says of an error, and the parameter that it names."""
    body = error.body
    if isinstance(body, Mapping):
        said = body.get("message") or body.get("detail") or body.get("error") or body
        param = f" (parameter: {error.param})" if error.param else ""
        return f"{said}{param}"
    return body if isinstance(body, str) else ""
