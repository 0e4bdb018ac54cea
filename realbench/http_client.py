"""What every client over HTTP here keeps to: where secrets go, proxies, redirects and pauses."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from realbench.errors import UsageError
from realbench.loopback import is_loopback
from realbench.text import printable


def shown_url(url: str) -> str:
    """Return a URL without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")


def check_confidential(url: str, secret: str) -> None:
    """Refuse to send a secret where everybody on the way can read it.

    Raises:
        UsageError: ``url`` is plain HTTP to another machine; ``secret`` says what is not sent.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise UsageError(
            f"{secret} is not sent to {shown_url(url)} over plain HTTP: give its https:// address, "
            "or a tunnel's on this machine"
        )


def connection_options(url: str) -> dict[str, Any]:
    """Return the arguments of an httpx client that talks to this one address.

    Redirects are not followed, since pictures and key are for this address alone. A proxy of the
    environment (``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY``, ``NO_PROXY``) is never used for
    this machine itself.

    Raises:
        UsageError: the proxy that the environment names cannot be used.
    """
    import httpx

    return {
        "follow_redirects": False,
        "trust_env": False,  # its proxies are chosen here, one bad one among them would end it all
        "proxy": _proxy(url),
        "verify": httpx.create_ssl_context(),  # heeds SSL_CERT_FILE and SSL_CERT_DIR
    }


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    kind = parts.scheme if parts.scheme in proxies else "all"
    proxy = proxies.get(kind)
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    scheme, variable = proxy.partition("://")[0].casefold(), f"{kind.upper()}_PROXY"
    remedy = f"unset {variable}, or name {printable(host)} in NO_PROXY"
    if scheme in ("socks5", "socks5h"):
        if importlib.util.find_spec("socksio") is None:
            raise UsageError(
                f"{variable} names a SOCKS proxy: pip install 'httpx[socks]' for it, {remedy}"
            )
    elif scheme not in ("http", "https"):
        raise UsageError(
            f"{variable} names a proxy of the kind {printable(scheme)[:20]}, which is not known "
            f"(http, https and socks5 are): correct it, {remedy}"
        )
    try:
        valid = bool(urlsplit(proxy).hostname) and urlsplit(proxy).port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"{variable} is no address of a proxy: correct it, {remedy}")
    return proxy


def redirect_refusal(url: str, status: int, headers: Mapping[str, str]) -> str | None:
    """Return one line on a redirect, which is not followed; None where the answer is none."""
    if not 300 <= status < 400:
        return None
    try:
        target = shown_url(urljoin(url, headers.get("location", "")))
    except ValueError:
        target = "an address that is none"
    return (
        f"{shown_url(url)} sends requests on to {printable(target)[:200]} (HTTP {status}), which "
        "is not followed: give that address itself if you trust it"
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, or None where it does not.

    ``Retry-After`` is a number of seconds or an HTTP date (RFC 9110, 10.2.3); the number of
    milliseconds in ``retry-after-ms``, which OpenAI sends beside it, is more exact and goes first.
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        if not math.isnan(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
