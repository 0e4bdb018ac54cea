"""What the reward server tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class RewardMetrics:
    """Counters of one server.

    Attributes:
        content_type: Of what :meth:`text` returns.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        name = "realbench_reward"
        self._requests = Counter(
            f"{name}_requests", "Requests answered, by HTTP status", ["status"], registry=registry
        )
        self._refused = Counter(
            f"{name}_refused", "Requests refused, by reason", ["reason"], registry=registry
        )
        self._images = Counter(f"{name}_images", "Images that were rewarded", registry=registry)
        self._seconds = Histogram(
            f"{name}_request_seconds",
            "From a request's head to its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch_images = Histogram(
            f"{name}_batch_images", "Images in a pass", buckets=_IMAGES, registry=registry
        )
        self._batch_requests = Histogram(
            f"{name}_batch_requests", "Requests in a pass", buckets=_IMAGES, registry=registry
        )
        self._batch_seconds = Histogram(
            f"{name}_batch_seconds", "Seconds of a pass", buckets=_SECONDS, registry=registry
        )

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a figure that is asked for when it is read, such as how many images wait."""
        gauge = Gauge(f"realbench_reward_{name}", text, registry=self._registry)
        gauge.set_function(value)

    def count_request(self, status: int, seconds: float, images: int) -> None:
        """Count an answered request; ``images`` is how many were rewarded."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)
        self._images.inc(images)

    def count_refusal(self, reason: str) -> None:
        """Count a refused request under one of few fixed words."""
        self._refused.labels(reason).inc()

    def count_batch(self, requests: int, images: int, seconds: float) -> None:
        """Count a pass."""
        self._batch_requests.observe(requests)
        self._batch_images.observe(images)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)
