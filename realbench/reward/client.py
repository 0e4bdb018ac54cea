"""Asks a reward server: a callable from images and prompts to rewards, with retries."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import httpx
import numpy as np

from realbench.errors import RealBenchError, UsageError
from realbench.http_client import connection_options, redirect_refusal, retry_after
from realbench.reward.config import HttpConfig, Named
from realbench.reward.token import Token, find_token
from realbench.text import printable

if TYPE_CHECKING:
    import torch
    from PIL import Image

    Images = Sequence[Image.Image | np.ndarray] | torch.Tensor

Encoding = Literal["npy", "png", "jpeg"]

_AGAIN = frozenset({429, 502, 503, 504})
"""Statuses that pass: busy, draining, or a proxy whose server is being restarted."""

_LONGEST_WAIT = 60.0
_CONNECT_SECONDS = 10.0


class RewardClient:
    """The reward of a server (:class:`~realbench.reward.reward.Reward`).

    >>> reward = RewardClient("http://127.0.0.1:8765")
    >>> reward(images, prompts)  # float32 (n,)

    A request is sent again, after a growing and random pause or what ``Retry-After`` says, when
    the server cannot be reached, breaks off, or answers 429, 502, 503 or 504. Other answers of
    4xx, and 500, would be the same again and are errors at once. Threads may share a client, and
    a copy in another process opens connections of its own.

    Args:
        url: Of the server, without a path of the interface.
        token: Where the server wants one; by default what ``$REALBENCH_SERVE_TOKEN`` holds.
        encoding: ``npy`` and ``png`` keep images as they are, ``jpeg`` (quality 95) does not.
        images_per_request: At most; they are sent in requests of like size.
        connections: Requests under way at once.
        timeout: Seconds without a byte from the server after which a request has failed.
        retries: How often a request is sent again.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        encoding: Encoding = "npy",
        images_per_request: int = 32,
        connections: int = 4,
        timeout: float = 120.0,
        retries: int = 5,
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token or find_token()
        self._encoding: Encoding = encoding
        self._images_per_request = images_per_request
        self._connections = connections
        self._timeout = timeout
        self._retries = retries
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def __repr__(self) -> str:
        return f"RewardClient({self._url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __call__(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """Return the reward of each image, float32 (n,), in [0, 1].

        Args:
            images: PIL images, uint8 RGB arrays (H, W, 3) of any size, or a uint8 tensor
                (n, 3, H, W).
            prompts: The text of each.

        Raises:
            UsageError: images or prompts of another kind or number, or refused by the server.
            RealBenchError: the server is away after all retries, or its reward fails.
        """
        return self.with_components(images, prompts)[0]

    def each(self, images: Images, prompts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return what the server's components say, by name; float32 (n,) each.

        Raises:
            UsageError, RealBenchError: as for calling the client.
        """
        return self.with_components(images, prompts)[1]

    def with_components(
        self, images: Images, prompts: Sequence[str]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the reward, and what :meth:`each` returns, of one call.

        Raises:
            UsageError, RealBenchError: as for calling the client.
        """
        from realbench.scoring.scorer import rgb_arrays

        arrays = rgb_arrays(images)
        texts = list(prompts)
        if len(arrays) != len(texts):
            raise UsageError(
                f"images: {len(arrays)}, prompts: {len(texts)}; give one prompt for each image"
            )
        if not arrays:
            return np.zeros(0, np.float32), {}
        parts = np.array_split(
            np.arange(len(arrays)), math.ceil(len(arrays) / self._images_per_request)
        )

        def ask(part: np.ndarray) -> dict[str, Any]:
            return self._ask([arrays[n] for n in part], [texts[n] for n in part])

        with ThreadPoolExecutor(min(self._connections, len(parts))) as pool:
            answers = list(pool.map(ask, parts))
        together = {
            name: np.concatenate([_floats(one["components"][name]) for one in answers])
            for name in answers[0]["components"]
        }
        return np.concatenate([_floats(one["reward"]) for one in answers]), together

    def describe(self) -> dict[str, Any]:
        """Return what the server says of its reward and limits; asked anew each time.

        Raises:
            RealBenchError: as for calling the client.
        """
        return dict(self._send("GET"))

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def __enter__(self) -> RewardClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, arrays: Sequence[np.ndarray], prompts: Sequence[str]) -> dict[str, Any]:
        files = [
            ("images", (f"{n}.{self._encoding}", data, "application/octet-stream"))
            for n, data in enumerate(encode(arrays, self._encoding))
        ]
        answer = self._send("POST", files=files, data={"prompts": list(prompts)})
        try:
            rewards = [answer["reward"], *answer["components"].values()]
            fits = all(
                len(one := _floats(each)) == len(arrays) and np.isfinite(one).all()
                for each in rewards
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            fits = False
        if not fits:
            raise RealBenchError(f"{self._url} gave no rewards of {len(arrays)} images")
        return answer

    def _send(self, method: str, **content: Any) -> Any:
        """Send a request, again while that may help, and return the JSON of its answer."""
        for attempt in range(self._retries + 1):
            wait: float | None = None
            try:
                answer = self._http().request(method, f"{self._url}/v1/reward", **content)
            except httpx.TransportError as error:
                text = " ".join(str(error).split())
                reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
            except (httpx.InvalidURL, ValueError) as error:
                raise UsageError(f"{self._url} is no address of a server: {error}") from error
            else:
                if answer.status_code not in _AGAIN:
                    return self._content(answer)
                reason = f"it answers {answer.status_code} ({_error_of(answer)})"
                wait = retry_after(answer.headers)
            if attempt < self._retries:
                time.sleep(_pause(attempt, wait))
        raise RealBenchError(
            f"no reward from {self._url} after {self._retries + 1} attempts: {reason}"
        )

    def _content(self, answer: httpx.Response) -> Any:
        status = answer.status_code
        if status == 200:
            try:
                content = answer.json()
            except (ValueError, RecursionError) as error:
                raise RealBenchError(f"{self._url} is no reward server: no JSON") from error
            if isinstance(content, dict) and not content.get("error"):
                return content
            raise RealBenchError(f"{self._url} gives no reward: {_error_of(answer)}")
        if line := redirect_refusal(self._url, status, answer.headers):
            raise UsageError(line)
        if status == 401:
            raise UsageError(
                f"{self._url} wants a token, or another one: set $REALBENCH_SERVE_TOKEN, token_env "
                "or token_file"
            )
        kind = UsageError if 400 <= status < 500 else RealBenchError
        raise kind(f"{self._url} answers {status}: {_error_of(answer)}")

    def _http(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                headers = {} if self._token is None else {"Authorization": self._token.header}
                self._client = httpx.Client(
                    headers=headers,
                    timeout=httpx.Timeout(self._timeout, connect=_CONNECT_SECONDS),
                    limits=httpx.Limits(
                        max_connections=self._connections,
                        max_keepalive_connections=self._connections,
                        # Below the server's, so that it does not close one that is being used.
                        keepalive_expiry=30,
                    ),
                    **connection_options(self._url),
                )
            return self._client


class HttpComponent(Named):
    """The reward of a server as a term of a reward."""

    def __init__(self, config: HttpConfig) -> None:
        super().__init__(config)
        self._url = config.url
        own = {"kind", "name", "weight", "url", "token_env", "token_file"}
        token = find_token(config.token_file, config.token_env)
        self.client = RewardClient(config.url, token=token, **config.model_dump(exclude=own))

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        return self.client(images, prompts)

    def describe(self) -> dict[str, Any]:
        return {"kind": "http", "url": self._url, "server": self.client.describe()}


def encode(arrays: Sequence[np.ndarray], encoding: Encoding) -> list[bytes]:
    """Return the files to send: NPY files of neighbors of one size, or a PNG or JPEG each.

    Args:
        arrays: uint8 (H, W, 3).
        encoding: The files' kind.
    """
    from PIL import Image

    files: list[bytes] = []
    if encoding == "npy":
        for _, several in groupby(arrays, key=np.shape):
            buffer = BytesIO()
            np.save(buffer, np.stack(list(several)), allow_pickle=False)
            files.append(buffer.getvalue())
        return files
    options: dict[str, Any] = {"compress_level": 1} if encoding == "png" else {"quality": 95}
    for array in arrays:
        buffer = BytesIO()
        Image.fromarray(array).save(buffer, encoding.upper(), **options)
        files.append(buffer.getvalue())
    return files


def _floats(values: Any) -> np.ndarray:
    array = np.asarray(values, np.float32)
    if array.ndim != 1:
        raise ValueError
    return array


def _pause(attempt: int, wanted: float | None) -> float:
    """Return how long to wait: what the server wants, else 0.5 s, doubled each time, ± half."""
    growing = 0.5 * 2**attempt * random.uniform(0.5, 1.5)
    if wanted is not None:  # not all clients at one moment
        growing = wanted + random.uniform(0, 0.25)
    return min(_LONGEST_WAIT, growing)


def _error_of(answer: httpx.Response) -> str:

    try:
        text = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        text = answer.reason_phrase
    return printable(" ".join(text.split()))[:300]
