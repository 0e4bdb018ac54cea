"""The part of the Hugging Face hub that downloads need, played by a server on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories of files; every revision that is asked for has them.

    Attributes:
        files: their bytes, by repository and name.
        sent: other bytes that are sent instead, though their hash is not declared.
        cut: after how many bytes a connection breaks, and how many do so.
        slow: seconds that 64 kB take.
        asked: what was asked for: method and path, and where from.
    """

    files: dict[str, dict[str, bytes]]
    sent: dict[str, bytes] = field(default_factory=dict)
    cut: tuple[int, int] = (0, 0)
    slow: float = 0.0
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a machine that reaches this hub, and no proxy."""
        kept = {name: value for name, value in own.items() if not name.lower().endswith("_proxy")}
        here = {"HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return kept | here

    @contextlib.contextmanager
    def serving(self) -> Iterator[Hub]:
        hub = self

        class Handler(_Handler):
            played = hub

        server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{server.server_port}"
        yield self
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that was killed."""


class _Handler(BaseHTTPRequestHandler):
    played: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        start = int(re.sub(r"\D", "", self.headers.get("Range") or "0") or 0)
        self.played.asked.append(f"{self.command} {self.path} {start}")
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            self._tell_of(*_split(path.removeprefix("/api/models/"), "/revision/"))
            return
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        files = self.played.files.get(repo)
        if files is None or name not in files:
            self._refuse("RepoNotFound" if files is None else "EntryNotFound")
            return
        content = self.played.sent.get(name, files[name])[start:]
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", _commit(revision))
        self.send_header("ETag", f'"{hashlib.sha256(files[name]).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        if start:
            whole = start + len(content)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.end_headers()
        if body:
            after, times = self.played.cut
            if times and len(content) > after:
                self.played.cut = (after, times - 1)
                content = content[:after]
            for first in range(0, len(content), 65_536):
                time.sleep(self.played.slow)
                self.wfile.write(content[first : first + 65_536])

    def _tell_of(self, repo: str, revision: str) -> None:
        files = self.played.files.get(repo)
        if files is None:
            self._refuse("RepoNotFound")
            return
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        told = {"id": repo, "modelId": repo, "sha": _commit(revision), "siblings": siblings}
        text = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def _split(path: str, at: str) -> tuple[str, str]:
    repo, _, revision = path.partition(at)
    return repo, revision


def _commit(revision: str) -> str:
    return revision if re.fullmatch("[0-9a-f]{40}", revision) else COMMIT
