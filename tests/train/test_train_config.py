"""The settings of a training: shipped, from a file, changed on the command line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from realbench.config.config_files import Configs, as_toml, check_config
from realbench.errors import UsageError
from realbench.train.config import CONFIGS, load_config


def test_the_shipped_configs_are_those_of_the_paper() -> None:
    assert set(CONFIGS.shipped()) >= {"flux1-dev", "sd35-medium", "z-image"}
    flux, z_image = load_config("flux1-dev"), load_config("z-image")
    assert (flux.sampling.steps, flux.sampling.guidance, flux.sampling.window) == (28, 3.5, 3)
    assert (flux.sampling.height, flux.sampling.width) == (1024, 1024)
    assert (flux.sampling.noise_level, flux.training.group_size) == (0.9, 24)
    assert (flux.lora.rank, flux.lora.alpha) == (64, 128)
    assert (flux.training.learning_rate, flux.loss.clip, flux.loss.kl) == (1e-4, 4e-6, 4e-4)
    assert flux.model.dtype == "bfloat16"
    assert flux.ema.enabled
    assert (z_image.sampling.steps, z_image.sampling.guidance) == (40, 4.0)
    assert (z_image.training.learning_rate, z_image.loss.clip, z_image.loss.kl) == (
        4e-4,
        1e-4,
        1e-5,
    )
    for name in ("flux1-dev", "sd35-medium", "z-image"):
        config = load_config(name)
        assert config.reward is not None
        rewarded = {
            one for part in config.reward.components for one in getattr(part, "detectors", ())
        }
        assert "omniaid-realgen" in rewarded
        assert not rewarded & set(config.evaluation.heldout)


def test_a_printed_config_can_be_changed_and_read(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(CONFIGS.text("flux1-dev").replace("group_size = 24", "group_size = 8"))
    config = load_config(path, ["seed=7", "loss.clip=1e-5", 'lora.targets=["attn.to_q"]'])
    assert config.training.group_size == 8
    assert (config.seed, config.loss.clip, config.lora.targets) == (7, 1e-5, ("attn.to_q",))


def test_values_become_the_file_again() -> None:
    from realbench.train.prompt import config as of_prompts

    kinds: list[Configs[Any]] = [CONFIGS, of_prompts.CONFIGS]
    for configs in kinds:
        for name in configs.shipped():
            config = configs.load(name, ['description=\u201c"quoted"\u201d \x7f \\'])
            text = as_toml(config.model_dump(mode="json"))
            assert check_config(configs.schema, tomllib.loads(text), name) == config
    odd = {"a b": {"c": [{"d": 1, "e": None}, {"f": {"g.h": [{"i": []}, 2]}}]}}
    assert tomllib.loads(as_toml(odd)) == {"a b": {"c": [{"d": 1}, odd["a b"]["c"][1]]}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.clp=1", r"flux1-dev: loss\.clp: there is no such key; there are clip, kl, kl_of"),
        ("training.group_size=1", r"training\.group_size: must be 2 or more, not 1$"),
        ("training.group_size=2.5", r"training\.group_size: must be a whole number, not 2\.5$"),
        ("lora.targets=1", r"lora\.targets: must be a list, such as .*, not 1$"),
        ("model.dtype=half", r"model\.dtype: must be 'auto', 'float32' or 'bfloat16', not 'half'"),
        ("loss.kl=nan", r"loss\.kl: must be a finite number"),
        ("ema=1", r"ema: must be a table, not 1$"),
        ("training.betas=[1]", r"training\.betas\[1\]: is missing$"),
        ('reward.components=[{kind="x"}]', r"reward\.components\[0\]: 'kind' must be one of 'det"),
        (
            'reward.components=[{kind="detectors",weight=-1}]',
            r"reward\.components\[0\]\.weight: must be 0 or more, not -1$",
        ),
        (
            'reward.components=[{kind="http",url="x"}]',
            r"reward\.components\[0\]\.url: must be a text of the form .*https.*, not 'x'$",
        ),
        ("sampling.window=15", r"sampling: window 15 does not fit in the first half of 28 steps"),
        ("training.updates_per_iteration=5", r"384 images an iteration .* among 5 updates"),
        ("seed", r"--set seed: give TABLE\.KEY=VALUE"),
        ("seed=4294967296", r"flux1-dev: seed: .*4294967295"),
        ("seed.x.y=1", "seed: must be a whole number"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_config("flux1-dev", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["flux1-dev", "sd35-medium", "small-photo", "z-image"])
def test_shipped_configs_train_in_the_batches_that_they_sample_in(name: str) -> None:
    """Else the same step is rounded otherwise; and so small a β is that of velocities."""
    config = load_config(name)
    processes = 8 if "8 GPUs" in config.description else 1
    share = config.training.images // (processes * config.training.updates_per_iteration)
    assert config.sampling.batch_size == config.training.batch_size
    assert share % config.training.batch_size == 0  # no batch is smaller than the others
    assert config.loss.kl == 0 or config.loss.kl_of == "velocity"
