"""One chat endpoint: sends requests, retries what may pass, and tells what cannot.

Which optional parts of a request it takes is learnt from what it refuses (:class:`Dialect`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from realbench.arena.judges.openai_answers import Reply, ServerError, read_error, read_reply
from realbench.arena.judges.openai_settings import (
    CHAT_PATH,
    KEY_VARIABLE,
    OPENAI_HOST,
    Redactor,
    Settings,
    account_headers,
)
from realbench.arena.template import Template, Wording
from realbench.errors import RealBenchError
from realbench.http_client import connection_options, redirect_refusal, retry_after, shown_url
from realbench.text import printable

LONGEST_PAUSE = 600.0
"""Seconds of ``Retry-After`` that are waited; an endpoint that asks for more ends the run."""

_LONGEST_BACKOFF = 60.0
_CONNECT_SECONDS = 10.0
_MOST_REPLY_BYTES = 8 * 2**20
# Some servers repeat the whole request, pictures included, after what is wrong with it.
_MOST_SAID = 2000

# What servers call the optional parts when they refuse one. A chat template that fails does so
# over a role, whatever of its source the error repeats.
_ROLE_FIELD = re.compile(
    r"messages?\W{0,3}0\W{0,3}role|jinja|chat.?template|template.?error|raise_exception"
)
_FORMAT_WORDS = re.compile(
    r"response.?(format|schema|mime)|json.?(schema|object|mode)|structured|schema|guided|grammar"
)
_LIMIT_WORDS = re.compile(r"max.?((output|completion).?)?tokens")
_ROLE_WORDS = re.compile(r"\broles?\b|(system|developer).{0,20}(message|instruction|prompt)")


@dataclass(frozen=True, slots=True)
class Dialect:
    """The optional parts of a request; each can be refused, and what is left is tried then.

    Attributes:
        formats: Kinds of ``response_format`` that are left to try, best first; with none left,
            the instruction alone asks for JSON.
        token_limits: Names left to try for the limit of output tokens.
        temperature: Whether a temperature is sent; some reasoning models take none.
        system_role: Whether there is a system message; else its text opens the user's.
    """

    formats: tuple[str, ...] = ("json_schema", "json_object")
    token_limits: tuple[str, ...] = ("max_tokens", "max_completion_tokens")
    temperature: bool = True
    system_role: bool = True

    @property
    def response_format(self) -> str:
        """The kind of structured output in use, or ``"none"``."""
        return self.formats[0] if self.formats else "none"

    def without_refused(self, refusal: str, *, guess: bool) -> Dialect | None:
        """Return the dialect to try after a refusal, or None where it names no part of this one.

        Args:
            refusal: The server's text, and the name of the parameter if it gave one.
            guess: Whether a refusal that names nothing is taken for one of the response format,
                the part that is refused most often, and then of the system message.
        """
        text = refusal.casefold()
        without_format = replace(self, formats=self.formats[1:])
        without_system = replace(self, system_role=False)
        if self.system_role and _ROLE_FIELD.search(text):
            return without_system
        if self.formats and _FORMAT_WORDS.search(text):
            return without_format
        if self.token_limits and _LIMIT_WORDS.search(text):
            return replace(self, token_limits=self.token_limits[1:])
        if self.temperature and "temperature" in text:
            return replace(self, temperature=False)
        if self.system_role and _ROLE_WORDS.search(text):
            return without_system
        if guess and self.formats:
            return without_format
        return without_system if guess and self.system_role else None

    def arguments(self, template: Template, settings: Settings) -> dict[str, Any]:
        """Return the optional arguments of a chat completion."""
        found: dict[str, Any] = {}
        if self.response_format == "json_schema":
            schema = {"name": "judgment", "strict": True, "schema": template.answer_schema()}
            found["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.response_format == "json_object":
            found["response_format"] = {"type": "json_object"}
        if self.token_limits:
            found[self.token_limits[0]] = settings.max_output_tokens
        if self.temperature:
            found["temperature"] = settings.temperature
        return found

    def messages(self, wording: Wording, first: str, second: str) -> list[dict[str, Any]]:
        """Return the messages that show two pictures, given as data URLs, in this order."""
        opening = wording.before_first
        if not self.system_role:
            opening = f"{wording.system}\n\n{opening}"
        content = [
            {"type": "text", "text": opening},
            {"type": "image_url", "image_url": {"url": first}},
            {"type": "text", "text": wording.before_second},
            {"type": "image_url", "image_url": {"url": second}},
            {"type": "text", "text": wording.question},
        ]
        system = [{"role": "system", "content": wording.system}] if self.system_role else []
        return [*system, {"role": "user", "content": content}]


class EndpointError(Exception):
    """A request failed for good, or too often; ``str()`` is one line that says why."""

    def __init__(self, reason: str, requests: int) -> None:
        super().__init__(reason)
        self.requests = requests


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a request gave no reply, in words that hold no secret.

    ``kind`` says what to do: give up the run, give up the request, or try again. ``pause`` is
    what the server asks to wait; ``said`` is what it says where it may refuse a part of the
    request, without which it is tried before anything else; ``guess`` is of
    :meth:`Dialect.without_refused`.
    """

    kind: Literal["fatal", "refused", "transient"]
    reason: str
    pause: float | None = None
    said: str | None = None
    guess: bool = False


