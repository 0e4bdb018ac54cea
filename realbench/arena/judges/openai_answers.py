"""Reads what a chat endpoint answers: a completion, or an error of any shape; then the verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from realbench.arena.judges.judge import Verdict
from realbench.arena.template import Template

# No answer of three short reasons is longer; it also bounds the time that the search below takes.
_LONGEST_ANSWER = 20_000
_CUT = "it was cut at the limit of output tokens; raise max_output_tokens"
_END_OF_THOUGHT = "</think>"
# Past this a count of tokens is not one; it also keeps sums exact.
_MOST_TOKENS = 10**12
_TRAILING_COMMA = re.compile(r",\s*[}\]]")
# Errors of gateways carry those of the servers behind them, as texts or in lists.
_DEEPEST_ERROR = 8
_WORDS = ("error", "errors", "detail", "message", "msg")
_MOST_SHOWN = 300


class UnusableAnswerError(Exception):
    """An answer without a verdict; ``str()`` is one line that says why."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a completion holds that matters here; an empty text where there is none.

    Attributes:
        text: What the model wrote, without hidden reasoning.
        refusal: The endpoint's own field for a refusal.
        finish_reason: ``"stop"``, ``"length"``, ``"content_filter"`` and the like.
        usage: ``input_tokens`` and ``output_tokens``; empty where the endpoint does not say.
        reasoning: What a server took for reasoning and put into a field of its own.
    """

    text: str
    refusal: str
    finish_reason: str
    usage: Mapping[str, float]
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ServerError:
    """What a server says in place of a completion.

    Attributes:
        message: Its words, with those of a server behind it.
        param: The part of the request that it names, if any.
        code: A status of HTTP or a name, as text.
        pause: Seconds that it asks to wait, if it does.
    """

    message: str
    param: str = ""
    code: str = ""
    pause: float | None = None

    @property
    def status(self) -> int | None:
        """The status of HTTP that ``code`` is, if it is one of an error."""
        return int(self.code) if re.fullmatch("[45][0-9][0-9]", self.code) else None


def read_reply(body: bytes) -> Reply | ServerError:
    """Take a chat completion apart, whatever shape it really has.

    What holds no message is an error, also under status 200: gateways answer so when a server
    behind them has failed.
    """
    completion = _json(body)
    whole = _mapping(completion)
    choices = whole.get("choices")
    choice = _mapping(choices[0] if isinstance(choices, list) and choices else None)
    message = choice.get("message")
    failed = whole.get("error") or choice.get("error")
    if failed or not isinstance(message, dict):
        error = _error(failed or completion)
        if error.message:
            return error
        shown = _text(body.decode("utf-8", "replace"))[:_MOST_SHOWN]
        what = "holds no message" if whole else "is no JSON object"
        return replace(error, message=f"the reply {what}: {shown}")
    usage = _mapping(whole.get("usage"))
    spent = {
        "input_tokens": _tokens(usage.get("prompt_tokens")),
        "output_tokens": _tokens(usage.get("completion_tokens")),
    }
    return Reply(
        text=_text(message.get("content")),
        refusal=_text(message.get("refusal")),
        finish_reason=_text(choice.get("finish_reason")),
        usage={name: n for name, n in spent.items() if n is not None},
        reasoning=_text(message.get("reasoning_content") or message.get("reasoning")),
    )


def read_error(body: bytes) -> ServerError:
    """Take the body of an error apart: an object, in a list, in a text, or plain text."""
    return _error(body.decode("utf-8", "replace"))


def _error(value: object, depth: int = 0) -> ServerError:
    """Find the words of an error, and what else it says, at the bottom of what wraps it."""
    if depth > _DEEPEST_ERROR:
        return ServerError("")
    if isinstance(value, str):
        inner = _json(value) if value.lstrip()[:1] in ("{", "[") else None
        if isinstance(inner, dict | list):
            return _error(inner, depth + 1)
        return ServerError("" if value.lstrip()[:1] == "<" else _text(value))
    if isinstance(value, list):
        found = [error for one in value[:3] if (error := _error(one, depth + 1)).message]
        if not found:
            return ServerError("")
        message = "; ".join(one.message for one in found)
        return replace(found[0], message=message, param=" ".join(one.param for one in found))
    if not isinstance(value, dict):
        return ServerError("")
    found = [_error(value.get(key), depth + 1) for key in _WORDS]
    inner_error = next((one for one in found if one.message), ServerError(""))
    behind = _error(_mapping(value.get("metadata")).get("raw"), depth + 1)  # OpenRouter
    place = value.get("loc")  # of a field, as pydantic and FastAPI tell it
    param = ".".join(map(str, place)) if isinstance(place, list) else _text(value.get("param"))
    pause, fields = _details(value.get("details"))
    code = value.get("code")
    own_code = str(code) if isinstance(code, int | str) and not isinstance(code, bool) else ""
    return ServerError(
        message=": ".join(filter(None, (inner_error.message, behind.message))),
        param=inner_error.param or param or fields or behind.param,
        code=inner_error.code or own_code or behind.code,
        pause=pause if inner_error.pause is None else inner_error.pause,
    )


def _details(details: object) -> tuple[float | None, str]:
    """Return how long Google's errors ask to wait, and the fields that they name."""
    pause: float | None = None
    fields: list[str] = []
    for detail in map(_mapping, details if isinstance(details, list) else []):
        delay = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", _text(detail.get("retryDelay")))
        if delay:
            pause = float(delay[1])
        violations = detail.get("fieldViolations")
        for one in map(_mapping, violations if isinstance(violations, list) else []):
            fields += filter(None, (_text(one.get("field")), _text(one.get("description"))))
    return pause, " ".join(fields)


