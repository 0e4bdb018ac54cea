"""The config of prompt training: what is shipped, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from realbench.errors import UsageError
from realbench.generation.rewriting import instruction_text
from realbench.train.prompt.config import (
    CONFIGS,
    PromptTrainConfig,
    load_config,
)
from realbench.train.prompt.trainer import training_order
from realbench.train.prompts import choose_prompts

TEXT = {"model": "some/model", "text": {"form": {}}}


def test_the_shipped_configs_hold_together() -> None:
    assert list(CONFIGS.shipped()) == ["qwen3-4b", "smollm2-demo"]
    for name, description in CONFIGS.shipped().items():
        config = load_config(name)
        assert config.description == description
        assert 20 < len(description) < 90
        assert sum(config.weights.values()) == pytest.approx(1)
        assert instruction_text(config.writing.instruction)
        chosen = choose_prompts(config)
        assert len(chosen.evaluation) == config.evaluation.prompts
        assert not set(chosen.training) & set(chosen.evaluation)
    assert load_config("qwen3-4b").pipeline is not None
    assert "[model]" in CONFIGS.text("smollm2-demo")


def test_a_model_may_be_named_by_its_source_alone() -> None:
    changed = load_config("qwen3-4b", ["model=/x/some.gguf", "pipeline=/x/pipe", "seed=3"])
    assert changed.model.source == "/x/some.gguf"
    assert changed.model.revision is None
    assert changed.pipeline is not None
    assert changed.pipeline.source == "/x/pipe"
    assert changed.seed == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": {}}, "nothing is rewarded"),
        ({"text": {"form": {"weight": 0}}}, "nothing is rewarded"),
        ({"reward": {}}, "name the image model in [pipeline]"),
        ({"pipeline": "some/pipe"}, "[pipeline] makes images that nothing looks at"),
        ({"evaluation": {"heldout": ["x"]}}, "evaluation.heldout looks at images"),
        ({"text": {"length": {"minimum": 9, "maximum": 8}}}, "minimum 9 is above maximum 8"),
        ({"text": {"vocabulary": {"words": []}}}, "text.vocabulary.words"),
        ({"training": {"group_size": 1}}, "training.group_size"),
        ({"training": {"batch_size": 5}}, "cannot be divided into batches"),
        ({"writing": {"temperature": 0}}, "writing.temperature"),
        ({"seed": 2**32}, "4294967295"),
        ({"lora": {"ranks": 3}}, "lora.ranks: there is no such key"),
        ({"loss": {"kl": float("nan")}}, "loss.kl"),
        (
            {
                "pipeline": "some/pipe",
                "reward": {"components": [{"kind": "detectors", "name": "form"}]},
            },
            "a component of [reward] and a term of [text] are called 'form'",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], message: str) -> None:
    from realbench.config.config_files import check_config

    with pytest.raises(UsageError) as error:
        check_config(PromptTrainConfig, TEXT | changes, "my.toml")
    assert message in str(error.value)
    assert str(error.value).startswith("my.toml: ")
    assert "\n" not in str(error.value)


def test_a_name_that_is_no_config_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the configs are qwen3-4b, smollm2-demo"):
        load_config("qwen")
    (tmp_path / "bad.toml").write_text("model = [")
    with pytest.raises(UsageError, match=r"bad\.toml is no TOML"):
        load_config(tmp_path / "bad.toml")


def test_the_order_of_prompts_is_the_seeds_and_begins_alike() -> None:
    config = PromptTrainConfig.model_validate(
        TEXT | {"prompts": {"limit": 12}, "evaluation": {"prompts": 4}}
    )
    prompts = choose_prompts(config)
    assert len(prompts.training) == 8
    order = training_order(prompts.training, 20, seed=1)
    assert order[:10] == training_order(prompts.training, 10, seed=1)
    assert order != training_order(prompts.training, 20, seed=2)
    assert (
        set(order[:8]) == set(order[8:16]) == set(prompts.training.items())
    )  # each once, then again
    with pytest.raises(UsageError, match="4 prompts are too few to set 4 apart"):
        choose_prompts(
            PromptTrainConfig.model_validate(
                TEXT | {"prompts": {"limit": 4}, "evaluation": {"prompts": 4}}
            )
        )
