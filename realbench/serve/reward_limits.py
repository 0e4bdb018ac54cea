"""What the reward server takes at most, and who has to wait."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the reward server.

    Attributes:
        max_body: Bytes of one request.
        max_images: Images of one request.
        max_pixels: Width times height of one image.
        max_request_pixels: The same of a request's images together.
        max_prompt: Characters of one prompt.
        max_memory: Bytes of all requests at once, as sent and as decoded.
        max_waiting: Images that may wait for a forward pass.
        max_connections: Open connections.
        rate: Images per second that one address may send; None for any number.
        header_seconds: In which a request's head must arrive.
        body_seconds: In which a request's body must arrive, and longer by a second for every
            ``body_rate`` bytes of it.
        body_rate: Bytes per second that a sender is expected to reach.
    """

    max_body: int = 256 * 2**20
    max_images: int = 256
    max_pixels: int = 4096 * 4096
    max_request_pixels: int = 128 * 2**20
    max_prompt: int = 20_000
    max_memory: int = 2 * 2**30
    max_waiting: int = 4096
    max_connections: int = 512
    rate: float | None = None
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    body_rate: int = 256 * 2**10

    def describe(self) -> dict[str, Any]:
        """Return what a client has to keep to, as JSON values."""
        return {
            "max_body": self.max_body,
            "max_images": self.max_images,
            "max_pixels": self.max_pixels,
            "max_request_pixels": self.max_request_pixels,
            "max_prompt": self.max_prompt,
            "images_per_second": self.rate,
        }


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - an answer to the client, not a fault
    """A request that is not carried out.

    Attributes:
        status: HTTP status.
        reason: One line for whoever sent it.
        kind: Label in the metrics.
        retry_after: Seconds after which it may be sent again; None where that is of no use.
    """

    status: int
    reason: str
    kind: str
    retry_after: int | None = field(default=None, kw_only=True)


@dataclass
class MemoryBudget:
    """Bytes that all requests together hold."""

    limit: int
    used: int = 0

    def take(self, count: int) -> None:
        """Reserve bytes.

        Raises:
            Refusal: other requests hold too many; nothing is reserved.
        """
        if self.used + count > self.limit:
            raise Refusal(503, "too much is being sent at once: try again", "busy", retry_after=1)
        self.used += count

    def give_back(self, count: int) -> None:
        """Return bytes that were reserved."""
        self.used -= count


_ROUNDING = 1e-6  # who waits as long as was asked is let in, whatever the clock's last digits


class RateLimit:
    """A bucket of tokens for each address, one token an image.

    Args:
        rate: Images per second; None limits nothing.
        burst: Images that may come at once after a pause.
        clock: Seconds, growing.
    """

    _ADDRESSES = 10_000

    def __init__(
        self, rate: float | None, burst: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = float(max(burst, math.ceil(rate or 0)))
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, images: int) -> None:
        """Take an image's token for each image.

        Raises:
            Refusal: the address has sent too many; it says when there will be enough.
        """
        if self._rate is None:
            return
        now = self._clock()
        left, since = self._buckets.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        enough = left >= images - _ROUNDING
        self._buckets[address] = (max(0.0, left - images) if enough else left, now)
        if len(self._buckets) > self._ADDRESSES:
            self._buckets.popitem(last=False)
        if not enough:
            wait = max(1, math.ceil((images - left) / self._rate))
            raise Refusal(
                429,
                f"more than {self._rate:g} images per second: try again in {wait} s",
                "rate",
                retry_after=wait,
            )
