"""The worked example of docs/flow-models.md, as a stranger would follow it."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from realbench.train.config import SamplingConfig
from realbench.train.flow_models import load_flow_model
from realbench.train.rollout import replay, rollout
from tests.train.tiny_pipelines import tiny_aura_flow

PAGE = Path(__file__).parents[2] / "docs" / "flow-models.md"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the page's files, and a tiny pipeline of the class in ``model``."""
    folder = tmp_path_factory.mktemp("example")
    for text in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.S | re.M):
        name = text.split("\n", 1)[0].removeprefix("# ")
        (folder / name).write_text(text)
    tiny_aura_flow().save_pretrained(folder / "model")
    return folder


def test_the_check_passes(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(example)
    monkeypatch.setattr(sys, "argv", ["check_aura_flow.py", "model", "16"])
    runpy.run_path("check_aura_flow.py", run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.startswith("AuraFlow(AuraFlowPipeline, torch.float32): ")
    assert float(printed.rsplit(" ", 1)[1]) < 1e-3


def test_the_adapter_trains(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig

    monkeypatch.chdir(example)
    model = load_flow_model(example / "model", adapter="aura_flow:AuraFlow", device="cpu")
    model.transformer.requires_grad_(False)
    model.transformer.add_adapter(LoraConfig(r=2, target_modules=list(model.lora_targets)))
    sampling = SamplingConfig(steps=4, height=16, width=24, noise_level=0.7, window=2)
    conditioning = model.encode_prompts(["a red bird", "an old man"])
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    made = rollout(model, conditioning, sampling, generators, window=range(1, 2))
    assert tuple(made.images.shape) == (2, 3, 16, 24)
    step = replay(model, conditioning, made.steps[0], sampling)
    torch.testing.assert_close(step.log_prob, made.steps[0].log_prob, rtol=0, atol=1e-5)
    step.log_prob.sum().backward()
    grads = [p.grad for p in model.transformer.parameters() if p.requires_grad]
    assert sum(grad is not None and bool(grad.abs().sum() > 0) for grad in grads) >= 4
