"""The client: what it gets from a real server, and what it does when there is none."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from realbench.errors import RealBenchError, UsageError
from realbench.reward import client as reward_client
from realbench.reward.client import RewardClient, encode
from realbench.reward.components import DetectorsComponent
from realbench.reward.reward import DetectorsConfig, RewardConfig, WeightedReward, build_reward
from realbench.reward.token import Token
from realbench.serve.reward_limits import Limits
from realbench.serve.reward_server import RewardServer, ServerOptions
from tests.fakes import make_card
from tests.serve.reward_servers import picture

TOKEN = Token("a-secret-of-this-test-0123456789")


class Red:
    """The mean of the red channel; ``batches`` tells how many images each call had."""

    name, weight = "red", 1.0

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        self.batches.append(len(images))
        time.sleep(self.seconds)
        if any(prompt == "no such" for prompt in prompts):
            raise UsageError("no reference image for the prompt 'no such'")
        return np.array([image[..., 0].mean() / 255 for image in images])

    def describe(self) -> dict[str, Any]:
        return {"kind": "red"}


@contextmanager
def serving(reward: WeightedReward, **options: Any) -> Iterator[str]:
    with RewardServer(reward, ServerOptions(port=0, **options)).running() as url:
        yield url


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause 1/50 of the usual time, and have no token in the environment."""
    pause = reward_client._pause
    monkeypatch.setattr(reward_client, "_pause", lambda *given: pause(*given) / 50)
    monkeypatch.delenv("REALBENCH_SERVE_TOKEN", raising=False)


# --- Against the real server -------------------------------------------------------------------


def test_it_gives_what_the_scorer_gives_to_the_bit(tmp_path: Path) -> None:
    card = make_card(tmp_path, "tiny")
    config = DetectorsConfig(detectors=(str(card),))
    reward = WeightedReward([DetectorsComponent(config, "cpu")])
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (70 + 5 * (n // 3), 80, 3), np.uint8) for n in range(11)]
    prompts = [f"prompt {n}" for n in range(11)]
    expected = np.concatenate([reward(images[n : n + 1], [""]) for n in range(11)])
    with serving(reward, token=TOKEN) as url:
        for encoding in ("npy", "png"):
            client = RewardClient(url, token=TOKEN, encoding=encoding, images_per_request=3)  # type: ignore[arg-type]
            values = client(images, prompts)
            assert values.dtype == np.float32
            np.testing.assert_allclose(values, expected, atol=2e-6)
        assert np.ptp(values) > 0.01
        exact = RewardClient(url, token=TOKEN)
        np.testing.assert_array_equal(exact(images[:2], prompts[:2]), reward(images[:2], ["", ""]))
        described = exact.describe()
        assert described["components"] == reward.describe()["components"]


def test_it_is_a_component_of_a_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_A_TEST", "a-secret-of-this-test-0123456789")
    with serving(WeightedReward([Red()]), token=TOKEN) as url:
        table = {"kind": "http", "url": url, "token_env": "TOKEN_OF_A_TEST"}
        reward = build_reward(RewardConfig.model_validate({"components": [table]}))
        values = reward([picture(51), picture(255)], ["a", "b"])
        np.testing.assert_allclose(values, [0.2, 1.0], rtol=1e-6)
        described = json.dumps(reward.describe())
        assert '"red"' in described
        assert "a-secret" not in described


def test_every_kind_of_images_is_sent() -> None:
    with serving(WeightedReward([Red()])) as url:
        client = RewardClient(url)
        arrays = [picture(10), picture(20)]
        tensor = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        for images in (arrays, [Image.fromarray(one) for one in arrays], tensor):
            np.testing.assert_allclose(
                client(images, ["", ""]), np.array([10, 20]) / 255, rtol=1e-6
            )
        jpeg = RewardClient(url, encoding="jpeg")(arrays, ["", ""])
        np.testing.assert_allclose(jpeg, np.array([10, 20]) / 255, atol=0.02)
        assert client([], []).shape == (0,)
        with pytest.raises(UsageError, match="images: 2, prompts: 1"):
            client(arrays, ["one"])


def test_neighbors_of_one_size_travel_in_one_npy_file() -> None:
    images = [picture(1), picture(2), picture(3, 10, 10), picture(4)]
    assert len(encode(images, "npy")) == 3
    assert len(encode(images, "png")) == 4


def test_many_requests_fill_batches_and_keep_their_order() -> None:
    red = Red(0.02)
    with serving(WeightedReward([red]), max_batch=16) as url:
        client = RewardClient(url, images_per_request=4, connections=8)
        images = [picture(n) for n in range(100)]
        values = client(images, [""] * 100)
    np.testing.assert_allclose(values, np.arange(100) / 255, rtol=1e-6)
    assert sum(red.batches) == 100
    assert max(red.batches) <= 16
    assert len(red.batches) < 25  # requests shared passes


def test_threads_and_copies_share_nothing_they_must_not() -> None:
    with serving(WeightedReward([Red()])) as url:
        client = RewardClient(url)
        client([picture(1)], [""])
        copy = pickle.loads(pickle.dumps(client))
        with ThreadPoolExecutor(8) as pool:
            calls = [
                pool.submit(one, [picture(n)], [""]) for n in range(20) for one in (client, copy)
            ]
            values = [float(call.result()[0]) for call in calls]
        np.testing.assert_allclose(values, np.repeat(np.arange(20), 2) / 255, rtol=1e-6)


def test_what_the_server_refuses_is_a_usage_error_in_its_words() -> None:
    with serving(WeightedReward([Red()]), token=TOKEN, limits=Limits(max_images=2)) as url:
        with pytest.raises(UsageError, match="wants a token"):
            RewardClient(url)([picture(1)], [""])
        client = RewardClient(url, token=TOKEN)
        with pytest.raises(UsageError, match="413: more than 2 "):
            client([picture(1)] * 3, [""] * 3)
        with pytest.raises(UsageError, match="422: no reference image for the prompt 'no such'"):
            client([picture(1)], ["no such"])
        assert (
            RewardClient(url, token=TOKEN, images_per_request=2)([picture(1)] * 5, [""] * 5).size
            == 5
        )


def test_a_rate_limit_slows_the_client_down_and_fails_nothing() -> None:
    limits = Limits(rate=100.0, max_images=100)
    with serving(WeightedReward([Red()]), limits=limits) as url:
        client = RewardClient(url, images_per_request=50, connections=1, retries=100)
        values = client([picture(n) for n in range(150)], [""] * 150)
        assert len(values) == 150


def test_no_secret_is_shown() -> None:
    client = RewardClient("http://127.0.0.1:9", token=TOKEN, retries=0)
    assert "a-secret" not in repr(client) + repr(vars(client))
    with pytest.raises(RealBenchError) as raised:
        client([picture(1)], [""])
    assert "a-secret" not in str(raised.value)


# --- Against servers that misbehave ------------------------------------------------------------

Fault = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Broken:
    """A server that does ``faults`` one after the other, and then answers."""

    faults: list[Fault]
    url: str = ""
    times: list[float] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)


@contextmanager
def broken(*faults: Fault) -> Iterator[Broken]:
    state = Broken(list(faults))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                state.times.append(time.monotonic())
                state.tokens.append(self.headers.get("Authorization"))
                fault = (
                    state.faults.pop(0)
                    if state.faults
                    else answer({"reward": [0.5], "components": {}})
                )
            fault(self)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(content: object, status: int = 200, **headers: str) -> Fault:
    def fault(handler: BaseHTTPRequestHandler) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return fault


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"reward"')
    handler.close_connection = True


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)
    handler.close_connection = True


