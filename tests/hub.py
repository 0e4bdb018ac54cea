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
        files: their bytes, by repository and name; a dataset is called ``datasets/owner/name``.
        pages: bytes at other paths.
        sent: other bytes that are sent instead, though their hash is not declared.
        cut: after how many bytes a connection breaks, and how many do so.
        slow: seconds that 64 kB take.
        asked: what was asked for: method and path, and where from.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    pages: dict[str, bytes] = field(default_factory=dict)
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
        poll = {"poll_interval": 0.02}  # how long the end waits
        threading.Thread(target=server.serve_forever, kwargs=poll, daemon=True).start()
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

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        asked = json.loads(self.rfile.read(length) or b"{}")
        repo, _, _ = self.path.removeprefix("/api/").partition("/paths-info/")
        names = [name for name in self._files(repo) if name in asked.get("paths", ())]
        self._send_json([self._entry(repo, name) for name in names])

    def _answer(self, *, body: bool) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted else 0
        self.played.asked.append(f"{self.command} {self.path} {start}")
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            self._tell_of(*_split(path.removeprefix("/api/models/"), "/revision/"))
            return
        if path.startswith("/api/datasets/"):
            self._tell_of_dataset(path.removeprefix("/api/"))
            return
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        files = self.played.files.get(repo)
        if path in self.played.pages:
            files, name = self.played.pages, path
        if files is None or name not in files:
            self._refuse("RepoNotFound" if files is None else "EntryNotFound")
            return
        tag = f'"{hashlib.sha256(files[name]).hexdigest()}"'
        if self.headers.get("If-Range", tag) != tag:
            start, wanted = 0, None
        whole = self.played.sent.get(name, files[name])
        end = int(wanted[2]) + 1 if wanted and wanted[2] else len(whole)
        content = whole[start:end]
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", _commit(revision))
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content)))
        if wanted:
            last = start + len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(whole)}")
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
        self._send_json(told)

    def _files(self, repo: str) -> dict[str, bytes]:
        return self.played.files.get(repo, {})

    def _entry(self, repo: str, name: str) -> dict[str, object]:
        data = self._files(repo)[name]
        digest = hashlib.sha1(data).hexdigest()
        return {"type": "file", "path": name, "size": len(data), "oid": digest}

    def _tell_of_dataset(self, path: str) -> None:
        repo, tree, rest = path.partition("/tree/")
        if not tree:
            repo, _, rest = path.partition("/revision/")
        if repo not in self.played.files:
            self._refuse("RepoNotFound")
        elif tree:
            folder = "".join(f"{part}/" for part in rest.split("/")[1:])
            below = [one for one in self._files(repo) if one.startswith(folder)]
            here = [one for one in below if "/" not in one[len(folder) :]]
            folders = {folder + one[len(folder) :].split("/")[0] for one in {*below} - {*here}}
            listed = [{"type": "directory", "path": one, "oid": "0" * 40} for one in folders]
            self._send_json([*listed, *(self._entry(repo, name) for name in here)])
        else:
            siblings = [{"rfilename": name} for name in self._files(repo)]
            name = repo.removeprefix("datasets/")
            self._send_json({"id": name, "sha": _commit(rest), "siblings": siblings, "tags": []})

    def _send_json(self, told: object) -> None:
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
