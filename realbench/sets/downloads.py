"""Fetches a file over HTTP: told before, whole or absent, and taken up again where it broke off."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from realbench.errors import RealBenchError
from realbench.files import file_sha256
from realbench.http_client import connection_options, shown_url
from realbench.loopback import is_loopback
from realbench.text import byte_count, first_line, printable

if TYPE_CHECKING:
    import httpx

    from realbench.sets.cards import File

_ATTEMPTS = 4  # in a row in which not one byte came
_REDIRECTS = 5


def bar(what: str, *, unit: str, total: int | None = None, done: int = 0) -> Any:
    """Return a bar of progress, which is drawn on a terminal alone."""
    from tqdm import tqdm

    return tqdm(
        desc=what[:24],
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        leave=False,
        disable=not sys.stderr.isatty(),
    )


def download(file: File, target: Path, mend: str) -> None:
    """Fetch a file to ``target``, unless it is there; a part of it that is there is kept.

    Args:
        file: its address, and its SHA-256 where that is known.
        mend: what to do where there is no network, for messages.

    Raises:
        RealBenchError: it is not there, is another file, or does not come whole.
        OSError: it cannot be written.
    """
    if target.exists():
        return
    partial, mark = (target.with_name(f"{target.name}.{end}") for end in ("partial", "etag"))
    attempts = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        why = _fetch(file.url, partial, mark, mend)
        if not why:
            break
        gained = partial.exists() and partial.stat().st_size > before
        attempts = 0 if gained else attempts + 1
        if attempts == _ATTEMPTS:
            raise RealBenchError(f"{shown_url(file.url)} broke off ({why}): run it again to go on")
        if not gained:
            time.sleep(attempts / 2)
    if file.sha256 and (found := file_sha256(partial)) != file.sha256:
        partial.unlink()
        raise RealBenchError(
            f"{shown_url(file.url)} came with sha256 {found}, but its card says {file.sha256}: it "
            "was deleted; run it again, and if it happens again, do not use it"
        )
    partial.replace(target)
    mark.unlink(missing_ok=True)


def _fetch(url: str, partial: Path, mark: Path, mend: str) -> str:
    """Fetch what is missing of a file; return why it broke off, or an empty text."""
    import httpx

    start = partial.stat().st_size if partial.exists() and mark.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if start:  # what is there is of the same file, or the server sends the whole one
        headers |= {"Range": f"bytes={start}-", "If-Range": mark.read_text()}
    try:
        for _ in range(_REDIRECTS):
            with (
                httpx.Client(**connection_options(url), timeout=30) as client,
                client.stream("GET", url, headers=headers) as answer,
            ):
                if 300 <= answer.status_code < 400:
                    url = _next(url, answer.headers)
                    continue
                return _save(answer, start, partial, mark, url)
        raise RealBenchError(f"{shown_url(url)} is sent on more than {_REDIRECTS} times: {mend}")
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        reason = "is not reached" if not start else "is not reached any more"
        raise RealBenchError(f"{shown_url(url)} {reason}: {mend}") from error
    except httpx.HTTPError as error:
        return first_line(error, 100)


def _next(url: str, headers: Mapping[str, str]) -> str:
    """Return where a public file really lies; from there no way leads to this machine."""
    try:
        target = urljoin(url, headers.get("location", ""))
        old, new = urlsplit(url), urlsplit(target)
        here = is_loopback(new.hostname or "") and not is_loopback(old.hostname or "")
        usable = new.scheme == "https" or (new.scheme == "http" == old.scheme)
    except ValueError:
        usable, here = False, False
    if not usable or here:
        raise RealBenchError(f"{shown_url(url)} is sent on to an address that is not followed")
    return target


def _save(answer: httpx.Response, start: int, partial: Path, mark: Path, url: str) -> str:
    status = answer.status_code
    if status == 416:  # what is there is not a part of what lies there now
        partial.unlink(missing_ok=True)
        return "another file lies there now"
    if status == 429 or status >= 500:
        return f"HTTP {status}"
    goes_on = answer.headers.get("content-range", "").startswith(f"bytes {start}-")
    if status not in (200, 206) or (status == 206 and not goes_on):
        hint = "it needs a permission" if status in (401, 403) else "its card's address is wrong"
        raise RealBenchError(f"{printable(shown_url(url))} answers with HTTP {status}: {hint}")
    start = start if status == 206 else 0
    length = answer.headers.get("content-length")
    left = int(length) if length and length.isdigit() else None
    if left is not None and left > shutil.disk_usage(partial.parent).free:
        raise RealBenchError(
            f"{shown_url(url)} has {byte_count(left)}, and {printable(partial.parent)} has no room "
            "for it: free some space, or set REALBENCH_CACHE to another place"
        )
    tag = answer.headers.get("etag", "")
    same = tag if tag and not tag.startswith("W/") else answer.headers.get("last-modified", "")
    with partial.open("ab" if start else "wb") as out:
        mark.write_text(same) if same else mark.unlink(missing_ok=True)
        total = None if left is None else start + left
        with bar(Path(urlsplit(url).path).name, unit="B", total=total, done=start) as shown:
            for block in answer.iter_raw():
                out.write(block)
                shown.update(len(block))
    if left is not None and partial.stat().st_size != start + left:
        return "the connection ended early"
    return ""
