"""The openai: judge against a real server on loopback, well-behaved and hostile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from realbench.arena.judges import JudgeOptions, make_judge
from realbench.arena.judges.judge import BudgetSpentError, Judge, Judgment, Picture, Showing
from realbench.arena.judges.openai import LONGEST_RAW, MOST_FAILURES, OpenAIJudge
from realbench.arena.judges.openai_settings import read_key, read_settings
from realbench.errors import RealBenchError, UsageError
from realbench.images import read_bytes_and_hash
from tests.arena import openai_server as faults
from tests.arena.openai_server import Fault, Request, Server, serve

KEY = "sk-realbench/secret+4711"
STEP = 7  # between the blue channels that tell the server's pictures apart


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("OPENAI_") or n.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def picture(folder: Path, number: int, red: int, size: tuple[int, int] = (24, 16)) -> Picture:
    path = folder / f"{number}-{red}.png"
    Image.new("RGB", size, (red, 40, number * STEP)).save(path)
    return Picture(f"model-{number}", path, read_bytes_and_hash(path)[1])


def all_showings(folder: Path, n: int) -> list[Showing]:
    """Every ordered pair of n pictures, of which each next one is redder or as red."""
    pictures = [picture(folder, number, red=(number // 2) * 14) for number in range(n)]
    return [
        Showing(f"{a}-{b}", f"prompt {a}", pictures[a], pictures[b])
        for a in range(n)
        for b in range(n)
        if a != b
    ]


def right_verdict(showing: Showing) -> str:
    one, two = (int(p.path.stem.split("-")[1]) for p in (showing.first, showing.second))
    return "tie" if one == two else "first" if one > two else "second"


def judge_at(server: Server, **options: object) -> OpenAIJudge:
    quick = {"backoff": 0.01, "timeout": 10.0, "concurrency": 4} | options
    quick.setdefault("api_key_env", "OPENAI_API_KEY")
    judge = make_judge("openai:tiny", JudgeOptions(base_url=server.url, **quick))  # type: ignore[arg-type]
    assert isinstance(judge, OpenAIJudge)
    return judge


def until_error(
    judge: Judge, showings: list[Showing]
) -> tuple[list[tuple[Showing, Judgment]], Exception | None]:
    """Return what was yielded, and what ended it."""
    found = []
    try:
        for each in judge.judge(showings):
            found.append(each)
    except (RealBenchError, BudgetSpentError) as error:
        return found, error
    return found, None


def only(
    fault: Fault | None, *, times: int = 10**9, first: int = 0
) -> Callable[[Request], Fault | None]:
    """Misbehave for ``times`` requests from the ``first`` on."""
    return lambda request: fault if first <= request.number < first + times else None


def test_both_pictures_arrive_in_their_order_and_the_answer_comes_back(tmp_path: Path) -> None:
    showings = all_showings(tmp_path, 6)
    with serve() as server:
        judge = judge_at(server)
        found = dict(judge.judge(showings))
    assert isinstance(judge, Judge)
    assert {s: j.verdict for s, j in found.items()} == {s: right_verdict(s) for s in showings}
    judgment = found[showings[0]]
    assert judgment.reason is not None
    assert judgment.reason.startswith("Image 1: Red 0.\nImage 2: Red 0.\nComparison: ")
    assert judgment.usage == {"input_tokens": 1000, "output_tokens": 100}
    assert (judgment.attempts, judgment.raw) == (1, None)
    assert judgment.seconds > 0


def test_pictures_above_max_pixels_are_not_shown(tmp_path: Path) -> None:
    showing = all_showings(tmp_path, 2)[0]
    with serve() as server:
        ((_, judgment),) = judge_at(server, max_pixels=10).judge([showing])
        assert not server.requests
    assert judgment.verdict == "invalid"
    assert "24 x 16 pixels are more than the limit of 10" in str(judgment.reason)


def test_the_request_holds_template_prompt_schema_and_key(tmp_path: Path) -> None:
    showing = Showing("1", "a {red} fox", picture(tmp_path, 1, 200), picture(tmp_path, 2, 10))
    with serve() as server:
        list(judge_at(server).judge([showing]))
    (request,) = server.requests
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.body["model"] == "tiny"
    assert request.body["temperature"] == 0
    assert request.body["max_tokens"] == 4096
    schema = request.body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert list(schema["schema"]["properties"]) == ["image_1", "image_2", "comparison", "verdict"]
    system, opening, label, question = request.texts
    assert "photographic" in system
    assert "a {red} fox" in opening
    assert opening.endswith("Image 1:")
    assert label == "Image 2:"
    assert "JSON" in question
    for text in (system, label, question):
        assert "fox" not in text
    for secret in ("model-1", "model-2", "1-200"):  # a judge must not learn whose picture it is
        assert secret not in json.dumps(request.body)


@pytest.mark.slow
def test_a_thousand_judgments_of_which_a_third_are_faulty(tmp_path: Path) -> None:
    passing = [
        faults.rate_limited({"Retry-After-Ms": "20"}),
        faults.rate_limited({}),
        faults.status(500),
        faults.status(503),
        faults.hang_up,
        faults.refusal,
        faults.prose,
        faults.wrong_keys,
        faults.empty,
        faults.cut,
        faults.raw(b"<html>proxy</html>"),
        faults.raw(b"[]"),
        faults.raw(b'{"choices": 7, "usage": {"prompt_tokens": -1e999}}'),
    ]
    lasting = [faults.refusal, faults.prose, faults.wrong_keys, faults.empty, faults.status(400)]
    showings = all_showings(tmp_path, 33)[:1000]
    numbers = {name: n for n, name in enumerate(s.prompt_id for s in showings)}

    def number(request: Request) -> int:
        a, b = (round(blue / STEP) for blue in request.pair)
        return numbers[f"{a}-{b}"]

    def fault(request: Request) -> Fault | None:
        n = number(request)
        if n in (300 + 3, 600 + 3, 900 + 3):
            return faults.slow(15) if request.asked_before == 0 else None
        if n % 3:
            return None
        if n % 30 == 0:
            return lasting[n // 30 % len(lasting)]
        return passing[n // 3 % len(passing)] if request.asked_before == 0 else None

    with serve(fault) as server:
        found = list(judge_at(server, timeout=5.0, concurrency=16).judge(showings))
    judgments = dict(found)
    assert len(found) == len(judgments) == 1000
    invalid = {s.prompt_id for s, j in found if j.verdict == "invalid"}
    assert invalid == {s.prompt_id for s in showings if numbers[s.prompt_id] % 30 == 0}
    for showing, judgment in found:
        if judgment.verdict != "invalid":
            assert judgment.verdict == right_verdict(showing)
        else:
            assert judgment.reason
    raws = {j.raw for j in judgments.values() if j.verdict == "invalid"}
    assert raws >= {"I cannot compare these pictures.", "", '{"winner": "image_1", "why": "light"}'}


@pytest.mark.parametrize(
    ("fault", "least", "below"),
    [
        (faults.rate_limited({"Retry-After": "1"}), 1.0, 60.0),
        (faults.rate_limited({"Retry-After": "0.3"}), 0.3, 60.0),
        (faults.rate_limited({"retry-after-ms": "400", "Retry-After": "30"}), 0.4, 25.0),
        (faults.rate_limited_until(1.0), 1.0, 60.0),
    ],
    ids=["seconds", "fraction", "milliseconds", "date"],
)
def test_retry_after_is_kept_on_the_servers_clock(
    tmp_path: Path, fault: Fault, least: float, below: float
) -> None:
    with serve(only(fault, times=1)) as server:
        ((_, judgment),) = judge_at(server).judge(all_showings(tmp_path, 2)[:1])
    first, second = server.requests
    assert judgment.verdict == "tie"
    assert judgment.attempts == 2
    # The server notes the time before it answers, so the pause is at least this long.
    assert least <= second.time - first.time < below


@pytest.mark.slow
def test_all_requests_wait_when_one_is_told_to(tmp_path: Path) -> None:
    def fault(request: Request) -> Fault | None:
        if request.number == 5:
            return faults.rate_limited({"Retry-After": "4"})
        # What is under way meanwhile ends when the client has long heard of it.
        return faults.slow(2) if 2 <= request.number <= 8 else None

    with serve(fault) as server:
        found = list(judge_at(server).judge(all_showings(tmp_path, 6)))
    assert len(found) == 30
    told = server.requests[5].time
    assert len(server.requests) == 31
    assert all(request.time >= told + 4 for request in server.requests[9:])


def test_a_pause_too_long_to_wait_ends_the_run(tmp_path: Path) -> None:
    with serve(only(faults.rate_limited({"Retry-After": "86400"}), first=3)) as server:
        found, error = until_error(judge_at(server, concurrency=1), all_showings(tmp_path, 4))
    assert "asks to wait 86400 s" in str(error)
    assert len(found) == 3
    assert len(server.requests) == 4


def test_backoff_grows(tmp_path: Path) -> None:
    with serve(only(faults.status(500), times=4)) as server:
        ((_, judgment),) = judge_at(server, backoff=0.1).judge(all_showings(tmp_path, 2)[:1])
    times = [request.time for request in server.requests]
    gaps = [after - before for before, after in pairwise(times)]
    assert judgment.attempts == 5
    for gap, least in zip(gaps, (0.05, 0.1, 0.2, 0.4), strict=True):
        assert gap >= least


def test_concurrency_is_kept_and_used(tmp_path: Path) -> None:
    def fault(handler: faults.Handler, request: Request) -> None:
        deadline = time.monotonic() + 10
        while server.most_at_once < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        handler.answer(request)

    with serve(lambda request: fault if request.number else None) as server:
        server.delay = 0.02
        list(judge_at(server, concurrency=5, timeout=30.0).judge(all_showings(tmp_path, 7)))
    assert server.most_at_once == 5


def test_showings_are_pulled_only_as_there_is_room(tmp_path: Path) -> None:
    pulled = []

    def source() -> Iterator[Showing]:
        for showing in all_showings(tmp_path, 6):
            pulled.append(showing)
            yield showing

    with serve() as server:
        for count, _ in enumerate(judge_at(server, concurrency=3).judge(source()), start=1):
            assert len(pulled) <= count - 1 + 3
    assert len(pulled) == 30


def test_closing_stops_the_workers_at_once(tmp_path: Path) -> None:
    with serve(only(faults.slow(20), first=2)) as server:
        iterator = judge_at(server, timeout=60.0).judge(all_showings(tmp_path, 6))
        next(iterator)
        next(iterator)
        deadline = time.monotonic() + 15
        while len(server.requests) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        clock = time.monotonic()
        iterator.close()
        assert time.monotonic() - clock < 10
        assert not [t for t in threading.enumerate() if t.name == "judge requests"]
        asked = len(server.requests)
        time.sleep(0.3)
        assert len(server.requests) == asked


def test_an_error_of_the_caller_stops_the_workers(tmp_path: Path) -> None:
    def source() -> Iterator[Showing]:
        yield from all_showings(tmp_path, 2)
        raise KeyError("the schedule broke")

    with serve() as server, pytest.raises(KeyError, match="the schedule broke"):
        list(judge_at(server).judge(source()))
    assert not [t for t in threading.enumerate() if t.name == "judge requests"]


@pytest.mark.parametrize("fault", [faults.slow(60), faults.drip(60)], ids=["slow", "drip"])
def test_a_request_takes_no_longer_than_its_timeout(tmp_path: Path, fault: Fault) -> None:
    clock = time.monotonic()
    with serve(only(fault, times=1)) as server:
        ((_, judgment),) = judge_at(server, timeout=1.0).judge(all_showings(tmp_path, 2)[:1])
        assert time.monotonic() - clock < 30
    assert judgment.attempts >= 2
    assert judgment.verdict == "tie"


def test_an_endless_answer_is_not_kept_in_memory(tmp_path: Path) -> None:
    with serve(only(faults.endless)) as server:
        judge = judge_at(server, max_retries=0)
        ((_, judgment),) = judge.judge(all_showings(tmp_path, 2)[:1])
    assert judgment.verdict == "invalid"
    assert judgment.reason == "the reply has more than 8,388,608 bytes"


# --- What an endpoint refuses --------------------------------------------------------------------


def refusing(*parts: str, code: int = 400) -> Callable[[Request], Fault | None]:
    """Refuse requests that have one of these arguments, or a system message, by its name."""

    def fault(request: Request) -> Fault | None:
        kind = request.body.get("response_format", {}).get("type")
        roles = [message["role"] for message in request.body["messages"]]
        for part in parts:
            if part in request.body:
                return faults.status(code, f"Unsupported parameter: '{part}'.", param=part)
            if part == kind:
                return faults.status(code, f"'response_format' of type {part} is not supported")
            if part in roles:
                return faults.status(code, "System role not supported")
        return None

    return fault


@pytest.mark.parametrize(
    ("parts", "code", "left"),
    [
        (["json_schema"], 400, {"response_format", "temperature", "max_tokens"}),
        (["response_format"], 400, {"temperature", "max_tokens"}),
        (["response_format"], 422, {"temperature", "max_tokens"}),
        (["temperature"], 400, {"response_format", "max_tokens"}),
        (["max_tokens"], 400, {"response_format", "temperature", "max_completion_tokens"}),
        (["system"], 400, {"response_format", "temperature", "max_tokens"}),
        (
            ["response_format", "max_tokens", "max_completion_tokens", "temperature", "system"],
            400,
            set(),
        ),
    ],
)
def test_what_is_refused_is_left_out_and_remembered(
    tmp_path: Path, parts: list[str], code: int, left: set[str]
) -> None:
    showings = all_showings(tmp_path, 5)
    with serve(refusing(*parts, code=code)) as server:
        judge = judge_at(server)
        found = dict(judge.judge(showings))
        refused = len(server.requests) - len(showings)
        list(judge.judge(showings))  # the same judge knows it already
    assert {s: j.verdict for s, j in found.items()} == {s: right_verdict(s) for s in showings}
    assert all(judgment.attempts == 1 for judgment in found.values())
    assert refused <= 6
    assert len(server.requests) == 2 * len(showings) + refused
    last = server.requests[-1].body
    assert set(last) == {"model", "messages"} | left
    if "json_schema" in parts:
        assert last["response_format"] == {"type": "json_object"}
        assert judge.describe()["response_format"] == "json_object"
    if "system" in parts:
        assert "photographic" in server.requests[-1].texts[0]


def test_a_refusal_that_names_nothing_costs_one_showing_not_the_format(tmp_path: Path) -> None:
    showings = all_showings(tmp_path, 3)
    with serve(only(faults.status(400, "picture rejected"), first=1, times=1)) as server:
        found = list(judge_at(server, concurrency=1).judge(showings))
    assert [j.verdict == "invalid" for _, j in found] == [False, True, False, False, False, False]
    assert found[1][1].reason == "HTTP 400: picture rejected"
    assert server.requests[-1].body["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (401, "does not accept the key (HTTP 401): set a valid one in OPENAI_API_KEY"),
        (402, "wants to be paid"),
        (403, "forbids the use of tiny"),
        (404, "has no model 'tiny'"),
    ],
)
def test_what_cannot_work_ends_at_the_first_request(tmp_path: Path, code: int, what: str) -> None:
    with serve(only(faults.status(code))) as server, pytest.raises(RealBenchError) as caught:
        list(judge_at(server).judge(all_showings(tmp_path, 4)))
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1


def test_no_server_ends_in_one_line(tmp_path: Path) -> None:
    with serve() as server:
        pass
    with pytest.raises(RealBenchError, match=r"cannot reach http://127\.0\.0\.1:\d+/v1 .*start"):
        list(judge_at(server).judge(all_showings(tmp_path, 3)))


def test_a_wrong_path_is_told_from_a_wrong_model(tmp_path: Path) -> None:
    with serve() as server:
        server.url = server.url.removesuffix("/v1")
        with pytest.raises(RealBenchError, match="mostly ends in /v1"):
            list(judge_at(server).judge(all_showings(tmp_path, 2)))


def test_a_server_that_dies_leaves_the_rest_open(tmp_path: Path) -> None:
    showings = all_showings(tmp_path, 8)
    with serve(only(faults.hang_up, first=20)) as server:
        found, error = until_error(judge_at(server, max_retries=2), showings)
    assert isinstance(error, RealBenchError)
    assert f"failed {MOST_FAILURES} times in a row" in str(error)
    assert [judgment.verdict for _, judgment in found] == [right_verdict(s) for s, _ in found]
    assert len(found) == 20
    # Twice, since the last answer may be seen after failures, and they are counted anew then.
    assert len(server.requests) < 20 + (2 * MOST_FAILURES + 4) * 3 + 1


def test_single_failures_are_listed_as_invalid(tmp_path: Path) -> None:
    showings = all_showings(tmp_path, 4)
    with serve(lambda r: faults.status(500) if r.pair[0] < STEP / 2 else None) as server:
        found = dict(judge_at(server, max_retries=1).judge(showings))
    invalid = {s.prompt_id: j for s, j in found.items() if j.verdict == "invalid"}
    assert set(invalid) == {"0-1", "0-2", "0-3"}
    assert len(found) == 12
    for judgment in invalid.values():
        assert judgment.reason == "HTTP 500: something is wrong"
        assert judgment.attempts == 2
        assert judgment.raw is None


# --- Answers, pictures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason", "kept"),
    [
        (faults.refusal, "the model refused", "I cannot compare these pictures."),
        (faults.filtered, "content filter", ""),
        (faults.prose, "no JSON object", "The first image looks far"),
        (faults.wrong_keys, "no key 'verdict'", '{"winner"'),
        (faults.empty, "empty", ""),
        (faults.cut, "raise max_output_tokens", '{"image_1"'),
        (faults.says("y" * 100_000), "more than 20,000 characters", "y" * LONGEST_RAW),
    ],
    ids=["refusal", "filter", "prose", "keys", "empty", "cut", "long"],
)
def test_unusable_answers_are_asked_again_and_then_invalid(
    tmp_path: Path, fault: Fault, reason: str, kept: str
) -> None:
    with serve(only(fault)) as server:
        ((_, judgment),) = judge_at(server, answer_retries=3).judge(all_showings(tmp_path, 2)[:1])
    assert judgment.verdict == "invalid"
    assert judgment.probability is None
    assert judgment.reason is not None
    assert reason in judgment.reason
    assert judgment.raw is not None
    assert judgment.raw.startswith(kept)
    assert len(judgment.raw) <= LONGEST_RAW
    assert judgment.attempts == len(server.requests) == 4
    assert judgment.usage == {"input_tokens": 4000, "output_tokens": 400}


def test_pictures_are_scaled_alike_and_read_once(tmp_path: Path) -> None:
    large = picture(tmp_path, 1, 200, size=(900, 300))
    small = picture(tmp_path, 2, 10, size=(40, 80))
    showing = Showing("1", None, large, small)
    with serve() as server:
        judge = judge_at(server, image_size=300, image_format="png", concurrency=1)
        for pair in (showing, showing.swapped()):
            list(judge.judge([pair]))
        iterator = judge.judge([showing, showing.swapped(), showing])
        next(iterator)
        large.path.unlink()  # it is in memory by now
        assert [judgment.verdict for _, judgment in iterator] == ["second", "first"]
    one, two = server.requests[0].pictures
    assert (one.size, two.size) == ((300, 100), (40, 80))
    assert one.getpixel((5, 5)) == (200, 40, 7)
    assert judge.describe()["images"] == {"longest_side": 300, "format": "png"}


def test_transparency_and_orientation_are_settled_before_sending(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    turned = Image.new("RGB", (40, 20), (100, 100, 100))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    pair = [
        Picture(name, tmp_path / name, read_bytes_and_hash(tmp_path / name)[1])
        for name in ("clear.png", "turned.jpg")
    ]
    with serve() as server:
        list(judge_at(server).judge([Showing("1", None, *pair)]))
    clear, upright = server.requests[0].pictures
    assert clear.getpixel((4, 4)) == (255, 255, 255)
    assert upright.size == (20, 40)
    assert not upright.getexif()


def test_a_picture_that_cannot_be_read_or_has_changed_is_no_vote(tmp_path: Path) -> None:
    good, changed, broken = (picture(tmp_path, n, 10 * n) for n in (1, 2, 3))
    Image.new("RGB", (9, 9)).save(changed.path)
    broken.path.write_bytes(b"not a picture")
    broken = Picture(broken.contestant, broken.path, read_bytes_and_hash(broken.path)[1])
    showings = [Showing("1", None, good, changed), Showing("1", None, broken, good)]
    with serve() as server:
        found = dict(judge_at(server).judge(showings))
    assert [found[s].verdict for s in showings] == ["invalid", "invalid"]
    assert "has changed since the run began" in str(found[showings[0]].reason)
    assert "3-30.png" in str(found[showings[1]].reason)
    assert server.requests == []


# --- Cost --------------------------------------------------------------------------------------


def test_max_cost_stops_before_it_is_passed(tmp_path: Path) -> None:
    # 1,000 tokens in at 2 and 100 out at 10 a million: 0.003 a vote.
    with serve() as server:
        judge = judge_at(server, price_in=2.0, price_out=10.0, max_cost=0.03, concurrency=4)
        found, error = until_error(judge, all_showings(tmp_path, 6))
    assert isinstance(error, BudgetSpentError)
    assert "--max-cost 0.03 is reached" in str(error)
    assert len(found) == len(server.requests) == 10
    assert all(judgment.usage["cost"] == pytest.approx(0.003) for _, judgment in found)
    assert judge.spent == pytest.approx(0.03)


def test_a_spent_budget_buys_no_further_answer(tmp_path: Path) -> None:
    with serve() as server:
        judge = judge_at(server, price_in=2.0, price_out=10.0, max_cost=0.006)
        for _ in range(2):
            with pytest.raises(BudgetSpentError):
                list(judge.judge(all_showings(tmp_path, 6)))
        assert list(judge.judge([])) == []
    assert len(server.requests) == 2


def test_unusable_answers_are_paid_and_not_asked_again_when_the_limit_is_passed(
    tmp_path: Path,
) -> None:
    with serve(only(faults.prose)) as server:
        judge = judge_at(server, price_in=2.0, price_out=10.0, max_cost=0.007, answer_retries=9)
        found, error = until_error(judge, all_showings(tmp_path, 3))
    assert isinstance(error, BudgetSpentError)
    ((_, judgment),) = found
    assert judgment.usage["cost"] == pytest.approx(0.006)
    assert judgment.attempts == len(server.requests) == 2
    assert "--max-cost is reached" in str(judgment.reason)


def test_a_budget_that_is_just_enough_is_no_stop(tmp_path: Path) -> None:
    with serve() as server:
        judge = judge_at(server, price_in=2.0, price_out=10.0, max_cost=0.09)
        assert len(list(judge.judge(all_showings(tmp_path, 6)))) == 30
    assert judge.spent == pytest.approx(0.09)


def test_asking_again_stays_within_the_limit_too(tmp_path: Path) -> None:
    fault = {0: None, 1: faults.prose, 2: faults.refusal, 3: None}
    with serve(lambda request: fault[request.number % 4]) as server:
        server.delay = 0.02
        judge = judge_at(server, price_in=2.0, price_out=10.0, max_cost=0.1, concurrency=8)
        _, error = until_error(judge, all_showings(tmp_path, 8))
    assert isinstance(error, BudgetSpentError)
    assert 0.09 < judge.spent <= 0.1
    assert judge.spent == pytest.approx(len(server.requests) * 0.003)


def test_a_limit_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    def fault(handler: faults.Handler, request: Request) -> None:
        message = {"content": json.dumps(faults.see(request.pictures))}
        handler.send_json({"choices": [{"message": message}]})

    with serve(only(fault)) as server:
        judge = judge_at(server, price_in=2.0, price_out=10.0, max_cost=0.03)
        with pytest.raises(RealBenchError, match="does not say how many tokens"):
            list(judge.judge(all_showings(tmp_path, 6)))
        free = list(judge_at(server).judge(all_showings(tmp_path, 3)))
    assert [judgment.usage for _, judgment in free] == [{}] * 6


# --- The key -----------------------------------------------------------------------------------


def everything_said(error: BaseException) -> str:
    """What a user, a log or a debugger could see of an exception and all that hangs on it."""
    seen = []
    current: BaseException | None = error
    while current is not None:
        seen += ["".join(traceback.format_exception(current)), repr(current), repr(vars(current))]
        current = current.__cause__ or current.__context__
    return "\n".join(seen)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 429, 500])
def test_a_server_that_echoes_the_key_does_not_get_it_written(
    tmp_path: Path, code: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    showings = all_showings(tmp_path, 6)
    said = ""
    with serve(only(faults.echo_key(code))) as server:
        judge = judge_at(server, max_retries=1)
        try:
            said += repr([judgment for _, judgment in judge.judge(showings)])
        except RealBenchError as error:
            said += everything_said(error)
        assert server.requests[0].headers["Authorization"].endswith(KEY)
    said += repr(judge) + str(vars(judge)) + json.dumps(judge.describe())
    said += caplog.text + "".join(capfd.readouterr())
    assert KEY not in said
    if code != 401:
        assert "[key]" in said


def test_an_answer_that_holds_the_key_is_cleaned(tmp_path: Path) -> None:
    showings = all_showings(tmp_path, 3)
    with serve(only(faults.says_key)) as server:
        found = list(judge_at(server).judge(showings))
    assert {judgment.verdict for _, judgment in found} > {"first"}
    assert KEY not in repr(found)
    assert all("Bearer [key]" in str(judgment.reason) for _, judgment in found)


def test_the_key_may_be_in_another_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "other-key")
    with serve() as server:
        judge = judge_at(server, api_key_env="GEMINI_API_KEY")
        list(judge.judge(all_showings(tmp_path, 2)))
    assert server.requests[0].headers["Authorization"] == "Bearer other-key"


def test_a_password_in_the_address_stays_hidden(tmp_path: Path) -> None:
    with serve(only(faults.echo_key(400))) as server:
        server.url = server.url.replace("//", "//user:pass-word@") + "?token=tok-en-of-gateway"
        judge = judge_at(server)
        said = repr(list(judge.judge(all_showings(tmp_path, 2))))
    assert server.requests[0].query == "token=tok-en-of-gateway"
    basic = server.requests[0].headers["Authorization"]
    assert basic.startswith("Basic ")
    assert "[key]" in said
    said += json.dumps(judge.describe()) + repr(judge)
    for secret in ("pass-word", basic.split()[1], "tok-en-of-gateway"):
        assert secret not in said


def test_a_server_of_ones_own_needs_no_key_and_does_not_get_openais(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-4711")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-4711")
    with serve(only(faults.status(500, "none of it"))) as server:
        judge = judge_at(server, api_key_env=None, max_retries=0)
        ((_, judgment),) = judge.judge(all_showings(tmp_path, 2)[:1])
    assert judgment.reason == "HTTP 500: none of it"  # nothing is taken for a key
    sent = json.dumps(server.requests[0].headers)
    for secret in (KEY, "Authorization", "org-4711", "proj-4711"):
        assert secret not in sent
    with pytest.raises(UsageError, match="MY_KEY holds no key"):
        OpenAIJudge("gpt-x", JudgeOptions(base_url=server.url, api_key_env="MY_KEY"))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match="OPENAI_API_KEY holds no key: set it"):
        OpenAIJudge("gpt-x")


def test_a_server_that_wants_a_key_is_told_how_it_gets_one(tmp_path: Path) -> None:
    with serve(only(faults.status(401))) as server, pytest.raises(RealBenchError) as caught:
        list(judge_at(server, api_key_env=None).judge(all_showings(tmp_path, 2)))
    assert "wants a key (HTTP 401): name the environment variable" in str(caught.value)
    assert "with --api-key-env; OPENAI_API_KEY goes to api.openai.com alone" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "variable", "key"),
    [
        (None, None, KEY),
        ("https://api.openai.com/v1/", None, KEY),
        ("https://API.OpenAI.com:443/v1", None, KEY),
        ("https://api.openai.com.example/v1", None, None),
        ("https://api.openai.com@example.com/v1", None, None),
        ("https://example.com/v1?to=api.openai.com", None, None),
        ("https://example.com/v1#@api.openai.com", None, None),
        ("http://127.0.0.1:8000/v1", None, None),
        ("https://example.com/v1", "OTHER_KEY", "other"),
        ("https://example.com/v1", "OPENAI_API_KEY", KEY),
        ("https://api.openai.com/v1", "OTHER_KEY", "other"),
        ("http://localhost:8000/v1", "OTHER_KEY", "other"),
        ("http://[::1]:8000/v1", "OTHER_KEY", "other"),
        ("http://10.0.0.5:8000/v1", None, None),
    ],
)
def test_a_key_goes_to_the_host_it_belongs_to(
    url: str | None, variable: str | None, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "other")
    found = read_key(read_settings("m", JudgeOptions(base_url=url, api_key_env=variable)))
    assert (found.get_secret_value() if found else None) == key
    if url is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        assert read_key(read_settings("m", JudgeOptions(api_key_env=variable))) == found


@pytest.mark.parametrize(
    ("url", "variable", "what"),
    [
        ("http://api.openai.com/v1", None, "the key in OPENAI_API_KEY is not sent"),
        ("http://10.0.0.5:8000/v1", "OPENAI_API_KEY", "the key in OPENAI_API_KEY is not sent"),
        ("http://127.0.0.1.example/v1", "OPENAI_API_KEY", "is not sent"),
        ("http://localhost.example/v1", "OPENAI_API_KEY", "is not sent"),
        ("http://127.0.0.1@example.com/v1", "OPENAI_API_KEY", "is not sent"),
        ("http://me:pass-word@example.com/v1", None, "the password in --base-url is not sent"),
    ],
)
def test_no_key_goes_over_plain_http_to_another_machine(
    url: str, variable: str | None, what: str
) -> None:
    with pytest.raises(UsageError, match=r"over plain HTTP: give its https:// address") as caught:
        OpenAIJudge("m", JudgeOptions(base_url=url, api_key_env=variable))
    assert what in str(caught.value)
    assert KEY not in str(caught.value)
    assert "pass-word" not in str(caught.value)


# --- Errors of any shape -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": "the model is asleep"}},
        {"error": {"message": "the model is asleep", "code": 502}, "user_id": "u"},
        {"error": "the model is asleep", "choices": []},
        [{"error": {"message": "the model is asleep"}}],
        {"choices": [], "note": "the model is asleep"},
        {"choices": None, "note": "the model is asleep"},
        {"choices": [{"error": {"message": "the model is asleep"}, "finish_reason": "error"}]},
        {"object": "error", "message": "the model is asleep"},
        "the model is asleep",
    ],
)
def test_an_error_under_status_200_is_a_failure_and_ten_end_the_run(
    tmp_path: Path, said: object
) -> None:
    with serve(only(faults.body(said))) as server:
        judge = judge_at(server, max_retries=1, concurrency=1)
        found, error = until_error(judge, all_showings(tmp_path, 5))
    assert found == []
    assert f"has failed {MOST_FAILURES} times in a row, the last time with: HTTP 200" in str(error)
    assert "the model is asleep" in str(error)
    assert "\n" not in str(error)
    # In JSON schema, in JSON, in plain text and without a system message at most, before anything
    # has worked; each is tried twice.
    assert len(server.requests) == 2 * MOST_FAILURES


def test_single_errors_under_status_200_are_tried_again(tmp_path: Path) -> None:
    error = {"error": {"message": "Provider returned error", "code": 429}}
    with serve(lambda r: faults.body(error) if r.number % 2 else None) as server:
        found = list(judge_at(server, concurrency=1).judge(all_showings(tmp_path, 3)))
    assert [judgment.verdict for _, judgment in found] == [right_verdict(s) for s, _ in found]
    assert len(server.requests) > len(found)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        ({"message": "no", "code": 401}, "does not accept the key (HTTP 200 with an error)"),
        ({"message": "pay up", "code": 402}, "wants to be paid (HTTP 200 with an error: pay up)"),
        ({"message": "pay up", "code": "402"}, "wants to be paid"),
        ({"message": "no such", "code": 404}, "has no model 'tiny'"),
    ],
)
def test_what_cannot_work_ends_the_run_under_status_200_as_well(
    tmp_path: Path, error: dict[str, object], what: str
) -> None:
    with serve(only(faults.body({"error": error}))) as server:
        found, stop = until_error(judge_at(server), all_showings(tmp_path, 2))
    assert found == []
    assert what in str(stop)
    assert len(server.requests) == 1


@pytest.mark.parametrize("wrapped", [True, False], ids=["list", "object"])
def test_googles_errors_tell_how_long_to_wait(tmp_path: Path, wrapped: bool) -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.6s"}
    error = {"error": {"code": 429, "message": "quota", "details": [retry]}}
    fault = faults.body([error] if wrapped else error, code=429)
    with serve(only(fault, times=1)) as server:
        ((_, judgment),) = judge_at(server).judge(all_showings(tmp_path, 2)[:1])
    first, second = server.requests
    assert judgment.attempts == 2
    assert 0.6 <= second.time - first.time < 30


def test_a_pause_in_an_errors_text_that_is_too_long_ends_the_run(tmp_path: Path) -> None:
    error = {"message": "quota of the day", "details": [{"retryDelay": "40000s"}]}
    with serve(only(faults.body([{"error": error}], code=429))) as server:
        found, stop = until_error(judge_at(server), all_showings(tmp_path, 2))
    assert found == []
    assert "asks to wait 40000 s (HTTP 429: quota of the day)" in str(stop)


@pytest.mark.parametrize(
    ("part", "error"),
    [
        (
            "temperature",
            {"message": 'Unknown name "temperature": Cannot find field.'},
        ),
        ("max_tokens", {"details": [{"fieldViolations": [{"field": "maxOutputTokens"}]}]}),
        ("response_format", {"details": [{"fieldViolations": [{"field": "responseSchema"}]}]}),
    ],
)
@pytest.mark.parametrize("code", [200, 400, 422])
def test_the_refused_parameter_is_found_in_googles_errors(
    tmp_path: Path, part: str, error: dict[str, object], code: int
) -> None:
    def fault(request: Request) -> Fault | None:
        whole = {"message": "Invalid.", "code": 400} | error
        refused = faults.body([{"error": whole}], code=code)
        return refused if part in request.body else None

    showings = all_showings(tmp_path, 3)
    with serve(fault) as server:
        found = dict(judge_at(server).judge(showings))
    assert {s: j.verdict for s, j in found.items()} == {s: right_verdict(s) for s in showings}
    others = {"response_format", "temperature", "max_tokens"} - {part}
    assert others <= set(server.requests[-1].body)


MINJA = (
    "\n------------\nWhile executing CallExpression at line 9, column 28 in source:\n"
    "...{{ raise_exception(schema.max_tokens) }}\nError: Jinja Exception: "
)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (400, {"error": {"message": "System role not supported"}}),
        (400, {"object": "error", "message": "Conversation roles must alternate user/assistant/"}),
        (400, {"error": "Only user and assistant roles are supported!"}),
        (400, {"error": "Only user, assistant and tool roles are supported, got system."}),
        (400, {"error": {"message": "Unsupported value.", "param": "messages[0].role"}}),
        (400, {"error": {"message": "Developer instruction is not enabled for models/gemma"}}),
        (400, [{"error": {"message": "Developer instruction is not enabled", "code": 400}}]),
        (400, {"error": {"message": "messages.0.role: unknown variant `system`"}}),
        (
            422,
            {
                "detail": [
                    {
                        "loc": ["body", "messages", 0, "role"],
                        "msg": "Input should be 'user' or 'assistant'",
                        "input": {"response_format": "json_schema"},
                    }
                ]
            },
        ),
        (500, {"error": {"code": 500, "message": MINJA + "Roles must alternate!"}}),
        (500, {"error": {"code": 500, "message": MINJA + "First message must be the user's"}}),
        (500, "jinja2.exceptions.TemplateError: System role not supported"),
        (500, {"detail": "Error rendering the chat template"}),
        (200, {"error": {"message": "Only user and assistant roles are supported!", "code": 400}}),
        (200, {"error": {"message": "Only user and assistant roles are supported!"}}),
    ],
)
def test_a_role_that_is_refused_moves_its_text_into_the_users_message(
    tmp_path: Path, code: int, said: object
) -> None:
    def fault(request: Request) -> Fault | None:
        refused = request.body["messages"][0]["role"] == "system"
        text = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        return faults.raw(text, code=code) if refused else None

    showings = all_showings(tmp_path, 3)
    with serve(fault) as server:
        found = dict(judge_at(server).judge(showings))
    assert {s: j.verdict for s, j in found.items()} == {s: right_verdict(s) for s in showings}
    assert all(judgment.attempts == 1 for judgment in found.values())
    assert len(server.requests) == len(showings) + 1
    last = server.requests[-1]
    assert [message["role"] for message in last.body["messages"]] == ["user"]
    assert last.texts[0].startswith("You are an expert in photographic forensics.")
    assert last.texts[0].endswith("Image 1:")
    assert last.body["response_format"]["type"] == "json_schema"  # nothing else was given up


def test_a_refusal_in_words_that_nobody_knows_ends_with_the_least_that_can_be_sent(
    tmp_path: Path,
) -> None:
    def fault(request: Request) -> Fault | None:
        refused = request.body["messages"][0]["role"] == "system"
        return faults.status(400, "角色错误") if refused else None

    with serve(fault) as server:
        found = list(judge_at(server).judge(all_showings(tmp_path, 3)))
    assert [judgment.verdict for _, judgment in found] == [right_verdict(s) for s, _ in found]
    assert len(server.requests) == len(found) + 3


# --- Redirects, proxies, addresses ---------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("proven", [True, False])
def test_a_redirect_is_refused_and_nothing_goes_there(
    tmp_path: Path, code: int, proven: bool
) -> None:
    with serve() as other:
        location = f"{other.url}/chat/completions?token=hidden-token"
        with serve(only(faults.redirect(code, location), first=int(proven))) as server:
            found, error = until_error(judge_at(server), all_showings(tmp_path, 2))
    assert other.requests == []
    assert len(found) == int(proven)
    line = f"sends requests on to {other.url}/chat/completions (HTTP {code}), which is not followed"
    assert line in str(error)
    assert "hidden-token" not in str(error)


@pytest.mark.parametrize("location", ["http://[::1", "", "//\x1b[31m", "/v2"])
def test_any_redirect_is_one_line(tmp_path: Path, location: str) -> None:
    with serve(only(faults.redirect(307, location))) as server:
        found, error = until_error(judge_at(server), all_showings(tmp_path, 2))
    assert found == []
    assert isinstance(error, RealBenchError)
    assert "is not followed" in str(error) or "in location header" in str(error)
    assert str(error).isprintable()
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "socks://x", "x"])
def test_no_proxy_stands_between_this_machine_and_itself(
    tmp_path: Path, name: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, proxy)
    with serve() as server:
        ((_, judgment),) = judge_at(server).judge(all_showings(tmp_path, 2)[:1])
    assert judgment.verdict == "tie"


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
def test_a_proxy_is_used_for_other_machines(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    showings = all_showings(tmp_path, 2)
    with serve() as proxy:
        monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        judge = OpenAIJudge("tiny", JudgeOptions(base_url="http://model.invalid/v1", max_retries=0))
        _, error = until_error(judge, showings)
        assert "no such page" in str(error)  # the proxy has been asked, for the whole address
        monkeypatch.setenv("NO_PROXY", "model.invalid")
        _, error = until_error(judge, showings)
    assert "cannot reach http://model.invalid/v1" in str(error)


@pytest.mark.parametrize(
    ("proxy", "what"),
    [
        ("socks5://me:pass-word@10.0.0.1:1080", "a SOCKS proxy: pip install 'httpx[socks]'"),
        ("socks5h://10.0.0.1", "a SOCKS proxy"),
        ("socks://10.0.0.1", "a proxy of the kind socks, which is not known"),
        ("socks4://10.0.0.1", "a proxy of the kind socks4"),
        ("http://", "is no address of a proxy"),
        ("http://h:port", "is no address of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_line(
    tmp_path: Path, proxy: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    judge = OpenAIJudge("m", JudgeOptions(base_url="https://model.invalid/v1"))
    with pytest.raises(UsageError) as caught:
        list(judge.judge(all_showings(tmp_path, 2)))
    assert what in str(caught.value)
    assert "unset ALL_PROXY, or name model.invalid in NO_PROXY" in str(caught.value)
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("end", ["/chat/completions", "/chat/completions/", "/", "//"])
@pytest.mark.parametrize("query", ["", "?api-version=2024-06-01"])
def test_the_address_of_the_chat_itself_is_as_good(tmp_path: Path, end: str, query: str) -> None:
    with serve() as server:
        server.url += end + query
        ((_, judgment),) = judge_at(server).judge(all_showings(tmp_path, 2)[:1])
    assert judgment.verdict == "tie"
    assert server.requests[0].query == query.removeprefix("?")


def test_an_answer_that_the_server_took_for_reasoning_is_a_vote(tmp_path: Path) -> None:
    def fault(handler: faults.Handler, request: Request) -> None:
        text = json.dumps(faults.see(request.pictures), indent=1)[:-2] + ",\n}"
        handler.send_text(None, reasoning_content=text.replace("more real", "more\nreal"))

    showings = all_showings(tmp_path, 3)
    with serve(only(fault)) as server:
        found = dict(judge_at(server).judge(showings))
    assert {s: j.verdict for s, j in found.items()} == {s: right_verdict(s) for s in showings}
    assert len(server.requests) == len(showings)


# --- Options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "--base-url is no http"),
        ({"base_url": "http://"}, "--base-url is no http"),
        ({"base_url": "http://h:99999/v1"}, "--base-url is no http"),
        ({"base_url": "http://h/v1\\@api.openai.com"}, "--base-url is no http"),
        ({"base_url": "http://ex ample/v1"}, "--base-url is no http"),
        ({"base_url": "http://[::1/v1"}, "--base-url is no http"),
        ({"concurrency": 0}, "--concurrency 0"),
        ({"timeout": float("nan")}, "--timeout nan"),
        ({"timeout": -1.0}, "--timeout -1.0"),
        ({"image_size": 2}, "--image-size 2"),
        ({"image_format": "gif"}, "--image-format gif"),
        ({"max_cost": 1.0}, "--max-cost needs prices"),
        ({"price_in": 1.0}, "belong together"),
        ({"max_cost": 0.0, "price_in": 1.0, "price_out": 1.0}, "--max-cost 0.0"),
        ({"template": "no-such-template"}, "no judge template 'no-such-template'"),
    ],
)
def test_options_that_cannot_be_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        OpenAIJudge("m", JudgeOptions(**options))  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_fingerprint_is_of_what_decides_an_answer() -> None:
    def fingerprint(model: str = "m", **options: object) -> str:
        return OpenAIJudge(model, JudgeOptions(**options)).fingerprint  # type: ignore[arg-type]

    assert fingerprint() == fingerprint(concurrency=2, base_url="http://127.0.0.1:1/v1")
    others = [
        fingerprint("n"),
        fingerprint(image_size=512),
        fingerprint(image_format="png"),
        fingerprint(temperature=0.5),
    ]
    assert len({fingerprint(), *others}) == 5


def test_importing_the_judge_loads_no_client() -> None:
    code = (
        "import sys, realbench.arena.judges.openai as m; m.OpenAIJudge('m').fingerprint; "
        "print([n for n in ('openai', 'httpx', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