def read_verdict(reply: Reply, template: Template) -> tuple[Verdict, str | None]:
    """Return the verdict of an answer and its reasons, as lines ``Image 1: ...``.

    The answer is one JSON object as the template asks for, bare, in a code fence or with prose
    around it. Nothing is read out of prose, and nothing is chosen between several objects.

    Raises:
        UnusableAnswerError: there is no such object, or it has no valid verdict.
    """
    if reply.refusal:
        raise UnusableAnswerError("the model refused")
    if reply.finish_reason == "content_filter":
        raise UnusableAnswerError("the endpoint's content filter stopped the answer")
    answer = _only_object(reply)
    field = template.reasoned.verdict
    if field.key not in answer:
        raise UnusableAnswerError(f"the answer has no key {field.key!r}")
    said = answer[field.key]
    values: dict[str, Verdict] = {field.first: "first", field.second: "second", field.tie: "tie"}
    if not isinstance(said, str) or (verdict := _choose(said, values)) is None:
        shown = json.dumps(said)[:60]
        raise UnusableAnswerError(f"{field.key!r} is {shown}, which is none of {list(values)}")
    reasons = [
        f"{key.replace('_', ' ').capitalize()}: {said}"
        for key in template.reasoned.reasons
        if (said := " ".join(_text(answer.get(key)).split()))
    ]
    return verdict, "\n".join(reasons) or None


def _choose(said: str, values: Mapping[str, Verdict]) -> Verdict | None:
    """Match a verdict to its values; ``Image 1`` is as good as ``image_1``."""
    if said.strip() in values:
        return values[said.strip()]
    plain = _plain(said)
    matches = [verdict for value, verdict in values.items() if plain and _plain(value) == plain]
    return matches[0] if len(matches) == 1 else None


def _plain(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _only_object(reply: Reply) -> dict[str, Any]:
    text = reply.text.rpartition(_END_OF_THOUGHT)[2].strip()
    if not text and reply.finish_reason == "length":
        raise UnusableAnswerError(f"the answer is empty: {_CUT}")
    if not text and "{" in reply.reasoning:
        # A server that looks for reasoning takes all of an answer for it where a model does none.
        text = reply.reasoning.rpartition(_END_OF_THOUGHT)[2].strip()
    if not text:
        why = ": the server took all of it for reasoning; turn its reasoning parser off"
        raise UnusableAnswerError(f"the answer is empty{why if reply.reasoning else ''}")
    if len(text) > _LONGEST_ANSWER:
        raise UnusableAnswerError(f"the answer has more than {_LONGEST_ANSWER:,} characters")
    objects = list(_objects(text))
    if len(objects) == 1:
        return objects[0]
    if objects:
        raise UnusableAnswerError(f"the answer holds {len(objects)} JSON objects instead of one")
    if reply.finish_reason == "length":
        raise UnusableAnswerError(f"the answer is not whole: {_CUT}")
    raise UnusableAnswerError("the answer holds no JSON object")


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text that lie in no other one.

    Two slips of models are read as what they can only mean: line breaks within a string, and a
    comma after the last item.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeats, strict=False)
    position = text.find("{")
    while position >= 0:
        try:
            found, end = decoder.raw_decode(text, position)
        except _RepeatedKeyError as error:
            raise UnusableAnswerError(f"the answer gives the key {error} twice") from None
        except (ValueError, RecursionError) as error:
            comma = _trailing_comma(text, position, error)
            if comma is not None:
                text = text[:comma] + text[comma + 1 :]
                continue
            if _is_cut(text, position):
                return
            end = position + 1
        else:
            yield found
        position = text.find("{", end)


def _trailing_comma(text: str, start: int, error: Exception) -> int | None:
    """Return where the comma stands that a decoder stumbled over, None if it was none."""
    if not isinstance(error, json.JSONDecodeError):
        return None
    comma = text.rfind(",", start, error.pos + 1)  # versions of Python point at it, or after it
    match = _TRAILING_COMMA.match(text, comma) if comma >= 0 else None
    follows_item = text[start : max(start, comma)].rstrip()[-1:] not in (",", "{", "[")
    return comma if match and match.end() > error.pos and follows_item else None


def _is_cut(text: str, start: int) -> bool:
    """Whether an object begins at ``start`` and the text ends before it does.

    What lies within it is then part of it, and no answer of its own.
    """
    opened = text[start + 1 :].lstrip()
    return opened.startswith('"') and text.count("{", start) > text.count("}", start)


class _RepeatedKeyError(Exception):
    pass


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKeyError(repr(key[:40]))
        found[key] = value
    return found


def _json(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """Return a text, or the texts of a list of content parts, that can be written as UTF-8."""
    if isinstance(value, list):
        value = "".join(str(_mapping(part).get("text") or "") for part in value)
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode("utf-8")


def _tokens(value: object) -> float | None:
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS
    return value if valid else None  # type: ignore[return-value]
