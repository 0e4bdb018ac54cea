"""Parts of the reward server alone: batching, limits, slow senders, and bytes of any kind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realbench.errors import UsageError
from realbench.reward.reward import WeightedReward
from realbench.reward.token import Token
from realbench.serve.reward_batching import Batcher
from realbench.serve.reward_form import read_form
from realbench.serve.reward_images import SentImages
from realbench.serve.reward_limits import Limits, MemoryBudget, RateLimit, Refusal
from realbench.serve.reward_server import RewardServer, ServerOptions
from tests.serve.reward_servers import file_of, picture, post


class Counting:
    """Rewards an image by its first value; waits for ``go`` in each call."""

    name, weight = "counting", 1.0

    def __init__(self, *, blocked: bool = False) -> None:
        self.calls: list[int] = []
        self.go = threading.Event()
        if not blocked:
            self.go.set()

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        self.calls.append(len(images))
        assert self.go.wait(20)
        if "bad" in prompts:
            raise UsageError("a bad prompt")
        return np.array([image[0, 0, 0] / 255 for image in images])

    def describe(self) -> dict[str, Any]:
        return {}


# --- Batching ----------------------------------------------------------------------------------


async def _all(batcher: Batcher, sizes: Sequence[int], prompts: Sequence[str] | None = None) -> Any:
    texts = prompts or [""] * len(sizes)
    asked = [
        batcher([picture(10 * n + i) for i in range(size)], [text] * size)
        for n, (size, text) in enumerate(zip(sizes, texts, strict=True))
    ]
    return await asyncio.gather(*asked, return_exceptions=True)


def _batched(counting: Counting, sizes: Sequence[int], prompts: Any = None, **options: Any) -> Any:
    async def main() -> Any:
        batcher = Batcher(
            WeightedReward([counting]),
            **{"max_batch": 8, "max_wait": 0.05, "max_waiting": 1000, **options},
        )
        try:
            return await _all(batcher, sizes, prompts)
        finally:
            await batcher.close()

    return asyncio.run(main())


def test_requests_share_passes_up_to_the_batch_size() -> None:
    counting = Counting()
    answers = _batched(counting, [3, 3, 3, 8, 1, 20, 1])
    # never split: 3 + 3 and no third 3, and 20 on its own
    assert counting.calls == [6, 3, 8, 1, 20, 1]
    for n, answer in enumerate(answers):
        size = [3, 3, 3, 8, 1, 20, 1][n]
        expected = (10 * n + np.arange(size)) / 255
        np.testing.assert_allclose(answer["counting"], expected, rtol=1e-6)


def test_a_full_batch_does_not_wait() -> None:
    start = time.monotonic()
    _batched(Counting(), [4, 4], max_wait=5.0)
    assert time.monotonic() - start < 4


def test_one_that_is_alone_waits_no_longer_than_it_should() -> None:
    start = time.monotonic()
    _batched(Counting(), [1], max_wait=0.2)
    assert 0.2 <= time.monotonic() - start < 4


def test_a_request_that_cannot_be_rewarded_fails_alone() -> None:
    counting = Counting()
    answers = _batched(counting, [1, 2, 3], ["", "bad", ""])
    assert isinstance(answers[1], UsageError)
    assert len(answers[0]["counting"]) == 1
    assert len(answers[2]["counting"]) == 3
    assert counting.calls == [6, 1, 2, 3]


def test_whoever_gives_up_is_not_computed_for() -> None:
    counting = Counting(blocked=True)

    async def main() -> None:
        batcher = Batcher(WeightedReward([counting]), max_batch=2, max_wait=0, max_waiting=100)
        first = asyncio.create_task(batcher([picture(1)], [""]))
        while not counting.calls:
            await asyncio.sleep(0.01)
        gone, stays = (asyncio.create_task(batcher([picture(n)], [""])) for n in (2, 3))
        await asyncio.sleep(0.05)
        assert batcher.waiting == 2
        gone.cancel()
        await asyncio.sleep(0.05)
        assert batcher.waiting == 1
        counting.go.set()
        await first
        assert (await stays)["counting"][0] == pytest.approx(3 / 255)
        await batcher.close()

    asyncio.run(main())
    assert counting.calls == [1, 1]


def test_too_many_that_wait_are_told_to_come_back() -> None:
    counting = Counting(blocked=True)

    async def main() -> None:
        batcher = Batcher(WeightedReward([counting]), max_batch=2, max_wait=0, max_waiting=3)
        tasks = [asyncio.create_task(batcher([picture(1)], [""]))]
        while not counting.calls:
            await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(batcher([picture(1)], [""])) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal) as raised:
            await batcher([picture(1)], [""])
        assert (raised.value.status, raised.value.retry_after) == (503, 1)
        counting.go.set()
        await asyncio.gather(*tasks)
        await batcher.close()

    asyncio.run(main())


# --- Limits ------------------------------------------------------------------------------------


def test_a_rate_is_kept_over_time_and_by_address() -> None:
    now = [0.0]
    rate = RateLimit(10.0, 20, clock=lambda: now[0])
    rate.take("a", 20)  # a burst
    with pytest.raises(Refusal) as raised:
        rate.take("a", 15)
    assert raised.value.retry_after == 2
    rate.take("b", 20)
    now[0] = 1.0
    rate.take("a", 10)
    with pytest.raises(Refusal):
        rate.take("a", 1)
    now[0] = 1000.0
    rate.take("a", 20)
    with pytest.raises(Refusal):
        rate.take("a", 1)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 8)), max_size=60))
def test_no_address_ever_exceeds_its_rate(steps: list[tuple[float, int]]) -> None:
    now, taken = [0.0], 0
    rate = RateLimit(4.0, 8, clock=lambda: now[0])
    for pause, images in steps:
        now[0] += pause
        try:
            rate.take("a", images)
        except Refusal as refusal:
            now[0] += refusal.retry_after or 0  # is long enough
            rate.take("a", images)
        taken += images
        assert taken <= 8 + 4.0 * now[0] + 1e-6


def test_addresses_are_forgotten_before_they_fill_the_memory() -> None:
    rate = RateLimit(1.0, 1)
    for n in range(12_000):
        rate.take(str(n), 1)
    assert len(rate._buckets) == 10_000


def test_memory_is_given_back() -> None:
    memory = MemoryBudget(10)
    memory.take(10)
    with pytest.raises(Refusal):
        memory.take(1)
    memory.give_back(10)
    memory.take(3)
    assert memory.used == 3


# --- Senders that are slow, go away or are too many ---------------------------------------------

SHORT = Limits(header_seconds=0.5, body_seconds=0.5, body_rate=2**20, max_memory=3 * 2**20)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    options = ServerOptions(port=0, limits=SHORT)
    with RewardServer(WeightedReward([Counting()]), options).running() as address:
        yield address


def _socket(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10)


def _until_closed(raw: socket.socket, drip: bytes) -> tuple[float, bytes]:
    """Send bytes one by one until the server has had enough; return seconds, and what it said."""
    start, said = time.monotonic(), b""
    raw.settimeout(0.05)
    for n in range(200):
        try:
            raw.sendall(drip[n % len(drip) : n % len(drip) + 1])
            piece = raw.recv(4096)
            said += piece
            if not piece:
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - start, said


HEAD = (
    b"POST /v1/reward HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
)


@pytest.mark.parametrize(
    ("first", "drip", "answer"),
    [
        (b"", b"GET /health HTTP/1.1\r\nX-Header: " + b"a" * 500, b""),  # slow loris
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"GET / HTTP/1.1\r\nA: aaaa", b"200"),
        (HEAD, b"--x\r\n" + b"a" * 500, b"408"),  # slow body
    ],
)
def test_a_slow_sender_is_cut_off_while_others_are_served(
    url: str, first: bytes, drip: bytes, answer: bytes
) -> None:
    sockets = [_socket(url) for _ in range(20)]
    for raw in sockets:
        raw.sendall(first)
    assert post(url, [file_of(picture(7))]).status_code == 200
    seconds, said = _until_closed(sockets[0], drip)
    assert seconds < 5
    assert answer in said
    for raw in sockets:
        raw.close()


def test_a_connection_without_a_byte_is_closed(url: str) -> None:
    with _socket(url) as raw:
        assert raw.recv(10) == b""


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "x[::1]"])
def test_without_a_token_foreign_names_are_refused(url: str, host: str) -> None:
    for path in ("/v1/reward", "/health", "/metrics"):
        assert httpx.get(url + path, headers={"Host": host}).status_code == 403
    for own in ("localhost", "127.0.0.1:80", "[::1]:80"):
        assert httpx.get(f"{url}/health", headers={"Host": own}).status_code == 200


def test_a_client_that_goes_away_leaves_nothing_behind(url: str) -> None:
    for _ in range(20):
        with _socket(url) as raw:
            raw.sendall(HEAD + b"--x\r\n")
    with _socket(url) as raw:
        raw.sendall(HEAD)
        raw.sendall(b"\0" * 50_000)
    end = time.monotonic() + 10
    while True:
        metrics = httpx.get(f"{url}/metrics").text
        if (
            "realbench_reward_memory_bytes 0.0" in metrics
            and "realbench_reward_requests_inside 0.0" in metrics
        ):
            break
        assert time.monotonic() < end, metrics
        time.sleep(0.05)


def test_what_all_requests_hold_is_limited(url: str) -> None:
    image = np.zeros((800, 800, 3), np.uint8)  # 1.9 MB as sent, and again as decoded
    answer = post(url, [file_of(image, "npy")])
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert post(url, [file_of(image)]).status_code == 200  # few bytes as a PNG


def test_connections_are_limited() -> None:
    options = ServerOptions(port=0, limits=Limits(max_connections=5))
    with RewardServer(WeightedReward([Counting()]), options).running() as address:
        sockets = [_socket(address) for _ in range(8)]
        time.sleep(0.2)
        assert httpx.get(f"{address}/health").status_code == 503
        for raw in sockets:
            raw.close()
        time.sleep(0.2)
        assert httpx.get(f"{address}/health").status_code == 200


def test_a_server_needs_a_token_for_others() -> None:
    with pytest.raises(UsageError, match="others reach"):
        RewardServer(WeightedReward([Counting()]), ServerOptions(host="0.0.0.0"))
    token = Token("0123456789abcdef")
    options = ServerOptions(host="0.0.0.0", port=0, token=token)
    with RewardServer(WeightedReward([Counting()]), options).running() as address:
        port = address.rpartition(":")[2]
        shown = {"Authorization": token.header}
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/reward", headers=shown)
        assert answer.status_code == 200
        assert "0123456789abcdef" not in repr(options)


# --- Bytes of any kind -------------------------------------------------------------------------

_NPY = file_of(picture(3), "npy")
_PNG = file_of(picture(3))
_JPEG = file_of(picture(3), "jpeg")
_SMALL = Limits(max_pixels=10_000, max_images=4)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a good file with some bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from([_NPY, _PNG, _JPEG])))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, min(len(data) - 1, 160))))
        if draw(st.booleans()) and data:
            data[at] = draw(st.integers(0, 255))
        else:
            data[at : at + draw(st.integers(0, 40))] = draw(st.binary(max_size=40))
    return bytes(data)


@given(st.one_of(damaged(), st.binary(max_size=300)))
@example(b"\x93NUMPY")
@example(b"\x93NUMPY\x03\0\xff\xff\xff\xff")
@example(b"\x93NUMPY\x02\0\xff\xff\xff\xff" + b"(" * 9999)
def test_any_bytes_are_images_or_refused(data: bytes) -> None:
    refusal, images = None, []
    try:
        sent = SentImages([data], _SMALL)
        images = sent.decode(0)
    except Refusal as raised:
        refusal = raised
    if refusal is not None:
        assert refusal.status in (413, 415, 422)
        assert "\n" not in refusal.reason
        return
    assert len(images) == sent.count <= 4
    assert sum(image.shape[0] * image.shape[1] for image in images) == sent.pixels
    for image in images:
        assert image.dtype == np.uint8
        assert image.shape[2:] == (3,)
        assert image.shape[0] * image.shape[1] <= 10_000


def _form(body: bytes, cuts: Sequence[int], limits: Limits = _SMALL) -> Any:
    async def pieces() -> Any:
        edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
        for start, end in itertools.pairwise(edges):
            yield body[start:end]

    return asyncio.run(read_form("multipart/form-data; boundary=x", pieces(), limits))


def _body(images: Sequence[bytes], prompts: Sequence[str]) -> bytes:
    disposition = b"--x\r\nContent-Disposition: form-data; name="
    parts = [disposition + b'"images"; filename="a"\r\n\r\n' + one + b"\r\n" for one in images]
    parts += [disposition + b'"prompts"\r\n\r\n' + one.encode() + b"\r\n" for one in prompts]
    return b"".join(parts) + b"--x--\r\n"


@given(
    st.lists(st.binary(max_size=50).filter(lambda b: b"\r\n--x" not in b), max_size=4),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=4),
    st.lists(st.integers(0, 800), max_size=12),
)
def test_a_form_is_read_alike_however_it_is_cut(
    images: list[bytes], prompts: list[str], cuts: list[int]
) -> None:
    if any("\r\n--x" in one for one in prompts):
        return
    form = _form(_body(images, prompts), cuts)
    assert form.images == images
    assert form.prompts == prompts


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_any_body_is_a_form_or_refused(body: bytes, cuts: list[int]) -> None:
    for whole in (body, b"--x\r\n" + body, _body([body], [])[:-3]):
        with contextlib.suppress(Refusal):  # anything else would be a traceback and a 500
            _form(whole, cuts)
