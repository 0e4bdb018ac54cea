"""What rewrites are worth, and the reward as TRL takes it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from realbench.generation.rewriting import Answer
from realbench.reward.reward import WeightedReward
from realbench.train.prompt.config import TextConfig
from realbench.train.prompt.rewarding import (
    Rewarder,
    RewardFunctions,
    group_seed,
    text_of,
    total,
)

TEXT = TextConfig.model_validate(
    {"length": {"minimum": 2, "maximum": 4, "margin": 2}, "form": {}, "kept": {}}
)
FOX, CUP = "a red fox", "a blue cup"


class Painter:
    """Images whose brightness is the prompt's length in letters; keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.asked += list(zip(prompts, seeds, strict=True))
        return [Image.new("RGB", (8, 8), (min(255, 10 * len(one)),) * 3) for one in prompts]


class Bright:
    """A component of a reward that keeps the prompts that it was given."""

    name = "bright"
    weight = 2.0

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        self.prompts += prompts
        return np.array([image.mean() / 255 for image in images], np.float32)

    def describe(self) -> dict[str, Any]:
        return {"kind": "bright"}


def test_images_are_of_the_rewrite_and_judged_against_the_original() -> None:
    painter, bright = Painter(), Bright()
    rewarder = Rewarder(TEXT, chat=True, reward=WeightedReward([bright]), painter=painter)
    assert rewarder.names == ("bright", "length", "form", "kept")
    found = rewarder(
        [Answer('"A red fox at dawn"', True), Answer(" \n", True), Answer("a cat", False)],
        [FOX, FOX, CUP],
        [7, 8, 9],
    )
    assert found.prompts == ("A red fox at dawn", None, "a cat")
    assert painter.asked == [("A red fox at dawn", 7), ("a cat", 9)]  # none of the empty answer
    assert bright.prompts == ["a red fox", "a blue cup"]
    assert found.values["bright"].tolist() == pytest.approx([170 / 255, 0, 50 / 255])
    assert found.values["length"].tolist() == pytest.approx([0.5, 0, 1])
    assert found.values["form"].tolist() == pytest.approx([1, 0, 0.8])  # the third was cut off
    assert found.values["kept"].tolist() == pytest.approx([1, 0, 0])
    assert [image is not None for image in found.images] == [True, False, True]


def test_of_a_model_that_writes_on_only_the_first_line_counts() -> None:
    rewarder = Rewarder(TEXT, chat=False)
    found = rewarder([Answer(" A red fox\nDescription: a dog\nPrompt: x", False)], [FOX], [0])
    assert found.prompts == ("A red fox",)
    assert found.values["form"].tolist() == [1.0]


def test_the_reward_is_the_weighted_mean() -> None:
    values = {"a": np.array([1.0, 0.0]), "b": np.array([0.5, 1.0])}
    assert total(values, {"a": 0.25, "b": 0.75}).tolist() == pytest.approx([0.625, 0.75])
    assert total(values, {"a": 1.0, "b": 0.0}).dtype == np.float32


def test_a_group_shares_its_noise_and_the_next_iteration_has_another() -> None:
    assert group_seed(0, 1, "a") == group_seed(0, 1, "a")
    others = {group_seed(0, 2, "a"), group_seed(0, 1, "b"), group_seed(1, 1, "a")}
    assert group_seed(0, 1, "a") not in others
    assert len(others) == 3


def test_trl_gets_a_function_for_each_term_and_images_are_made_once() -> None:
    painter = Painter()
    rewarder = Rewarder(TEXT, chat=True, reward=WeightedReward([Bright()]), painter=painter)
    functions = RewardFunctions(
        rewarder,
        {"bright": 0.5, "length": 0.2, "form": 0.2, "kept": 0.1},
        seed=3,
        group_size=2,
        gather=lambda rows: rows,
        end_tokens={2},
    )
    terms = functions.functions()
    assert [one.__name__ for one in terms] == list(rewarder.names)
    given = {
        "prompts": [None] * 4,
        "completions": [
            [{"role": "assistant", "content": text}]
            for text in ("a red fox", "a fox", "a cup", "a cup")
        ],
        "completion_ids": [[5, 2], [5, 6], [5, 2], [5, 2]],
        "original": [FOX, FOX, CUP, CUP],
        "prompt_id": ["a", "a", "b", "b"],
        "trainer_state": SimpleNamespace(global_step=4),
        "log_metric": None,
    }
    values = [one(**given) for one in terms]
    assert len(painter.asked) == 4
    assert [seed for _, seed in painter.asked] == [
        *[group_seed(3, 5, "a")] * 2,
        *[group_seed(3, 5, "b")] * 2,
    ]
    assert values[2] == pytest.approx([1, 0.8, 1, 1])
    figures = functions.figures
    assert figures["n"] == 4
    assert figures["groups"] == 2
    assert figures["zero_groups"] == 1  # the cups are the same
    assert figures["ended"] == 0.75
    assert figures["empty"] == 0
    assert figures["components"]["kept"] == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 4)
    assert figures["reward"] == pytest.approx(
        np.dot([0.5, 0.2, 0.2, 0.1], [np.mean(one) for one in values])
    )
    # Other rewrites are judged anew.
    again = {**given, "completions": [one[:] for one in given["completions"]]}
    terms[1](**again)
    assert len(painter.asked) == 8


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("a fox", "a fox"),
        ([{"role": "assistant", "content": "a fox"}], "a fox"),
        ([{"role": "assistant", "content": None}], ""),
        ([], ""),
    ],
)
def test_the_text_of_a_completion(completion: Any, text: str) -> None:
    assert text_of(completion) == text
