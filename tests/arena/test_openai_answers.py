"""Answers of a chat endpoint: what is a verdict, and what is none."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench.arena.judges.openai_answers import (
    Reply,
    ServerError,
    UnusableAnswerError,
    read_error,
    read_reply,
    read_verdict,
)
from realbench.arena.template import load_template

TEMPLATE = load_template()
ANSWER = {"image_1": "Pores.", "image_2": "Wax.", "comparison": "Skin.", "verdict": "image_1"}
TEXT = json.dumps(ANSWER)


def reply(text: str, *, refusal: str = "", finish: str = "stop", reasoning: str = "") -> Reply:
    return Reply(text, refusal, finish, {}, reasoning)


def verdict(text: str, **options: Any) -> str:
    return read_verdict(reply(text, **options), TEMPLATE)[0]


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"  {TEXT}\n",
        json.dumps(ANSWER, indent=2),
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}\n```",
        f"Here is what I think.\n\n{TEXT}\n\nI hope that helps.",
        f"The set {{a, b}} of criteria: {TEXT}",
        f'<think>Maybe {{"verdict": "image_2"}}? No.</think>{TEXT}',
        f'stray "verdict": "image_2" {TEXT}',
        TEXT.replace("image_1", "IMAGE_1", 2).replace("IMAGE_1", "image_1", 1),
        json.dumps(ANSWER | {"verdict": "Image 1"}),
        json.dumps(ANSWER | {"verdict": " image_1\n"}),
        json.dumps(ANSWER | {"confidence": 0.9}),
        json.dumps({"verdict": "image_1"}),
        json.dumps(ANSWER | {"image_2": 'A sign says {"verdict": "image_2"}.'}),
        TEXT.replace("Pores.", "Pores,\nhairs\tand\r\nlight."),
        TEXT[:-1] + ",}",
        TEXT[:-1] + " ,\n}\nThat is all.",
        json.dumps(ANSWER | {"why": ["a, ]", "b"]}).replace('"b"]', '"b", ],'),
        '{"image_1": "Not {this, }.", "verdict": "image_1",}',
    ],
)
def test_one_object_is_found_whatever_stands_around_it(text: str) -> None:
    assert verdict(text) == "first"


@pytest.mark.parametrize(("value", "meant"), [("image_2", "second"), ("tie", "tie")])
def test_all_verdicts(value: str, meant: str) -> None:
    assert verdict(json.dumps(ANSWER | {"verdict": value})) == meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("<think>image_1</think>", "empty"),
        ("Image 1 is clearly the photograph.", "no JSON object"),
        ('"image_1"', "no JSON object"),
        ('verdict: "image_1"', "no JSON object"),
        (f"{TEXT} {TEXT}", "2 JSON objects"),
        (f'{TEXT} or {{"verdict": "image_2"}}', "2 JSON objects"),
        (TEXT[:-1], "no JSON object"),
        (TEXT[:-12], "no JSON object"),
        ('{"image_1": "x", "inner": {"verdict": "image_1"}', "no JSON object"),
        ('{"answer": {"verdict": "image_1"}}', "no key 'verdict'"),
        ('{"winner": "image_1"}', "no key 'verdict'"),
        ('{"Verdict": "image_1"}', "no key 'verdict'"),
        ('{"verdict": "image_1", "verdict": "image_2"}', "twice"),
        ('{"verdict": "image_3"}', "none of"),
        ('{"verdict": "image_1 or image_2"}', "none of"),
        ('{"verdict": "image_1, tie"}', "none of"),
        ('{"verdict": "1"}', "none of"),
        ('{"verdict": 1}', "none of"),
        ('{"verdict": null}', "none of"),
        ('{"verdict": ["image_1"]}', "none of"),
        ('{"verdict": {"image_1": 1}}', "none of"),
        ('{"verdict": true}', "none of"),
        ('{"verdict": "\\ud800"}', "none of"),
        ('{"verdict": ""}', "none of"),
        ('{"verdict": "image_1",,}', "no JSON object"),
        ('{,"verdict": "image_1"}', "no JSON object"),
        ('{"verdict": "image_1",} {"verdict": "image_2",}', "2 JSON objects"),
        ('{"verdict": "image_1", "verdict": "image_2",}', "twice"),
        ('{"a": [1,],' * 1_500, "no JSON object"),
        ("{" * 20_000, "no JSON object"),
        ('{"a":' * 4_000, "no JSON object"),
        ("x" * 20_001, "more than 20,000 characters"),
    ],
)
def test_nothing_is_guessed(text: str, why: str) -> None:
    with pytest.raises(UnusableAnswerError) as caught:
        verdict(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_a_refusal_counts_whatever_else_is_said() -> None:
    with pytest.raises(UnusableAnswerError, match="refused"):
        verdict(TEXT, refusal="No.")
    with pytest.raises(UnusableAnswerError, match="content filter"):
        verdict(TEXT, finish="content_filter")


def test_an_answer_cut_at_the_limit_says_what_to_raise() -> None:
    with pytest.raises(UnusableAnswerError, match=r"not whole.*raise max_output_tokens"):
        verdict(TEXT[:30], finish="length")
    with pytest.raises(UnusableAnswerError, match=r"empty.*raise max_output_tokens"):
        verdict("", finish="length")
    assert verdict(TEXT + " " * 500, finish="length") == "first"  # whole, though cut after it


def test_reasons_are_lines_that_can_be_written() -> None:
    answer = ANSWER | {"image_1": "Two\nlines, \ud800 half.", "image_2": 7, "comparison": " "}
    _, reason = read_verdict(reply(json.dumps(answer)), TEMPLATE)
    assert reason == "Image 1: Two lines, ? half."
    assert read_verdict(reply('{"verdict": "tie"}'), TEMPLATE) == ("tie", None)


@given(st.text(), st.text(), st.sampled_from(["image_1", "image_2", "tie"]))
def test_prose_without_braces_never_changes_a_verdict(before: str, after: str, value: str) -> None:
    before, after = (text.replace("{", "(") for text in (before, after))
    text = f"{before}{json.dumps(ANSWER | {'verdict': value})}{after}"
    meant = {"image_1": "first", "image_2": "second", "tie": "tie"}[value]
    assert verdict(text) == meant


PIECES = ["{", "}", '"verdict"', ":", '"image_1"', '"tie"', ",", " ", "x", '"a"', "[", "]", '\\"']


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_a_verdict_is_always_one_that_an_object_of_the_text_gives(text: str) -> None:
    try:
        found = verdict(text)
    except UnusableAnswerError:
        return
    given_ = set()
    for start in range(len(text)):
        for end in range(start + 2, len(text) + 1):
            with contextlib.suppress(ValueError):
                value = json.loads(re.sub(r",(\s*[}\]])", r"\1", text[start:end]))
                if isinstance(value, dict):
                    given_.add(value.get("verdict"))
    assert {"first": "image_1", "tie": "tie"}[found] in given_


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "choices": json_values
            | st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "finish_reason": json_values,
                        "message": json_values
                        | st.fixed_dictionaries(
                            {}, optional={"content": json_values, "refusal": json_values}
                        ),
                    },
                ),
                max_size=2,
            ),
            "usage": json_values
            | st.fixed_dictionaries(
                {}, optional={"prompt_tokens": json_values, "completion_tokens": json_values}
            ),
        },
    )
)
def test_any_shape_of_a_completion_can_be_read(completion: dict[str, Any]) -> None:
    found = read_reply(json.dumps(completion).encode())
    if isinstance(found, ServerError):
        found.message.encode("utf-8")
        assert found.message
        return
    for text in (found.text, found.refusal, found.finish_reason, found.reasoning):
        text.encode("utf-8")
    assert set(found.usage) <= {"input_tokens", "output_tokens"}
    assert all(n >= 0 and n == int(n) for n in found.usage.values())


@given(st.binary())
def test_any_bytes_are_a_reply_or_an_error(body: bytes) -> None:
    assert isinstance(read_reply(body), Reply | ServerError)
    assert isinstance(read_error(body), ServerError)


@pytest.mark.parametrize("body", [b"[" * 200_000, b"9" * 10_000, b'"x', b"null", b"", b"<p>no</p>"])
def test_hostile_bytes(body: bytes) -> None:
    found = read_reply(body)
    assert isinstance(found, ServerError)
    assert found.message.startswith("the reply is no JSON object: ")
    assert len(found.message) < 400
    assert isinstance(read_error(body), ServerError)


def error(message: str, param: str = "", code: str = "", pause: float | None = None) -> ServerError:
    return ServerError(message, param, code, pause)


GOOGLE = {
    "code": 429,
    "message": "You exceeded your current quota.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"},
    ],
}
FIELD = {
    "code": 400,
    "message": "Invalid JSON payload received.",
    "details": [{"fieldViolations": [{"field": "generation_config.response_schema"}]}],
}
BEHIND = {"error": {"message": "Image too large.", "param": "messages", "code": "too_large"}}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"error": {"message": "No.", "param": None, "code": 400}}, error("No.", code="400")),
        ({"object": "error", "message": "No.", "param": "n", "code": 7}, error("No.", "n", "7")),
        ({"error": "No.", "error_type": "validation"}, error("No.")),
        ({"error": True, "message": "No."}, error("No.")),
        ({"detail": "Not Found"}, error("Not Found")),
        (
            {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "not 'system'"}]},
            error("not 'system'", "body.messages.0.role"),
        ),
        ({"success": False, "errors": [{"code": 7, "message": "No."}]}, error("No.", code="7")),
        ([{"error": GOOGLE}], error("You exceeded your current quota.", "", "429", 34.5)),
        ({"error": GOOGLE}, error("You exceeded your current quota.", "", "429", 34.5)),
        ({"error": {"message": json.dumps({"error": GOOGLE}), "code": 429}},
            error("You exceeded your current quota.", "", "429", 34.5)),
        ([{"error": FIELD}],
            error("Invalid JSON payload received.", "generation_config.response_schema", "400")),
        (
            {"error": {"message": "Provider returned error", "code": 400,
                       "metadata": {"raw": json.dumps(BEHIND), "provider_name": "X"}}},
            error("Provider returned error: Image too large.", "messages", "400"),
        ),
        ({"error": {"message": "Failed", "metadata": {"raw": "overloaded"}}},
            error("Failed: overloaded")),
        ("Internal Server Error", error("Internal Server Error")),
        ("<html><body>502</body></html>", error("")),
        ([], error("")),
        ([[[[[[[[[[{"error": "deep"}]]]]]]]]]], error("")),
        ({"error": {"details": [{"retryDelay": "1.2.3s"}, {"retryDelay": 7}, 5], "message": 4}},
            error("")),
    ],
)  # fmt: skip
def test_the_words_of_an_error_are_found_in_any_wrapping(body: object, found: ServerError) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    assert read_error(text.encode()) == found


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "No credits."}},
        [{"error": {"message": "No credits."}}],
        {"error": {"message": "No credits."}, "choices": []},
        {"error": {"message": "No credits."}, "choices": [{"message": {"content": TEXT}}]},
        {"choices": [{"error": {"message": "No credits."}, "message": {"content": ""}}]},
        {"choices": None, "message": "No credits."},
    ],
)
def test_an_error_in_place_of_a_completion_is_one(body: object) -> None:
    assert read_reply(json.dumps(body).encode()) == error("No credits.")


@pytest.mark.parametrize("choices", [[], None, "x", {}, [None], [{}], [{"message": None}]])
def test_a_completion_without_a_message_is_an_error_that_shows_it(choices: object) -> None:
    body = {"choices": choices, "base_resp": {"status_msg": "insufficient balance"}}
    found = read_reply(json.dumps(body).encode())
    assert isinstance(found, ServerError)
    assert found.message.startswith("the reply holds no message: ")
    assert "insufficient balance" in found.message


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_an_answer_that_a_server_took_for_reasoning_is_read(field: str) -> None:
    def told(text: str, finish: str = "stop") -> str:
        message = {"content": None, field: text}
        body = {"choices": [{"message": message, "finish_reason": finish}]}
        found = read_reply(json.dumps(body).encode())
        assert isinstance(found, Reply)
        return read_verdict(found, TEMPLATE)[0]

    assert told(TEXT) == "first"
    for text, finish, why in (
        ("It must be image_1.", "stop", "the server took all of it for reasoning"),
        (TEXT, "length", "empty: it was cut"),
        (f"{TEXT} or {TEXT}", "stop", "2 JSON objects"),
    ):
        with pytest.raises(UnusableAnswerError, match=why):
            told(text, finish)
    # What is said aloud counts, whatever was thought.
    assert verdict(TEXT, reasoning=json.dumps(ANSWER | {"verdict": "tie"})) == "first"


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": TEXT[:9]}, {"type": "image"}, {"text": TEXT[9:]}, 3]
    body = {"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}
    found = read_reply(json.dumps(body).encode())
    assert isinstance(found, Reply)
    assert found.text == TEXT
