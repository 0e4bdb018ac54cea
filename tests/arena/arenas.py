"""Arena runs for the report's tests: chosen strengths, real pictures, real ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from realbench.arena.ratings import rate
from realbench.arena.results import ArenaRun
from realbench.arena.votes import Vote, compare

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TEMPLATE = {"name": "photorealism", "version": 1, "sha256": "b" * 64}


@dataclass(frozen=True, slots=True)
class TestJudge:
    """A judge that sees strengths with noise, and leans to the first picture by ``bias``."""

    __test__ = False

    name: str = "openai:gpt-x"
    orders: int = 2
    is_vlm: bool = True
    bias: float = 0.0
    noise: float = 0.3
    reason: str | None = "The first has real skin."
    probabilities: bool = False
    invalid_every: int = 0


def make_arena(
    root: Path,
    strengths: Mapping[str, float],
    *,
    reference: str | None = None,
    judges: Sequence[TestJudge] = (TestJudge(),),
    n_prompts: int = 20,
    prompt: str = "A photograph of a lighthouse",
    manifest: Mapping[str, Any] | None = None,
) -> ArenaRun:
    """Return a run in which the stronger contestant tends to win, with a picture for each prompt.

    Strengths are logits: a difference of 2 wins nearly always with the judges' noise of 0.3.
    """
    rng = np.random.default_rng(0)
    names = list(strengths)
    prompts: dict[str, str | None] = {f"{n:03d}": f"{prompt} {n}" for n in range(n_prompts)}
    pictures = _pictures(root, names, list(prompts))
    votes: list[Vote] = []
    for judge in judges:
        for prompt_id in prompts:
            for a, b in combinations(sorted(names), 2):
                gap = strengths[a] - strengths[b]
                votes += _votes(rng, judge, prompt_id, (a, b), gap, len(votes))
    orders = {judge.name: judge.orders for judge in judges}
    ratings = rate(
        compare(votes, orders), names, reference=reference, votes=votes, resamples=60, seed=0
    )
    return ArenaRun(
        ratings=ratings,
        votes=votes,
        manifest={**_manifest(names, judges, reference), **(manifest or {})},
        pictures=pictures,
        prompts=prompts,
        contestants=names,
        reference=reference,
        out=None,
    )


def _pictures(
    root: Path, names: Sequence[str], prompts: Sequence[str]
) -> dict[tuple[str, str], Path]:
    """Write one picture per contestant, and give it for every prompt."""
    rng = np.random.default_rng(1)
    root.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for index, name in enumerate(names):
        path = root / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (24, 40, 3), np.uint8)).save(path)
        pictures.update({(name, prompt): path for prompt in prompts})
    return pictures


def _votes(
    rng: np.random.Generator,
    judge: TestJudge,
    prompt_id: str,
    pair: tuple[str, str],
    gap: float,
    start: int,
) -> list[Vote]:
    votes = []
    for turn in range(judge.orders):
        first, second = pair if turn == 0 else pair[::-1]
        seen = (gap if turn == 0 else -gap) + judge.bias + rng.normal(0, judge.noise)
        number = start + turn
        is_valid = not judge.invalid_every or number % judge.invalid_every != 0
        verdict = ("first" if seen > 0 else "second") if is_valid else "invalid"
        votes.append(
            Vote(
                id=f"{judge.name}-{number}",
                judge=judge.name,
                judge_fingerprint="a" * 64,
                prompt_id=prompt_id,
                first=first,
                second=second,
                first_sha256="c" * 64,
                second_sha256="d" * 64,
                verdict=verdict,
                probability=float(1 / (1 + np.exp(-seen)))
                if judge.probabilities and is_valid
                else None,
                reason=judge.reason if is_valid else "the answer is no JSON",
                raw=None if is_valid else "I cannot compare <b>people</b>.",
                seconds=0.5,
                usage={"input_tokens": 1000, "output_tokens": 50, "cost": 0.002}
                if judge.name.startswith("openai")
                else {},
                time=NOW,
            )
        )
    return votes


def _manifest(
    names: Sequence[str], judges: Sequence[TestJudge], reference: str | None
) -> dict[str, Any]:
    """Return what ``realbench arena`` writes to ``run.json``, as far as a report reads it."""
    folders = [f"/images/{name}" for name in names if name != reference]
    return {
        "versions": {"realgen": "0.1.0", "evalica": "0.4.0"},
        "arguments": {"folders": folders, "reference": reference, "prompts": None},
        "argv": ["/usr/bin/realbench", "arena", *folders, "--out", "run"],
        "schedule": "all",
        "seed": 0,
        "contestants": [{"name": name, "stands_in": {}} for name in names],
        "prompts": {"shared": 20, "dropped": {}, "missing": {}},
        "judges": {
            judge.name: {
                "model": judge.name.partition(":")[2] or judge.name,
                **({"template": TEMPLATE} if judge.is_vlm else {}),
                "fingerprint": "a" * 64,
                "orders": judge.orders,
                "is_vlm": judge.is_vlm,
            }
            for judge in judges
        },
        "notes": [],
        "started": "2026-01-02T03:04:05+00:00",
        "stop_reason": "complete",
        "counts": {"pairs_open": 0},
    }
