"""The adapters, in the examples of docs/serve.md, which are run as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from realbench.errors import UsageError
from realbench.reward.adapters import TrlReward, flow_grpo_reward, text_of
from realbench.reward.client import RewardClient
from realbench.reward.reward import WeightedReward
from realbench.serve.reward_server import RewardServer, ServerOptions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
WORDS = ["fox", "red", "snow", "barn", "light", "photo", "of", "a"]


class Red:
    """The mean of the red channel."""

    name, weight = "red", 1.0

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        self.prompts += prompts
        return np.array([image[..., 0].mean() / 255 for image in images])

    def describe(self) -> dict[str, Any]:
        return {"kind": "red"}


@pytest.fixture
def red() -> Red:
    return Red()


@pytest.fixture
def url(red: Red, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("REALBENCH_SERVE_TOKEN", raising=False)
    with RewardServer(WeightedReward([red]), ServerOptions(port=0)).running() as address:
        yield address


def example(heading: str, url: str) -> str:
    """Return the first piece of Python under a heading of the page, for a server at ``url``."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code, heading
    assert "http://127.0.0.1:8765" in code[1]
    return code[1].replace("http://127.0.0.1:8765", url)


def paint(texts: Sequence[str]) -> list[Image.Image]:
    """Make a picture that is the redder the more often its text says so."""
    return [Image.new("RGB", (16, 16), (min(255, 50 * t.count("red")), 0, 0)) for t in texts]


# --- TRL ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_trl_example_trains(
    url: str, red: Red, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    vocabulary = {word: n for n, word in enumerate(["<pad>", "<eos>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    painted: list[str] = []

    def make_images(texts: list[str]) -> list[Image.Image]:
        painted.extend(texts)
        return paint(texts)

    names: dict[str, Any] = {
        "model": model,
        "tokenizer": tokenizer,
        "dataset": Dataset.from_dict({"prompt": ["a photo of a fox", "a red barn"] * 4}),
        "make_images": make_images,
        "out": str(tmp_path),
    }
    before = {name: value.clone() for name, value in model.state_dict().items()}
    code = example("TRL", url).replace(
        "max_steps=2",
        "max_steps=2, max_completion_length=8, report_to=[], use_cpu=True, "
        "logging_steps=1, save_strategy='no'",
    )
    exec(compile(code, str(PAGE), "exec"), names)

    trainer = names["trainer"]
    assert trainer.state.global_step == 2
    logged = [one for one in trainer.state.log_history if "rewards/realism/mean" in one]
    assert len(logged) == 2
    assert len(painted) == 8
    assert set(red.prompts) <= {"a photo of a fox", "a red barn"}
    means = [
        np.mean([min(1, 50 * t.count("red") / 255) for t in painted[n : n + 4]]) for n in (0, 4)
    ]
    np.testing.assert_allclose([one["rewards/realism/mean"] for one in logged], means, atol=1e-5)
    moved = any(not torch.equal(value, before[n]) for n, value in model.state_dict().items())
    assert moved == any(one["rewards/realism/std"] > 0 for one in logged)


def test_texts_and_conversations_are_read_alike(red: Red) -> None:
    reward = TrlReward(WeightedReward([red]), images=paint)
    conversation = [
        {"role": "system", "content": "Rewrite."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a fox"}]},
    ]
    completions = ["red red", [{"role": "assistant", "content": "red"}]]
    values = reward(prompts=["a fox", conversation], completions=completions, completion_ids=[])
    np.testing.assert_allclose(values, [100 / 255, 50 / 255], rtol=1e-5)
    assert all(type(value) is float for value in values)
    assert red.prompts == ["a fox", "a fox"]
    assert text_of([]) == text_of([{"role": "assistant", "content": None}]) == ""


def test_columns_give_images_and_prompts_and_components_are_logged(red: Red) -> None:
    reward = TrlReward(
        WeightedReward([red]), images="picture", prompt_column="original", name="mine"
    )
    logged: dict[str, float] = {}
    values = reward(
        prompts=["x", "y"],
        completions=["", ""],
        picture=paint(["red", "red red"]),
        original=["first", "second"],
        log_metric=logged.__setitem__,
    )
    assert red.prompts == ["first", "second"]
    assert logged == {"mine/red": pytest.approx(sum(values) / 2)}
    with pytest.raises(UsageError, match="mine: the data set has no column 'picture'"):
        reward(prompts=["x"], completions=[""], original=["first"])


# --- Flow-GRPO ---------------------------------------------------------------------------------


def test_the_flow_grpo_example_is_called_as_there(url: str, red: Red) -> None:
    names: dict[str, Any] = {"score_functions": {}}
    exec(compile(example("Flow-GRPO", url), str(PAGE), "exec"), names)
    factory = names["score_functions"]["realism"]
    assert "device" in factory.__code__.co_varnames  # how its multi_score tells them apart
    images = torch.zeros(3, 3, 16, 16)
    images[:, 0] = torch.tensor([0.2, 0.4, 1.0])[:, None, None]
    scores, info = factory("cpu")(images, ("a", "b", "c"), [{}, {}, {}])
    np.testing.assert_allclose(scores, [0.2, 0.4, 1.0], atol=1e-6)
    assert isinstance(scores, np.ndarray)
    np.testing.assert_array_equal(info["red"], scores)
    assert red.prompts == ["a", "b", "c"]


def test_every_form_of_images_is_the_same_to_it(red: Red) -> None:
    score = flow_grpo_reward(WeightedReward([red]))
    array = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    forms = [
        array,
        list(array),
        [Image.fromarray(one) for one in array],
        tensor,
        tensor.float() / 255,
        tensor.double().div(255).requires_grad_(),
    ]
    for images in forms:
        scores, info = score(images, ["a", "b"], None, only_strict=True)
        np.testing.assert_allclose(scores, array[..., 0].mean(axis=(1, 2)) / 255, rtol=1e-6)
        np.testing.assert_array_equal(info["red"], scores)
    plain = flow_grpo_reward(lambda images, prompts: np.full(len(prompts), 0.5))
    assert plain(array, ["a", "b"], [{}, {}])[1] == {}
    assert score((tensor.float() / 255).bfloat16(), ["a", "b"])[0].shape == (2,)


@pytest.mark.parametrize("bad", [torch.full((1, 3, 4, 4), -0.5), torch.full((1, 3, 4, 4), 255.0)])
def test_images_of_another_range_are_refused(red: Red, bad: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"give floats in \[0, 1\]"):
        flow_grpo_reward(WeightedReward([red]))(bad, ["a"], [{}])
    with pytest.raises(UsageError):
        flow_grpo_reward(WeightedReward([red]))(bad * torch.nan, ["a"], [{}])


def test_the_client_example(url: str) -> None:
    names: dict[str, Any] = {"images": paint(["red", ""]), "prompts": ["a", "b"]}
    exec(compile(example("The Python client", url), str(PAGE), "exec"), names)
    assert isinstance(names["reward"], RewardClient)
    np.testing.assert_allclose(names["total"], [50 / 255, 0], rtol=1e-5)
    np.testing.assert_array_equal(names["components"]["red"], names["total"])
