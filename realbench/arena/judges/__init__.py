"""The judges by their names on the command line; each lives in a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from realbench.arena.judges.judge import Judge, JudgeOptions
from realbench.errors import UsageError

JUDGE_SPECS = ("detectors", "openai:MODEL", "hf:MODEL", "human", "human:NAME")
"""What ``--judge`` takes."""

__all__ = ["JUDGE_SPECS", "JudgeOptions", "check_options", "make_judge"]

_ENDPOINT = (
    *("base_url", "api_key_env", "image_format", "max_cost", "price_in", "price_out"),
    *("concurrency", "timeout", "max_retries", "answer_retries", "backoff", "temperature"),
    "max_output_tokens",
)
_TAKEN_BY = {
    **dict.fromkeys(_ENDPOINT, ("openai",)),
    **dict.fromkeys(("template", "image_size"), ("openai", "hf")),
    **dict.fromkeys(("dtype", "revision", "trust_remote_code"), ("hf",)),
    **dict.fromkeys(("device", "batch_size"), ("hf", "detectors")),
    **dict.fromkeys(("margin", "detectors", "weights", "workers", "cross_fit"), ("detectors",)),
    **dict.fromkeys(("host", "port", "open_browser"), ("human",)),
}
"""Which kinds of judges read an option; those that are not named here, all do."""

_KINDS = {"openai", "hf", "detectors", "human"}

_OPTIONS = {"dtype": "precision", "detectors": "detector", "open_browser": "no-browser"}


def check_options(specs: Sequence[str], options: JudgeOptions) -> None:
    """See that every option that was given is one that a judge of these reads.

    Raises:
        UsageError: none of them does; the message says whose the option is.
    """
    kinds = {spec.strip().partition(":")[0] for spec in specs}
    for one in fields(JudgeOptions):
        takers = _TAKEN_BY.get(one.name, ())
        given = getattr(options, one.name) not in (one.default, {}, ())
        if given and takers and kinds <= _KINDS and kinds.isdisjoint(takers):
            option = _OPTIONS.get(one.name, one.name).replace("_", "-")
            raise UsageError(
                f"--{option} is for the judge {' or '.join(takers)}, not for {', '.join(specs)}: "
                "leave it out, or name such a judge"
            )


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
