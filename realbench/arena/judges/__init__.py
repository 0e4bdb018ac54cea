"""The judges by their names on the command line; each lives in a module of its own."""

from __future__ import annotations

from realbench.arena.judges.judge import Judge, JudgeOptions
from realbench.errors import UsageError

JUDGE_SPECS = ("detectors", "openai:MODEL", "hf:MODEL", "human", "human:NAME")
"""What ``--judge`` takes."""

__all__ = ["JUDGE_SPECS", "JudgeOptions", "make_judge"]


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
