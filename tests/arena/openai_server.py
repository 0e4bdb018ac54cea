"""A chat-completions server on loopback that can see, and misbehaves on command.

It decodes the two pictures of a request and prefers the one with more red in it (a tie where they
are equal), so a client that mixes pictures up gets other verdicts.
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

TIE_WITHIN = 8
TOKENS = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


@dataclass
class Request:
    """One request as it came."""

    number: int
    time: float
    body: dict[str, Any]
    headers: dict[str, str]
    query: str
    pictures: list[Image.Image]
    pair: tuple[int, int]  # identities of the pictures: their blue channels
    asked_before: int  # how often this pair was asked before, in this order

    @property
    def texts(self) -> list[str]:
        """The texts of the messages, in order."""
        found = []
        for message in self.body["messages"]:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            found += [part["text"] for part in parts if part["type"] == "text"]
        return found


Fault = Callable[["Handler", Request], None]


@dataclass
class Server:
    """A running server; ``fault`` says for each request how to misbehave, or None."""

    url: str
    fault: Callable[[Request], Fault | None]
    delay: float = 0.0
    requests: list[Request] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    given_up: int = 0  # answers for which the client did not wait
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: dict[tuple[int, int], int] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        state: Server = self.server.state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.partition("?")[0] != "/v1/chat/completions":
            return self.send_json({"error": {"message": "no such page"}}, status=404)
        with state.lock:
            state.at_once += 1
            state.most_at_once = max(state.most_at_once, state.at_once)
        try:
            request = self._note(state, body)
            time.sleep(state.delay)
            fault = state.fault(request)
            if fault is None:
                self.answer(request)
            else:
                fault(self, request)
        except (BrokenPipeError, ConnectionResetError):
            state.given_up += 1
            self.close_connection = True
        finally:
            with state.lock:
                state.at_once -= 1

    def _note(self, state: Server, body: dict[str, Any]) -> Request:
        pictures = list(_pictures(body))
        pair = (_blue(pictures[0]), _blue(pictures[1]))
        headers = {name.title(): value for name, value in self.headers.items()}
        query = self.path.partition("?")[2]
        with state.lock:
            number, before = len(state.requests), state.asked.get(pair, 0)
            state.asked[pair] = before + 1
            request = Request(
                number, time.monotonic(), body, headers, query, pictures, pair, before
            )
            state.requests.append(request)
        return request

    def answer(self, request: Request) -> None:
        self.send_text(json.dumps(see(request.pictures)))

    def send_text(self, content: object, *, finish: str = "stop", **message: object) -> None:
        self.send_json(
            {
                "id": "x",
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": finish,
                        "message": {"role": "assistant", "content": content, **message},
                    }
                ],
                "usage": TOKENS,
            }
        )

    def send_json(
        self, value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_bytes(json.dumps(value).encode(), status=status, headers=headers)

    def send_bytes(
        self,
        data: bytes,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        cut_at: int | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:cut_at])
        self.wfile.flush()


def see(pictures: list[Image.Image]) -> dict[str, str]:
    """Answer as the template asks: the picture with more red is the photograph."""
    red = [_mean(picture, 0) for picture in pictures]
    verdict = "image_1" if red[0] > red[1] else "image_2"
    if abs(red[0] - red[1]) <= TIE_WITHIN:
        verdict = "tie"
    return {
        "image_1": f"Red {red[0]}.",
        "image_2": f"Red {red[1]}.",
        "comparison": "More red is more real.",
        "verdict": verdict,
    }


def _pictures(body: dict[str, Any]) -> Iterator[Image.Image]:
    for message in body["messages"]:
        if isinstance(message["content"], list):
            for part in message["content"]:
                if part["type"] == "image_url":
                    match = re.fullmatch(
                        "data:image/(jpeg|png);base64,(.*)", part["image_url"]["url"]
                    )
                    assert match, part
                    image = Image.open(io.BytesIO(base64.b64decode(match[2])))
                    assert image.format == match[1].upper()
                    yield image.convert("RGB")


def _mean(image: Image.Image, channel: int) -> int:
    return round(image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))[channel])


def _blue(image: Image.Image) -> int:
    return _mean(image, 2)


# --- Faults ------------------------------------------------------------------------------------


def rate_limited(headers: Mapping[str, str]) -> Fault:
    def fault(handler: Handler, _: Request) -> None:
        error = {"message": "slow down", "code": "rate_limit_exceeded"}
        handler.send_json({"error": error}, status=429, headers=headers)

    return fault


def rate_limited_until(seconds: float) -> Fault:
    """429 with the HTTP date that lies at least ``seconds`` ahead."""

    def fault(handler: Handler, request: Request) -> None:
        date = formatdate(time.time() + seconds + 1, usegmt=True)  # a date has whole seconds
        rate_limited({"Retry-After": date})(handler, request)

    return fault


def status(code: int, message: str = "something is wrong", **fields: object) -> Fault:
    def fault(handler: Handler, _: Request) -> None:
        handler.send_json({"error": {"message": message, **fields}}, status=code)

    return fault


def hang_up(handler: Handler, _: Request) -> None:
    """Close the connection in the middle of an answer."""
    handler.send_bytes(b'{"choices": [{"message": {"content": "' + b"x" * 500, cut_at=100)
    handler.close_connection = True
    handler.connection.shutdown(2)


def slow(seconds: float) -> Fault:
    def fault(handler: Handler, request: Request) -> None:
        time.sleep(seconds)
        handler.answer(request)

    return fault


def drip(seconds: float) -> Fault:
    """Send an answer byte by byte, each soon after the other, that takes for ever in all."""

    def fault(handler: Handler, _: Request) -> None:
        handler.send_bytes(b" " * 1000, cut_at=1)
        for _byte in range(int(seconds / 0.05)):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
        handler.close_connection = True

    return fault


def endless(handler: Handler, _: Request) -> None:
    """Send an answer without an end as fast as the client takes it."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(2**40))
    handler.end_headers()
    for _piece in range(10_000):
        handler.wfile.write(b" " * 2**20)
    handler.close_connection = True


