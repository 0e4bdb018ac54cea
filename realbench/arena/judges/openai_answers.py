"""Reads what a chat endpoint answers: the message out of a completion, the verdict out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from realbench.arena.judges.judge import Verdict
from realbench.arena.template import Template

# No answer of three short reasons is longer; it also bounds the time that the search below takes.
_LONGEST_ANSWER = 20_000
_CUT = "it was cut at the limit of output tokens; raise max_output_tokens"
_END_OF_THOUGHT = "</think>"
# Past this a count of tokens is not one; it also keeps sums exact.
_MOST_TOKENS = 10**12


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
    """

    text: str
    refusal: str
    finish_reason: str
    usage: Mapping[str, float]


def read_reply(body: bytes) -> Reply:
    """Take a chat completion apart, whatever shape it really has.

    Raises:
        UnusableAnswerError: it is no JSON object.
    """
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):
        completion = None
    if not isinstance(completion, dict):
        raise UnusableAnswerError("the reply is no JSON object")
    choices = completion.get("choices")
    choice = _mapping(choices[0] if isinstance(choices, list) and choices else None)
    message = _mapping(choice.get("message"))
    usage = _mapping(completion.get("usage"))
    spent = {
        "input_tokens": _tokens(usage.get("prompt_tokens")),
        "output_tokens": _tokens(usage.get("completion_tokens")),
    }
    return Reply(
        text=_text(message.get("content")),
        refusal=_text(message.get("refusal")),
        finish_reason=_text(choice.get("finish_reason")),
        usage={name: n for name, n in spent.items() if n is not None},
    )


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
    if not text:
        cut = reply.finish_reason == "length"
        more = f": {_CUT}" if cut else ""
        raise UnusableAnswerError(f"the answer is empty{more}")
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
    """Yield the JSON objects in a text that lie in no other one."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeats)
    position = text.find("{")
    while position >= 0:
        try:
            found, end = decoder.raw_decode(text, position)
        except _RepeatedKeyError as error:
            raise UnusableAnswerError(f"the answer gives the key {error} twice") from None
        except (ValueError, RecursionError):
            if _is_cut(text, position):
                return
            end = position + 1
        else:
            yield found
        position = text.find("{", end)


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