def gone(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()
    handler.close_connection = True


GOOD = answer({"reward": [0.5], "components": {}})
BUSY = answer({"error": "busy"}, 503)


def test_what_passes_is_tried_again() -> None:
    faults = [BUSY, answer({"error": "slow down"}, 429), answer(b"proxy", 502), cut, gone]
    with broken(*faults) as server:
        values = RewardClient(server.url)([picture(1)], [""])
    assert values.tolist() == [0.5]
    assert len(server.times) == 6


def test_a_server_that_hangs_is_asked_again() -> None:
    with broken(hang) as server:
        assert RewardClient(server.url, timeout=0.3)([picture(1)], [""]).tolist() == [0.5]
    assert len(server.times) == 2


def test_pauses_grow_and_retry_after_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.undo()
    monkeypatch.setattr(reward_client.time, "sleep", waits.append)
    with broken(
        *[BUSY] * 4, answer({}, 503, Retry_After="7"), answer({}, 429, Retry_After="9999")
    ) as server:
        RewardClient(server.url, retries=6)([picture(1)], [""])
    for n, wait in enumerate(waits[:4]):
        assert 0.25 * 2**n <= wait <= 0.75 * 2**n
    assert 7 <= waits[4] <= 7.25
    assert waits[5] == 60  # whatever a server says


def test_it_gives_up_after_its_retries() -> None:
    with broken(*[BUSY] * 9) as server:
        with pytest.raises(RealBenchError, match=r"after 3 attempts: it answers 503 \(busy\)"):
            RewardClient(server.url, retries=2)([picture(1)], [""])
        assert len(server.times) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 415, 422])
def test_other_answers_of_4xx_are_final(status: int) -> None:
    with broken(answer({"error": "so\nit is"}, status)) as server:
        with pytest.raises(UsageError) as raised:
            RewardClient(server.url)([picture(1)], [""])
        assert len(server.times) == 1
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        {"reward": [0.5, 0.5], "components": {}},
        {"reward": ["x"], "components": {}},
        {"reward": 0.5, "components": {}},
        {"reward": [0.5], "components": {"a": []}},
        {"reward": [0.5]},
        {"reward": [float("inf")], "components": {}},
        {"reward": [0.5], "components": {}, "error": "out of memory"},
        [1],
        None,
    ],
)
def test_what_is_no_reward_is_refused(content: object) -> None:
    with broken(answer(content)) as server, pytest.raises(RealBenchError) as raised:
        RewardClient(server.url)([picture(1)], [""])
    assert server.url in str(raised.value)


def test_a_redirect_is_not_followed_with_the_token() -> None:
    with broken() as other, broken(answer(b"", 307, Location=other.url)) as server:
        with pytest.raises(RealBenchError, match="is not followed"):
            RewardClient(server.url, token=TOKEN)([picture(1)], [""])
        assert not other.tokens


def test_no_server_is_one_line() -> None:
    with pytest.raises(RealBenchError, match="after 2 attempts: ConnectError"):
        RewardClient("http://127.0.0.1:9", retries=1)([picture(1)], [""])
    with pytest.raises(UsageError, match="is no address"):
        RewardClient("http://[::bad", retries=1)([picture(1)], [""])
