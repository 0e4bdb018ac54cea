"""The human judge's page over HTTP: who is answered, with what, and when a vote is confirmed."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import realbench.arena.page.human_page as page_module
from realbench.arena.page.human_page import (
    GUIDANCE,
    QUESTION,
    PagePicture,
    Pair,
    Request,
    VotingSession,
    human_page,
)
from realbench.errors import UsageError
from realbench.images import UnreadableImage
from realbench.loopback import serving

TOKEN = "secret-of-this-session"
PROMPT = "a fox & <b>hens</b>"


def picture(data: bytes) -> PagePicture:
    return PagePicture(lambda: (data, "image/png"))


@pytest.fixture
def session() -> VotingSession:
    session = VotingSession()
    for number in range(3):
        left, right = (picture(f"{side} {number}".encode()) for side in ("left", "right"))
        session.offer(Pair(PROMPT, left, right))
    session.exhaust()
    return session


@pytest.fixture
def address(session: VotingSession) -> Iterator[str]:
    with serving(human_page(session, TOKEN)) as address:
        yield address
        session.end()


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=f"{address}/{TOKEN}/", headers=headers, timeout=10) as client:
        yield client


@pytest.fixture
def judging(session: VotingSession) -> Iterator[list[tuple[str, str]]]:
    """Confirm every request, as a judge does; the list tells which there were."""
    done: list[tuple[str, str]] = []

    def judge() -> None:
        while (request := session.next_request()) is not None:
            done.append((request.kind, request.choice))
            session.confirm(request)

    thread = threading.Thread(target=judge)
    thread.start()
    yield done
    session.submit(Request("finish"))
    thread.join(10)
    assert not thread.is_alive()


def vote(client: httpx.Client, pair: str, choice: str = "left", **more: Any) -> httpx.Response:
    return client.post("vote", json={"pair": pair, "choice": choice, **more})


# --- What is sent ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "page.css", "page.js", "zoom.js", "icon.svg", "state"])
def test_nothing_is_cached_framed_or_taken_from_elsewhere(client: httpx.Client, name: str) -> None:
    answer = client.get(name)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "server" not in answer.headers


def test_the_page_has_no_code_or_style_in_its_text_and_no_foreign_address(
    client: httpx.Client,
) -> None:
    page = client.get("").text
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page)
    for name in ("", "page.css", "page.js", "zoom.js"):
        text = client.get(name).text.replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"(?m)^\s*//.*|\s// .*", "", text)


def test_the_page_asks_what_the_fingerprint_covers(client: httpx.Client) -> None:
    page = client.get("").text
    assert f"<h1>{QUESTION}</h1>" in page
    assert GUIDANCE in page


def test_a_picture_comes_whole_under_a_name_that_tells_nothing(client: httpx.Client) -> None:
    pairs = client.get("state").json()["pairs"]
    assert [pair["prompt"] for pair in pairs] == [PROMPT] * 3
    names = [pair[side] for pair in pairs for side in ("left", "right")]
    assert len(set(names)) == 6
    for name, content in zip(names, ("left 0", "right 0", "left 1", "right 1"), strict=False):
        assert re.fullmatch(r"image/[\w-]{16}", name)
        answer = client.get(name)
        assert answer.content == content.encode()
        assert answer.headers["content-type"] == "image/png"
        assert not {"content-disposition", "etag", "last-modified"} & set(answer.headers)


def test_a_picture_that_is_gone_is_said_to_be(client: httpx.Client, session: VotingSession) -> None:
    def load() -> tuple[bytes, str]:
        raise UnreadableImage("no such file")

    gone = PagePicture(load)
    session.offer(Pair(None, gone, picture(b"x")))
    assert client.get(f"image/{gone.token}").status_code == 410
    assert client.get("image/another").status_code == 404


# --- Who is answered ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "state", "wrong/", "wrong/state", "docs", "openapi.json"])
def test_nothing_is_answered_without_the_token(address: str, path: str) -> None:
    answer = httpx.get(f"{address}/{path}")
    assert answer.status_code == 404
    assert TOKEN not in answer.text
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("127.0.0.1@evil.example", "192.168.1.7", "[2001:db8::1]", "", "x[::1]"),
        *("[::1].evil.example", "[::1]evil", "[::1", "127.0.0.1:80:evil.example"),
    ],
)
def test_foreign_names_of_this_machine_are_refused(client: httpx.Client, host: str) -> None:
    assert client.get("state", headers={"Host": host}).status_code == 403
    assert client.post("finish", json={}, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:99", "LOCALHOST", "127.0.0.1", "[::1]:8000"])
def test_own_names_are_answered_on_any_port_as_behind_an_ssh_tunnel(
    client: httpx.Client, host: str
) -> None:
    assert client.get("state", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_posts_from_other_web_sites_are_refused(
    client: httpx.Client,
    session: VotingSession,
    judging: list[tuple[str, str]],
    headers: dict[str, str],
) -> None:
    pair = session.state()["pairs"][0]["id"]
    body = f'{{"pair": "{pair}", "choice": "left"}}'
    assert client.post("vote", content=body, headers=headers).status_code == 403
    assert judging == []
    own = {
        "Origin": str(client.base_url).removesuffix(f"/{TOKEN}/"),
        "Sec-Fetch-Site": "same-origin",
    }
    assert client.post("vote", content=body, headers=own).status_code == 200
    assert judging == [("vote", "left")]


def test_on_a_network_addresses_are_answered_and_names_are_not(session: VotingSession) -> None:
    with serving(human_page(session, TOKEN), host="0.0.0.0") as address:
        port = address.rpartition(":")[2]
        state = f"http://127.0.0.1:{port}/{TOKEN}/state"
        assert httpx.get(state).status_code == 200
        assert httpx.get(state, headers={"Host": f"192.168.1.7:{port}"}).status_code == 200
        assert httpx.get(state, headers={"Host": f"evil.example:{port}"}).status_code == 403


# --- Votes -------------------------------------------------------------------------------------


def test_a_vote_is_confirmed_only_when_the_judge_says_so(
    client: httpx.Client, session: VotingSession
) -> None:
    first, second, _ = (pair["id"] for pair in session.state()["pairs"])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(vote, client, first, "right", seconds=1.5)
        request = session.next_request()
        assert request is not None
        assert (request.kind, request.choice, request.seconds) == ("vote", "right", 1.5)
        with pytest.raises(TimeoutError):
            answer.result(0.3)
        assert session.state()["session"] == 0
        session.confirm(request)
        after = answer.result(10)
    assert after.status_code == 200
    assert after.json()["session"] == 1
    assert after.json()["pairs"][0]["id"] == second


def test_a_vote_that_is_never_confirmed_is_said_to_be_unsafe(
    client: httpx.Client, session: VotingSession
) -> None:
    pair = session.state()["pairs"][0]["id"]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(vote, client, pair)
        request = session.next_request()
        waiting = pool.submit(client.post, "undo", json={})
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        session.end(unconfirmed=request)
        assert first.result(10).status_code == 503
        assert waiting.result(10).status_code == 503
    later = vote(client, pair)
    assert later.status_code == 503
    assert later.json()["phase"] == "ended"
    assert later.json()["session"] == 0


def test_a_vote_on_another_pair_than_the_current_one_changes_nothing(
    client: httpx.Client, judging: list[tuple[str, str]]
) -> None:
    first, second, _ = (pair["id"] for pair in client.get("state").json()["pairs"])
    assert vote(client, second).status_code == 409
    assert vote(client, first).status_code == 200
    again = vote(client, first, "right")  # another window, or a reply that got lost
    assert again.status_code == 409
    assert again.json()["pairs"][0]["id"] == second
    assert judging == [("vote", "left")]


def test_undo_goes_back_pair_by_pair(client: httpx.Client, judging: list[tuple[str, str]]) -> None:
    assert client.post("undo", json={}).status_code == 409
    ids = [pair["id"] for pair in client.get("state").json()["pairs"]]
    for pair in ids:
        assert vote(client, pair, "tie").status_code == 200
    last = client.get("state").json()
    assert (last["phase"], last["complete"], last["pairs"]) == ("last", True, [])
    for left in (1, 2, 3):
        after = client.post("undo", json={}).json()
        assert [pair["id"] for pair in after["pairs"]] == ids[-left:]
        assert (after["phase"], after["session"]) == ("voting", 3 - left)
    assert not after["can_undo"]
    assert [kind for kind, _ in judging] == ["vote"] * 3 + ["undo"] * 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"pair": 1, "choice": "left"},
        {"pair": "x", "choice": "both"},
        {"pair": "x" * 65, "choice": "left"},
        {"pair": "x", "choice": "left", "seconds": -1},
        {"pair": "x", "choice": "left", "seconds": "NaN"},
        {"pair": "x", "choice": "left", "contestant": "y"},
        [],
    ],
)
def test_what_is_no_vote_is_refused(
    client: httpx.Client, judging: list[tuple[str, str]], body: Any
) -> None:
    assert client.post("vote", json=body).status_code == 422
    assert judging == []


def test_finish_ends_the_session(client: httpx.Client, session: VotingSession) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "finish", json={})
        assert session.next_request() is None
        assert answer.result(10).status_code == 200
    assert answer.result().json()["phase"] == "ended"
    assert not answer.result().json()["complete"]


def test_the_last_vote_can_be_taken_back_for_a_while(
    session: VotingSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "SECONDS_TO_UNDO", 0.3)
    for pair in session.state()["pairs"]:
        session.submit(Request("vote", pair_token=pair["id"]))
        request = session.next_request()
        assert request is not None
        session.confirm(request)
    session.submit(Request("undo"))
    request = session.next_request()
    assert request is not None
    session.confirm(request)
    assert session.state()["phase"] == "voting"
    session.submit(Request("vote", pair_token=session.state()["pairs"][0]["id"]))
    request = session.next_request()
    assert request is not None
    session.confirm(request)
    assert 0 < session.state()["closes_in"] <= 0.3
    assert session.next_request() is None


# --- The server --------------------------------------------------------------------------------


def test_a_port_in_use_is_one_line(session: VotingSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(UsageError, match=rf"^port {port} is in use; .*--port[^\n]*$"),
            serving(human_page(session, TOKEN), port=port),
        ):
            pass


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("127.0.0.1", 70_000, "no port 70000"),
        ("no-such-host.invalid", 0, "cannot listen on no-such-host.invalid"),
        ("192.0.2.1", 0, r"cannot listen on 192\.0\.2\.1"),
    ],
)
def test_no_such_address_is_one_line(
    session: VotingSession, host: str, port: int, says: str
) -> None:
    with (
        pytest.raises(UsageError, match=says) as raised,
        serving(human_page(session, TOKEN), host=host, port=port),
    ):
        pass
    assert "\n" not in str(raised.value)


def test_the_server_listens_on_loopback_alone_and_frees_its_port(session: VotingSession) -> None:
    with serving(human_page(session, TOKEN)) as address:
        assert address.startswith("http://127.0.0.1:")
        port = int(address.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5).close()
    with serving(human_page(session, TOKEN), port=port) as again:
        assert again == address
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/{TOKEN}/")


@pytest.mark.parametrize(
    "body",
    [
        b'{"pair": "x", "choice": "left", "seconds": 1e999}',
        b'{"pair": "x", "choice": "left", "seconds": -1e999}',
        b'{"pair": "x", "choice": "left", "seconds": NaN}',
        b'{"pair": "x", "choice": "left", "seconds": Infinity}',
        b'{"pair": "x", "choice": "left", "seconds": ' + b"9" * 3900 + b"}",
        b'{"pair": "x", "choice": 1e999}',
        b'{"pair": "\\ud800", "choice": "\\ud800"}',
        b'{"pair": "\xff", "choice": "left"}',
        b"[" * 4000,
        b"",
        b"null",
        b"1e999",
    ],
)
def test_no_text_of_a_vote_is_an_error_of_the_server(
    client: httpx.Client, judging: list[tuple[str, str]], body: bytes
) -> None:
    answer = client.post("vote", content=body)
    assert answer.status_code == 422
    assert answer.text.startswith("this is no vote: ")
    assert "\n" not in answer.text
    assert judging == []


def test_a_vote_that_is_too_large_is_refused_before_it_is_read(address: str) -> None:
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST /{TOKEN}/vote HTTP/1.1\r\nHost: {host}:{port}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            "2000\r\n".encode()
            + b" " * 0x2000
        )
        # The rest never comes: the answer does all the same.
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
