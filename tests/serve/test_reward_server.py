"""``realbench serve`` as a process: what it answers, to friends and to others."""

from __future__ import annotations

import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from realbench.cli.main import app
from realbench.errors import UsageError
from tests.image_bytes import jpeg_of_scans, png, png_chunk
from tests.serve.reward_servers import Running, file_of, picture, post, reward_server

TOKEN = "a-secret-of-this-test-0123456789"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run a server that wants a token and takes at most 1 MiB and 8 images of 100,000 pixels."""
    limits = ["--max-megabytes", "1", "--max-images", "8", "--max-pixels", "100000"]
    with reward_server(
        tmp_path_factory.mktemp("server"), *limits, environment={"REALBENCH_SERVE_TOKEN": TOKEN}
    ) as running:
        yield running
        assert running.process.poll() is None, "it did not survive the tests"


BEARER = {"Authorization": f"Bearer {TOKEN}"}


def still_serves(server: Running) -> None:
    answer = post(server.url, [file_of(picture(51))], headers=BEARER)
    assert answer.status_code == 200
    assert answer.json()["components"]["red"] == pytest.approx([0.2])


# --- What is answered --------------------------------------------------------------------------


def test_rewards_come_in_the_order_of_the_images_whatever_they_are_sent_as(
    server: Running,
) -> None:
    several = np.stack([picture(30), picture(40)])
    files = [
        file_of(picture(10), "png"),
        file_of(several, "npy"),
        file_of(picture(20, 50, 60), "npy"),
        file_of(np.asfortranarray(picture(50)), "npy"),
        file_of(picture(100), "jpeg"),
    ]
    prompts = ["", "é" * 10, "", 'a "quoted"\r\nprompt; name=x', "x", "y"]
    answer = post(server.url, files, prompts, headers=BEARER)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    red = found["components"]["red"]
    np.testing.assert_allclose(red[:5], np.array([10, 30, 40, 20, 50]) / 255, rtol=1e-6)
    assert red[5] == pytest.approx(100 / 255, abs=0.01)
    length = [min(1, len(one) / 100) for one in prompts]
    np.testing.assert_allclose(found["components"]["length"], length, rtol=1e-6)
    assert found["weights"] == {"red": 0.75, "length": 0.25}
    np.testing.assert_allclose(
        found["reward"], 0.75 * np.array(red) + 0.25 * np.array(length), rtol=1e-6
    )


def test_one_prompt_serves_a_whole_group(server: Running) -> None:
    answer = post(server.url, [file_of(picture(n)) for n in (1, 2)], ["abcde"], headers=BEARER)
    assert answer.json()["components"]["length"] == pytest.approx([0.05, 0.05])


def test_what_the_reward_is_made_of_is_told(server: Running) -> None:
    described = httpx.get(f"{server.url}/v1/reward", headers=BEARER).json()
    assert [one["name"] for one in described["components"]] == ["red", "length"]
    assert described["limits"]["max_images"] == 8


def test_health_needs_no_token_and_tells_nothing(server: Running) -> None:
    answer = httpx.get(f"{server.url}/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "server" not in answer.headers


def test_metrics_count_what_was_done(server: Running) -> None:
    def figures() -> dict[str, float]:
        answer = httpx.get(f"{server.url}/metrics", headers=BEARER)
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = [one for one in answer.text.splitlines() if not one.startswith("#")]
        return {name: float(value) for name, _, value in (one.rpartition(" ") for one in lines)}

    before = figures()
    post(server.url, [file_of(picture(n)) for n in range(3)], headers=BEARER)
    post(server.url, [b"no image"], headers=BEARER)
    after = figures()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown("realbench_reward_images_total") == 3
    assert grown('realbench_reward_requests_total{status="200"}') == 1
    assert grown('realbench_reward_requests_total{status="415"}') == 1
    assert grown('realbench_reward_refused_total{reason="unreadable"}') == 1
    assert grown("realbench_reward_batch_images_sum") == 3
    assert grown("realbench_reward_batch_seconds_count") == 1
    assert after["realbench_reward_waiting_images"] == 0
    assert after["realbench_reward_memory_bytes"] == 0


def test_the_reward_fails_and_the_server_goes_on(server: Running) -> None:
    answer = post(server.url, [file_of(picture(1))], ["break"], headers=BEARER)
    assert answer.status_code == 500
    assert "on purpose" not in answer.text
    assert "RuntimeError: broken on purpose" in (server.folder / "stderr").read_text()
    still_serves(server)


# --- Who is not answered -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/reward", "/metrics", "/openapi.json"])
@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"{TOKEN} x"]
)
def test_nothing_is_told_without_the_token(server: Running, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = httpx.get(server.url + path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


def test_a_wrong_token_is_refused_before_the_body_is_read(server: Running) -> None:
    with _connected(server) as raw:
        raw.sendall(
            b"POST /v1/reward HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer wrong\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n--x"
        )
        start = time.monotonic()
        assert raw.recv(4096).startswith(b"HTTP/1.1 401 ")
        assert time.monotonic() - start < 5
        _ends(raw)


def test_two_tokens_are_none(server: Running) -> None:
    answer = httpx.get(f"{server.url}/metrics", headers=[("Authorization", f"Bearer {TOKEN}")] * 2)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_web_pages_are_refused(server: Running, headers: dict[str, str]) -> None:
    for path in ("/v1/reward", "/health"):
        answer = httpx.get(server.url + path, headers={**BEARER, **headers})
        assert answer.status_code == 403


def test_behind_a_token_a_proxy_may_have_a_name(server: Running) -> None:
    answer = httpx.get(f"{server.url}/v1/reward", headers={**BEARER, "Host": "rewards.example"})
    assert answer.status_code == 200


def test_the_token_is_in_no_argument_output_or_answer(server: Running) -> None:
    process = psutil.Process(server.process.pid)
    assert TOKEN not in " ".join(process.cmdline())
    assert TOKEN not in (server.folder / "stderr").read_text()
    assert TOKEN not in httpx.get(f"{server.url}/v1/reward", headers=BEARER).text
    assert TOKEN not in httpx.get(f"{server.url}/metrics", headers=BEARER).text


# --- What is not taken -------------------------------------------------------------------------


def _zip_bomb_png() -> bytes:
    """Return a PNG of few bytes that claims, and would become, 20,000 x 20,000 pixels."""
    header = b"\0\0\x4e\x20\0\0\x4e\x20\x08\x02\0\0\0"
    rows = zlib.compress(b"\0" * 10_000_000)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", rows)
        + png_chunk(b"IEND", b"")
    )


def _text_bomb_png() -> bytes:
    """Return a small picture with a text of 300 MB in a few kB."""
    text = b"Comment\0\0" + zlib.compress(b"\0" * 300_000_000, 9)
    return png(np.zeros((4, 4, 3), np.uint8), "rgb", chunks=((b"zTXt", text),))


def _pickle_npy() -> bytes:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("touch /tmp/realbench-pickle-ran",)

    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros((100, 100, 3), np.uint8))
    return buffer.getvalue()


def _zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\0" * 50_000_000)
    return buffer.getvalue()


def _npy_head(text: str, rest: bytes = b"") -> bytes:
    head = text.encode()
    return b"\x93NUMPY\x01\0" + len(head).to_bytes(2, "little") + head + rest


_GOOD_NPY = file_of(picture(1), "npy")
_HEAD = "{'descr': '|u1', 'fortran_order': False, 'shape': %s}\n"
_BAD_FILES = {
    "nothing": (b"", 415),
    "text": (b"hello", 415),
    "webp": (b"RIFF\x10\0\0\0WEBPVP8 ", 415),
    "truncated PNG": (file_of(picture(1))[:60], 422),
    "truncated JPEG": (file_of(picture(1), "jpeg")[:200], 422),
    "zip bomb PNG": (_zip_bomb_png(), 413),
    "text bomb PNG": (_text_bomb_png(), (200, 422)),
    "too many pixels": (file_of(np.zeros((400, 300, 3), np.uint8)), 413),
    "too many pixels NPY": (file_of(np.zeros((400, 300, 3), np.uint8), "npy"), 413),
    "too many images NPY": (file_of(np.zeros((9, 8, 8, 3), np.uint8), "npy"), 413),
    "truncated NPY": (_GOOD_NPY[:-1], 422),
    "NPY of a head": (_GOOD_NPY[:40], 422),
    "NPY with more": (_GOOD_NPY + b"\0", 422),
    "pickle in NPY": (_pickle_npy(), 422),
    "pickle": (pickle.dumps(picture(1)), 415),
    "npz": (_npz(), 415),
    "zip bomb": (_zip_bomb(), 415),
    "float NPY": (file_of(np.zeros((8, 8, 3), np.float32), "npy"), 422),
    "gray NPY": (file_of(np.zeros((8, 8), np.uint8), "npy"), 422),
    "NPY of no images": (file_of(np.zeros((0, 8, 8, 3), np.uint8), "npy"), 422),
    "NPY of no pixels": (file_of(np.zeros((0, 8, 3), np.uint8), "npy"), 422),
    "NPY that claims terabytes": (_npy_head(_HEAD % "(1000000, 1000000, 3)"), 422),
    "NPY of a negative side": (_npy_head(_HEAD % "(-1, -1, 3)", b"\0" * 3), 422),
    "NPY with a program for a head": (_npy_head("__import__('os').system('id')\n"), 422),
    "NPY with a nested head": (_npy_head("[" * 3000 + "]" * 3000), 422),
    "NPY with a long head": (_npy_head(_HEAD % "(1, 1, 3)" + " " * 60_000, b"\0" * 3), 422),
}


@pytest.mark.parametrize("name", _BAD_FILES)
def test_a_bad_file_is_refused_and_named(server: Running, name: str) -> None:
    data, status = _BAD_FILES[name]
    good = file_of(picture(9))
    memory = psutil.Process(server.process.pid).memory_info().rss
    answer = post(server.url, [good, data], headers=BEARER)
    assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
    if answer.status_code != 200 and "images in one request" not in answer.text:
        assert "file 1" in answer.json()["error"]
    assert psutil.Process(server.process.pid).memory_info().rss - memory < 150 * 2**20
    assert not Path("/tmp/realbench-pickle-ran").exists()
    still_serves(server)


@pytest.mark.parametrize(
    ("files", "prompts", "status", "says"),
    [
        (0, ["a"], 422, "no images"),
        (2, ["a", "b", "c"], 422, "images: 2, prompts: 3"),
        (2, [], 422, "images: 2, prompts: 0"),
        (9, ["a"], 413, "more than 8 images"),
        (1, ["a"] * 9, 413, "more than 8 prompts"),
        (1, ["a" * 20_001], 413, "20,000 characters"),
        (1, ["a" * 200_000], 413, "20,000 characters"),
    ],
)
def test_a_form_with_a_mistake_is_told(
    server: Running, files: int, prompts: list[str], status: int, says: str
) -> None:
    answer = post(server.url, [file_of(picture(1))] * files, prompts, headers=BEARER)
    if not files:  # httpx sends no multipart form without files
        assert answer.status_code == 415
        return
    assert answer.status_code == status
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"", 415),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"garbage", 400),
        ("multipart/form-data; boundary=" + "x" * 5000, b"--x--", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a" * 500_000, 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nabc',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="code"\r\n\r\nabc\r\n--x--\r\n',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="prompts"\r\n\r\n\xff\xfe\r\n--x--\r\n',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\n" + b"A: b\r\n" * 1000 + b"\r\n\r\n--x--\r\n",
            400,
        ),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n" * 10_000 + b"--x--\r\n", 400),
    ],
)
def test_what_is_no_form_is_refused(server: Running, kind: str, body: bytes, status: int) -> None:
    answer = httpx.post(
        f"{server.url}/v1/reward", content=body, headers={**BEARER, "Content-Type": kind}
    )
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    still_serves(server)


def test_a_huge_body_is_refused_by_its_head_and_the_client_can_read_why(server: Running) -> None:
    answer = post(server.url, [b"\0" * 3 * 2**20], headers=BEARER)
    assert answer.status_code == 413
    assert "1,048,576 bytes" in answer.json()["error"]
    assert answer.headers["connection"] == "close"


def test_a_huge_body_of_unknown_length_is_cut_off(server: Running) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        for _ in range(64):
            yield b"\0" * 2**18

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    memory = psutil.Process(server.process.pid).memory_info().rss
    answer = httpx.post(f"{server.url}/v1/reward", content=endless(), headers={**BEARER, **kind})
    assert answer.status_code == 413
    assert psutil.Process(server.process.pid).memory_info().rss - memory < 30 * 2**20
    still_serves(server)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_none(server: Running, method: str) -> None:
    answer = httpx.request(method, f"{server.url}/v1/reward", headers=BEARER)
    assert answer.status_code == 405


@pytest.mark.parametrize(
    "head",
    [
        b"\0\1\2\3\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/reward HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/reward HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 200_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\n\r\n",
    ],
)
def test_what_is_no_http_ends_alone(server: Running, head: bytes) -> None:
    with _connected(server) as raw:
        with suppress(OSError):  # a server may hang up before it has read all
            raw.sendall(head)
            raw.shutdown(socket.SHUT_WR)
        _ends(raw)
    still_serves(server)


def _connected(server: Running) -> socket.socket:
    port = int(server.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def _ends(raw: socket.socket) -> None:
    """Read until the server closes."""
    try:
        while raw.recv(65536):
            pass
    except ConnectionResetError:
        pass


# --- Many at once ------------------------------------------------------------------------------


def test_200_small_requests_at_once_are_all_answered(server: Running) -> None:
    expected = [n % 200 for n in range(200)]
    files = [file_of(picture(red)) for red in expected]
    with (
        httpx.Client(
            headers=BEARER, timeout=60, limits=httpx.Limits(max_connections=200)
        ) as client,
        ThreadPoolExecutor(200) as pool,
    ):
        barrier = threading.Barrier(200, timeout=60)

        def ask(data: bytes) -> httpx.Response:
            barrier.wait()
            return client.post(
                f"{server.url}/v1/reward", files={"images": data}, data={"prompts": ""}
            )

        answers = list(pool.map(ask, files))
    assert [one.status_code for one in answers] == [200] * 200
    red = [one.json()["components"]["red"][0] for one in answers]
    np.testing.assert_allclose(red, np.array(expected) / 255, rtol=1e-6)
    metrics = httpx.get(f"{server.url}/metrics", headers=BEARER).text
    batches = [line for line in metrics.splitlines() if "batch_requests_bucket" in line]
    single = next(float(one.split()[-1]) for one in batches if 'le="1.0"' in one)
    every = next(float(one.split()[-1]) for one in batches if 'le="+Inf"' in one)
    assert every - single > 0  # some passes had several requests


# --- Its end -----------------------------------------------------------------------------------


def _began(server: Running) -> None:
    end = time.monotonic() + 60
    while not (server.folder / "began").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_sigterm_lets_requests_finish_and_turns_new_ones_away(tmp_path: Path) -> None:
    with reward_server(tmp_path) as server, ThreadPoolExecutor(2) as pool:
        with httpx.Client() as kept:  # a connection that is open when the signal comes
            assert kept.get(f"{server.url}/health").status_code == 200
            slow = pool.submit(post, server.url, [file_of(picture(51))], ["sleep 3"])
            _began(server)
            server.process.send_signal(signal.SIGTERM)
            end = time.monotonic() + 2
            while kept.get(f"{server.url}/health").status_code != 503:
                assert time.monotonic() < end
            for _ in range(2):
                new = post(server.url, [file_of(picture(1))])
                assert new.status_code == 503
                assert "shutting down" in new.json()["error"]
                assert new.headers["retry-after"] == "5"
            assert not slow.done()
            answer = slow.result(60)
        assert answer.status_code == 200
        assert answer.json()["components"]["red"] == pytest.approx([0.2])
        assert server.process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")
    assert (tmp_path / "stderr").read_text() == ""


def test_for_a_moment_after_a_signal_requests_are_told_so(tmp_path: Path) -> None:
    with reward_server(tmp_path) as server:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # nothing is under way
        assert post(server.url, [file_of(picture(1))]).status_code == 503
        assert httpx.get(f"{server.url}/health").status_code == 503
        assert server.process.wait(30) == 0


def test_a_second_signal_and_the_end_of_the_time_end_it(tmp_path: Path) -> None:
    for drain, signals in (("0.3", 1), ("600", 2)):
        folder = tmp_path / drain
        with reward_server(folder, "--drain", drain) as server, ThreadPoolExecutor(1) as pool:
            slow = pool.submit(post, server.url, [file_of(picture(51))], ["sleep 8"])
            _began(server)
            for _ in range(signals):
                server.process.send_signal(signal.SIGINT)
                time.sleep(0.3)
            assert server.process.wait(30) == 0
            answer = slow.result(30)
            assert answer.status_code == 503  # so that a client asks the next server
            assert "retry-after" in answer.headers


@pytest.mark.slow
def test_files_that_take_seconds_hold_up_neither_others_nor_the_end(tmp_path: Path) -> None:
    """Eight JPEG files of 34 KB, each of which passes 29 times over 16 million pixels.

    On two free cores these take half a minute; the bounds leave room for a machine that is busy.
    """
    bomb = jpeg_of_scans(4096, 29)
    with reward_server(tmp_path, "--drain", "2") as server, ThreadPoolExecutor(8) as pool:
        post(server.url, [file_of(picture(51))])
        slow = [pool.submit(post, server.url, [bomb]) for _ in range(8)]
        time.sleep(0.5)
        start = time.monotonic()
        assert post(server.url, [file_of(picture(51))]).status_code == 200
        assert time.monotonic() - start < 10
        assert not all(one.done() for one in slow)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert time.monotonic() - start < 12
        assert {one.result(30).status_code for one in slow} <= {200, 503}


# --- How it starts -----------------------------------------------------------------------------


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that runs the command and returns the one line that it ends with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REALBENCH_SERVE_TOKEN", raising=False)

    def run(*arguments: str) -> str:
        with pytest.raises(UsageError) as raised:
            app(["serve", *arguments], standalone_mode=False)
        line = str(raised.value)
        assert "\n" not in line
        return line

    return run


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])
def test_other_addresses_need_a_token(refused: Callable[..., str], host: str) -> None:
    assert "set a token in $REALBENCH_SERVE_TOKEN" in refused("--host", host)


def test_a_command_that_is_refused_ends_with_2(tmp_path: Path) -> None:
    code = "from realbench.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--host", "0.0.0.0"]
    kept = {k: v for k, v in os.environ.items() if k != "REALBENCH_SERVE_TOKEN"}
    result = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr.startswith("error: others reach 0.0.0.0: ")
    assert len(result.stderr.splitlines()) == 1


def test_tokens_that_are_none(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("two words that are no token\n")
    file.chmod(0o600)
    line = refused("--token-file", str(file))
    assert "visible ASCII" in line
    assert "two words" not in line
    assert "cannot read the token file" in refused("--token-file", "nowhere")
    monkeypatch.setenv("REALBENCH_SERVE_TOKEN", "hunter2")
    short = refused()
    assert "16 or more" in short
    assert "hunter2" not in short


def test_a_token_file_is_used_and_wins_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o644)
    environment = {"REALBENCH_SERVE_TOKEN": "another-secret-of-this-test"}
    with reward_server(tmp_path, "--token-file", "token", environment=environment) as server:
        assert post(server.url, [file_of(picture(1))], headers=BEARER).status_code == 200
        other = {"Authorization": "Bearer another-secret-of-this-test"}
        assert post(server.url, [file_of(picture(1))], headers=other).status_code == 401
        assert "chmod 600" in (tmp_path / "stderr").read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "has no [reward] table"),
        ("[reward", "is no TOML"),
        ("[[reward.components]]\nkind = 'detectors'\nscale = 1", "reward.components[0].scale"),
        ("[reward]\ncomponents = []", "at least one component"),
        ("[reward]\nadvantage = 1", "reward.advantage: there is no such key; there are components"),
        ("[[reward.components]]\nkind = 'function'\nfunction = 'nowhere:f'", "nowhere cannot be"),
    ],
)
def test_a_config_with_a_mistake_is_one_line(
    refused: Callable[..., str], tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "reward.toml").write_text(text)
    assert says in refused("--config", "reward.toml")


def test_options_that_cannot_be_used(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "not by both" in refused("--config", "x.toml", "--detector", "trace-lite")
    assert "cannot read the config x.toml" in refused("--config", "x.toml")
    (tmp_path / "reward.toml").write_text(
        "[[reward.components]]\nkind = 'function'\nfunction = 'math:fsum'"
    )
    assert "no port 70000" in refused("--config", "reward.toml", "--port", "70000")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert "is in use" in refused("--config", "reward.toml", "--port", port)