def says(text: object, **options: object) -> Fault:
    def fault(handler: Handler, _: Request) -> None:
        handler.send_text(text, **options)  # type: ignore[arg-type]

    return fault


def raw(data: bytes, *, code: int = 200) -> Fault:
    def fault(handler: Handler, _: Request) -> None:
        handler.send_bytes(data, status=code)

    return fault


def body(value: object, *, code: int = 200) -> Fault:
    return raw(json.dumps(value).encode(), code=code)


def redirect(code: int, location: str) -> Fault:
    def fault(handler: Handler, _: Request) -> None:
        handler.send_json({}, status=code, headers={"Location": location})

    return fault


def echo_key(code: int) -> Fault:
    """Refuse with the request's key in the error's text, as some proxies do."""

    def fault(handler: Handler, request: Request) -> None:
        key = request.headers["Authorization"]
        handler.send_json({"error": {"message": f"bad request with {key}"}}, status=code)

    return fault


def says_key(handler: Handler, request: Request) -> None:
    """Put the key into the model's answer."""
    answer = see(request.pictures) | {"comparison": request.headers["Authorization"]}
    handler.send_text(json.dumps(answer))


refusal = says(None, refusal="I cannot compare these pictures.")
filtered = says("", finish="content_filter")
prose = says("The first image looks far more real to me, image_1 wins.")
wrong_keys = says(json.dumps({"winner": "image_1", "why": "light"}))
empty = says("")
cut = says('{"image_1": "Fine pores and', finish="length")


@contextmanager
def serve(fault: Callable[[Request], Fault | None] = lambda _: None) -> Iterator[Server]:
    """Run a server on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Server(f"http://127.0.0.1:{server.server_port}/v1", fault)
    server.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
