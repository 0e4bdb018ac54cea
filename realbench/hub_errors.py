"""Why something of the Hugging Face hub could not be loaded, in one line."""

from __future__ import annotations

_UNREACHED = {
    *("ConnectError", "ConnectTimeout", "ConnectionError", "ReadTimeout", "ProxyError"),
    *("OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectTimeoutError"),
}
_LENGTH = 500


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
        link = link.__cause__ or link.__context__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…"


def quiet_hub() -> None:
    """Keep what the hub's library prints about its attempts from the terminal."""
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()
    disable_progress_bars()
