"""What a judge is to the rest of the arena."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from realbench.config.settings import checked_settings

Verdict = Literal["first", "second", "tie", "invalid"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One contestant's image of one prompt.

    Attributes:
        contestant: The folder's name in this run.
        path: Where the image lies.
        sha256: Hex digest of the file's bytes.
    """

    contestant: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Showing:
    """Two pictures of one prompt in the order in which a judge is to see them.

    Attributes:
        prompt_id: The prompt's id, which is the stem of both files.
        prompt: The prompt's text, or None where no suite names it.
        first: The picture shown first, or on the left.
        second: The other one.
    """

    prompt_id: str
    prompt: str | None
    first: Picture
    second: Picture

    def swapped(self) -> Showing:
        """Return the same pair in the other order."""
        return Showing(self.prompt_id, self.prompt, self.second, self.first)


@dataclass(frozen=True, slots=True)
class Judgment:
    """What a judge said of one showing.

    Attributes:
        verdict: Which picture is the more realistic photograph; ``"invalid"`` where the judge
            gave no usable answer, which never counts as a vote.
        probability: The judge's P(first is the more real one) in [0, 1], a tie counted half;
            None for judges that only choose.
        reason: What the judge gave as its reason, if it gave one.
        raw: The answer as it came, kept where it was invalid.
        attempts: How often the judge was asked.
        seconds: How long it took, all attempts together.
        usage: ``input_tokens``, ``output_tokens`` and ``cost`` where the judge is paid.
    """

    verdict: Verdict
    probability: float | None = None
    reason: str | None = None
    raw: str | None = None
    attempts: int = 1
    seconds: float = 0.0
    usage: dict[str, float] = field(default_factory=dict)


class BudgetSpentError(Exception):
    """Raised by a judge's iterator when its own limit (cost) is reached; the run ends cleanly."""


@runtime_checkable
class Judge(Protocol):
    """Says which of two pictures is the more realistic photograph.

    ``judge`` pulls showings only as it has room for them and yields each with its judgment as
    soon as it is there, in any order; so the caller can write a vote before the next is asked.
    Closing the iterator (or an exception in the caller) stops the judge's workers.
    """

    @property
    def name(self) -> str:
        """As on the command line: ``detectors``, ``openai:MODEL``, ``hf:MODEL``, ``human``."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that decides an answer: template, model, image size, margin."""

    @property
    def orders(self) -> int:
        """2 where each pair is to be shown in both orders, 1 where one random order is enough."""

    @property
    def is_vlm(self) -> bool:
        """Whether it is a vision-language model, as Arena-Scoring was defined for."""

    def describe(self) -> dict[str, Any]:
        """Return what goes into ``run.json``: settings and versions, never a key."""

    def judge(self, showings: Iterable[Showing]) -> Iterator[tuple[Showing, Judgment | None]]:
        """Judge showings; see the class for how it pulls and yields.

        A judge that can change its mind (a person's undo) yields a showing that it had judged
        with None, which takes that vote back; its new judgment, if any, follows later.

        ``showings`` may tell by ``operator.length_hint`` how many they are, and by an attribute
        ``n_done`` how many were judged in earlier runs, for judges that show a progress.

        Raises:
            RealBenchError: the judge cannot work at all (no server, no model, wrong key).
            BudgetSpentError: its cost limit is reached; what was yielded before stands.
        """


@checked_settings
@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """The options that judges may take; each judge reads those that concern it.

    None leaves a value to the judge. No API key is among them: it comes from the environment.

    Attributes:
        base_url: Where the chat endpoint of ``openai:`` answers.
        api_key_env: Name of the environment variable that holds its key; OpenAI itself is sent
            the one in ``OPENAI_API_KEY``, any other server none unless this names it.
        image_size: Longest side in pixels of the images that a model is shown.
        image_format: How images are sent to an endpoint.
        template: A bundled template's name, or the path of a template file.
        max_cost: Stops an ``openai:`` judge when its votes of this run have cost that much, in
            the currency of the prices.
        price_in: Price of a million input tokens.
        price_out: Price of a million output tokens.
        concurrency: Requests that may be under way at once.
        timeout: Seconds that one request may take.
        max_retries: How often a failed request is tried again.
        answer_retries: How often a model is asked again after a refusal or an unusable answer.
        backoff: Seconds before the first retry; doubled for each further one.
        temperature: Of the sampling; 0 takes the likeliest answer.
        max_output_tokens: Most tokens that an answer may have, reasoning included.
        batch_size: Showings in one forward pass of an ``hf:`` judge.
        device: Where local networks run, ``"auto"`` prefers a GPU.
        dtype: What an ``hf:`` judge computes in; ``"auto"`` is what its weights are stored in.
        revision: Branch, tag or commit of an ``hf:`` judge's model on the hub.
        trust_remote_code: Whether an ``hf:`` judge may run Python code that comes with its model.
        margin: The ``detectors`` judge's tie margin, in logits, at least 0.
        detectors: The ``detectors`` judge's detectors, names or card folders; empty for the
            embedded ones.
        weights: The user's own files for these detectors, by detector and part.
        workers: The ``detectors`` judge's decoding threads; None for one per core.
        max_pixels: Models and detectors are not shown larger images; their votes are invalid.
        cross_fit: Instead of ``detectors``, a TOML file that says which judge which contestants.
        cache: Whether the ``detectors`` judge looks scores up and keeps them.
        host: Where the page of the ``human`` judge listens; a loopback address is reached from
            this machine alone.
        port: Of the page of the ``human`` judge; 0 takes a free one.
        open_browser: Whether the ``human`` judge opens a browser on its page.
        seed: Of whatever a judge draws.
    """

    base_url: str | None = None
    api_key_env: str | None = None
    image_size: int | None = None
    image_format: Literal["jpeg", "png"] | None = None
    template: str | Path | None = None
    max_cost: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    concurrency: int | None = None
    timeout: float | None = None
    max_retries: int | None = None
    answer_retries: int | None = None
    backoff: float | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    revision: str | None = None
    trust_remote_code: bool = False
    margin: float = 0.1
    detectors: tuple[str | Path, ...] = ()
    weights: Mapping[str, Mapping[str, str | Path]] = field(default_factory=dict)
    workers: int | None = None
    max_pixels: int = 250_000_000  # images.DEFAULT_MAX_PIXELS, without loading numpy
    cross_fit: Path | None = None
    cache: bool = True
    host: str = "127.0.0.1"
    port: int = 0
    open_browser: bool = True
    seed: int = 0
