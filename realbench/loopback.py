"""Serves an app from a thread of this process, and says which requests come from its own pages."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from realbench.errors import RealBenchError, UsageError

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_HEADERS = {
    # Pages load nothing but files of their own and run no inline script, so that a text that got
    # into one unescaped could still do nothing.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@contextmanager
def serving(app: App, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve an ASGI app until the context ends; yield its address, such as ``http://[::1]:80``.

    Args:
        host: The address to listen on; a loopback one is reached from this machine alone.

    Raises:
        UsageError: the port is in use or not allowed, or there is no such address here.
        RealBenchError: the server does not start.
    """
    import uvicorn

    listening = listen(host, port)
    config = uvicorn.Config(
        OwnPagesOnly(app, host),
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="realbench-serve", daemon=True
    )
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RealBenchError(f"the server on {host} did not start")
            time.sleep(0.005)
        yield f"http://{reachable(host)}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 takes a free one.

    Raises:
        UsageError: the port is in use or not allowed, or there is no such address here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
        # Inherited by every connection: otherwise each answer's body waits 40 ms for the other
        # side to acknowledge the head. asyncio sets it only where it made the socket itself.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        code = getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            why = f"port {port} is in use; give another one with --port, or 0 for any free one"
        elif code == errno.EACCES:
            why = f"port {port} is not allowed to this user; give one above 1023 with --port"
        elif isinstance(error, OverflowError):
            why = f"no port {port}: --port takes 0 to 65535"
        else:
            why = f"cannot listen on {host}: {getattr(error, 'strerror', None) or error}"
        raise UsageError(why) from error


def reachable(host: str) -> str:
    """Return what to write into an address for what is listened on."""
    if host in ("0.0.0.0", "::"):
        host = _own_address() or "localhost"
    return f"[{host}]" if ":" in host else host


def _own_address() -> str | None:
    """Return this machine's address on its network; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address that belongs to nobody
        except OSError:
            return None
        return str(probe.getsockname()[0])


class OwnPagesOnly:
    """Refuses what other web sites make a browser send, and sets headers of caution.

    A web site can point a name of its own at 127.0.0.1 (DNS rebinding) or post to it from
    another origin; the names in ``Host`` and ``Origin`` give both away.
    """

    def __init__(self, app: App, host: str) -> None:
        self._app = app
        self._host = host.casefold()

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        refusal = self._refusal(str(scope["method"]), headers)
        if refusal:
            await _refuse(refusal, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_encoded(_HEADERS)]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: dict[str, list[str]]) -> str | None:
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return "this server does not answer to that name; open the address that it printed"
        if method in ("GET", "HEAD"):
            return None
        origins = headers.get("origin", [])
        if any(origin.casefold() != f"http://{hosts[0].casefold()}" for origin in origins):
            return "requests from other web sites are refused"
        if any(site not in ("same-origin", "none") for site in headers.get("sec-fetch-site", [])):
            return "requests from other web sites are refused"
        kind = headers.get("content-type", [""])[0].split(";")[0].strip()
        return None if kind == "application/json" else "the body must be application/json"

    def _is_own(self, host: str) -> bool:
        """Whether ``Host`` names this server: never by a name that somebody else can give it."""
        name = host_name(host)
        if name in ("localhost", self._host):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self._host)


def host_name(host: str) -> str:
    """Return the name or address of a ``Host`` header, without its port; empty where malformed."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]+))(?::[0-9]*)?", host.casefold())
    return (found[1] or found[2]) if found else ""


def is_loopback(host: str) -> bool:
    """Whether an address or name is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _refuse(why: str, send: _Send) -> None:
    headers = _encoded({**_HEADERS, "content-type": "text/plain; charset=utf-8"})
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
