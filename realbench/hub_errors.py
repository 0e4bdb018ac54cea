"""The Hugging Face hub: whether it answers, why it does not, in a line, and that none runs code."""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_UNREACHED = {
    *("ConnectError", "ConnectTimeout", "ConnectionError", "ReadTimeout", "ProxyError"),
    *("OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectTimeoutError"),
}
_LENGTH = 500
NEEDS_ITS_OWN_CODE = (
    "it needs Python code of its own, which is never run; use a model that the library itself knows"
)


def hub_is_reached() -> bool:
    """Whether the hub may be asked, and answers; its own client would try for half a minute."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _reachable(constants.ENDPOINT)


def _reachable(endpoint: str) -> bool:
    """Whether a server answers. Proxies are trusted."""
    if urllib.request.getproxies():
        return True
    address = urllib.parse.urlsplit(endpoint)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True


def hub_reason(error: BaseException) -> str:
    """Return one line on an error of a library that loads from the hub.

    Where no network lies at the bottom of it, these libraries speak of caches and stack traces.
    """
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if _UNREACHED & {one.__name__ for one in type(link).__mro__}:
            return "the hub cannot be reached, and it is not in the local cache"
        if "trust_remote_code" in str(link):
            return NEEDS_ITS_OWN_CODE
        link = link.__cause__ or link.__context__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…"


@contextmanager
def without_own_code() -> Iterator[None]:
    """Refuse to run Python code that comes with a model, whatever its settings say.

    For libraries that pass a model's own settings on to transformers: ``trust_remote_code`` may be
    one of them, and where nobody gives it, transformers asks at the terminal.
    """
    from transformers import dynamic_module_utils as module

    def refuse(*_: object, **__: object) -> Any:
        raise ValueError(NEEDS_ITS_OWN_CODE)

    before = module.get_class_in_module, module.TIME_OUT_REMOTE_CODE
    module.get_class_in_module, module.TIME_OUT_REMOTE_CODE = refuse, 0
    try:
        yield
    finally:
        module.get_class_in_module, module.TIME_OUT_REMOTE_CODE = before


def quiet_hub() -> None:
    """Keep what the hub's library prints about its attempts from the terminal."""
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()
    disable_progress_bars()


def quiet_models() -> None:
    """Do the same for transformers: what it prints is for programmers."""
    from transformers.utils import logging

    quiet_hub()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
