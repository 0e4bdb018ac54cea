"""The judges by their names on the command line; each lives in a module of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realbench.arena.judges.judge import Judge
from realbench.errors import UsageError

JUDGE_SPECS = ("detectors", "openai:MODEL", "hf:MODEL", "human", "human:NAME")
"""What ``--judge`` takes."""

DEFAULT_MARGIN = 0.1
"""Logits of difference up to which the ``detectors`` judge calls a tie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """The options that judges may take; each judge reads those that concern it.

    None leaves a value to the judge. No API key is among them: it comes from the environment.

    Attributes:
        base_url: Where the chat endpoint of ``openai:`` answers.
        api_key_env: Name of the environment variable that holds its key.
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
    margin: float = DEFAULT_MARGIN
    detectors: tuple[str | Path, ...] = ()
    cross_fit: Path | None = None
    cache: bool = True
    host: str = "127.0.0.1"
    port: int = 0
    open_browser: bool = True
    seed: int = 0


def make_judge(spec: str, options: JudgeOptions | None = None) -> Judge:
    """Return the judge that ``--judge`` names: ``OpenAIJudge("gpt-x", options)`` and so on.

    Raises:
        UsageError: there is no such judge, or an option is not valid for it.
        RealBenchError: it cannot work here (no key, no model).
    """
    options = options or JudgeOptions()
    kind, colon, model = spec.strip().partition(":")
    if kind in ("openai", "hf") and not model.strip():
        raise UsageError(f"--judge {kind} needs a model: give {kind}:MODEL")
    if kind == "openai":
        from realbench.arena.judges.openai import OpenAIJudge

        return OpenAIJudge(model, options)
    if kind == "hf":
        from realbench.arena.judges.hf import HFJudge

        return HFJudge(model, options)
    if kind == "human" and (model.strip() or not colon):
        from realbench.arena.judges.human import HumanJudge

        return HumanJudge(options, rater=model.strip())
    if kind == "detectors" and not colon:
        from realbench.arena.judges.detectors import DetectorJudge

        return DetectorJudge(options)
    raise UsageError(f"no judge {spec!r}: choose among {', '.join(JUDGE_SPECS)}")