class Endpoint:
    """An OpenAI-compatible chat endpoint; for use within one event loop.

    Requests wait together where the server tells one of them to (``Retry-After``).

    Attributes:
        client: Of HTTP, to be opened and closed in that loop.
        dialect: The optional parts of a request that the endpoint takes, as far as is known.
        proven: Whether it has answered a request.

    Raises:
        UsageError: the proxy of the environment cannot be used, nor what it says of the account.
    """

    def __init__(
        self,
        settings: Settings,
        template: Template,
        key: SecretStr | None,
        redactor: Redactor,
        dialect: Dialect,
    ) -> None:
        import httpx

        self.dialect = dialect
        self.proven = False
        self._template = template
        self._settings = settings
        self._has_key = key is not None
        self._redactor = redactor
        self._shown = shown_url(settings.base_url)
        self._not_before = 0.0
        self._stopped = asyncio.Event()
        address = urlsplit(settings.base_url)
        self._url = urlunsplit(address._replace(path=address.path + CHAT_PATH))
        headers = {"Content-Type": "application/json", **account_headers(settings.base_url)}
        if key is not None:
            headers["Authorization"] = f"Bearer {key.get_secret_value()}"
        self.client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(
                settings.timeout, connect=min(settings.timeout, _CONNECT_SECONDS)
            ),
            limits=httpx.Limits(max_connections=None),  # ``concurrency`` bounds them
            **connection_options(settings.base_url),
        )

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

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
            if outcome.said is not None:
                simpler = dialect.without_refused(outcome.said, guess=outcome.guess)
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
        holds the key, hangs on to one that a user sees.
        """
        import httpx

        request = {
            "model": self._settings.model,
            "messages": dialect.messages(wording, first, second),
            **dialect.arguments(self._template, self._settings),
        }
        timed_out = _Failure("transient", f"no answer within {self._settings.timeout:g} s")
        try:
            # The client's timeout is for each piece of an answer; this one is for all of it.
            async with asyncio.timeout(self._settings.timeout):
                status, headers, body = await self._exchange(json.dumps(request))
        except (TimeoutError, httpx.TimeoutException):
            return timed_out
        except _TooLongError:
            return _Failure("transient", f"the reply has more than {_MOST_REPLY_BYTES:,} bytes")
        except (httpx.ConnectError, httpx.ProxyError, httpx.InvalidURL) as error:
            if self.proven:
                return _Failure("transient", f"the connection failed ({self._name(error)})")
            return _Failure(
                "fatal",
                f"cannot reach {self._shown} ({self._name(error)}): "
                "start the server, or correct --base-url",
            )
        except Exception as error:  # httpx documents its own, and some of below come through
            # httpx reads a redirect's address, though it is not to follow it.
            reason = f"the connection broke ({self._name(error)})"
            return _Failure("fatal" if "location header" in str(error) else "transient", reason)
        if 200 <= status < 300:
            reply = read_reply(body)
            return reply if isinstance(reply, Reply) else self._failure(status, reply, headers)
        if line := redirect_refusal(self._settings.base_url, status, headers):
            return _Failure("fatal", line)
        return self._failure(status, read_error(body), headers)

    async def _exchange(self, content: str) -> tuple[int, Mapping[str, str], bytes]:
        body = bytearray()
        async with self.client.stream("POST", self._url, content=content) as response:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > _MOST_REPLY_BYTES:
                    raise _TooLongError
        return response.status_code, response.headers, bytes(body)

    def _failure(self, sent: int, error: ServerError, headers: Mapping[str, str]) -> _Failure:
        """Say what an error means; one under status 200 has its own status within, or none."""
        status = sent if sent >= 400 else error.status or 500
        said = error.message[:_MOST_SAID]
        if error.param:
            said += f" (parameter: {error.param[:_MOST_SAID]})"
        line = self._redactor.line(said)
        what = f"HTTP {sent}" if sent >= 400 else f"HTTP {sent} with an error"
        reason = f"{what}: {line}" if line else what
        shown, model = self._shown, self._settings.model
        fatal = {
            # What the server says here is often a part of the key.
            401: self._key_refused(what),
            402: f"{shown} wants to be paid ({reason}): check the account",
        }
        if not self.proven:
            name = self._settings.api_key_env
            key = f"with the key in {printable(name)}" if name else "without a key (--api-key-env)"
            fatal[403] = (
                f"{shown} forbids the use of {model} {key} ({reason}): check what it is allowed"
            )
            fatal[404] = (
                f"{shown} has no model {model!r}, or no chat endpoint ({reason}): correct the "
                "model's name or --base-url, which mostly ends in /v1"
            )
        if status == 429 and error.code == "insufficient_quota":
            status = 402
        if status in fatal:
            return _Failure("fatal", fatal[status])
        if status in (400, 415, 422, 501):
            return _Failure("refused", reason, said=said, guess=not self.proven)
        if status in (408, 409, 425, 429) or status >= 500:
            pause = retry_after(headers)
            # A chat template that fails is an error of the server's own to some of them.
            named = said if status == 500 and not self.proven else None
            return _Failure("transient", reason, error.pause if pause is None else pause, named)
        return _Failure("refused", reason)

    def _key_refused(self, what: str) -> str:
        if self._has_key:
            variable = printable(self._settings.api_key_env or "")
            return f"{self._shown} does not accept the key ({what}): set a valid one in {variable}"
        return (
            f"{self._shown} wants a key ({what}): name the environment variable that holds it "
            f"with --api-key-env; {KEY_VARIABLE} goes to {OPENAI_HOST} alone"
        )

    def _name(self, error: BaseException) -> str:
        said = self._redactor.line(str(error))[:200]
        return f"{type(error).__name__}: {said}" if said else type(error).__name__


class _TooLongError(Exception):
    pass
