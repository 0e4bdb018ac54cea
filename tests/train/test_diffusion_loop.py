"""The training loop within this process, on a tiny Stable Diffusion 3."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="needs realgen[train]")
pytest.importorskip("peft", reason="needs realgen[train]")

import torch
from safetensors.torch import load_file

from realbench.errors import RealBenchError, UsageError
from realbench.train.config import DiffusionConfig
from realbench.train.diffusion import TrainResult, train
from tests.train.loop_runs import numbers

PROMPTS = ["a red bird", "an old man", "a tree"]
EVALUATED = ["two cats", "rain", "snow"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(**tables: Any) -> DiffusionConfig:
    values: dict[str, Any] = {
        "model": {"source": "tiny", "device": "cpu"},
        "sampling": {
            "steps": 4,
            "guidance": 1.0,
            "height": 16,
            "width": 16,
            "window": 1,
            "noise_level": 0.7,
        },
        "training": {
            "iterations": 3,
            "prompts_per_iteration": 2,
            "group_size": 4,
            "batch_size": 4,
            "learning_rate": 2e-2,
        },
        "lora": {"rank": 2, "alpha": 4},
        "loss": {"clip": 1e-3},
        "evaluation": {"every": 2},
        "checkpoints": {"every": 1},
        "tracking": {"trackers": []},
    }
    for name, table in tables.items():
        values[name] = values.get(name, {}) | table
    return DiffusionConfig.model_validate(values)


def brightness(images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
    return images.float().mean((1, 2, 3)).numpy() / 255


def run(config: DiffusionConfig, out: Path | None = None, **more: Any) -> TrainResult:
    from realbench.train.flow_models.sd3 import StableDiffusion3
    from tests.train.tiny_pipelines import tiny_sd3

    arguments: dict[str, Any] = {"reward": brightness} | more
    return train(
        config,
        out=out,
        model=StableDiffusion3(tiny_sd3()),
        prompts=PROMPTS,
        evaluation_prompts=EVALUATED,
        **arguments,
    )


class InterruptionError(Exception):
    """What a test interrupts with."""


def after(calls: int, error: type[Exception] = InterruptionError) -> Callable[..., np.ndarray]:
    """Return the reward with an interruption at a call."""
    made = 0

    def reward(images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        nonlocal made
        made += 1
        if made == calls:
            raise error
        return brightness(images, prompts)

    reward.__qualname__ = "brightness"
    return reward


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole")
    run(settings(), out)
    return out


@pytest.mark.slow
def test_the_model_learns_what_is_rewarded() -> None:
    longer = settings(
        training={"iterations": 12, "group_size": 8, "batch_size": 8}, evaluation={"every": 12}
    )
    probes = {"contrast": lambda images, _: images.float().std((1, 2, 3)), "count": lambda *_: 3.0}
    result = run(longer, probes=probes)
    change: Any = result.summary["reward_change"]
    assert change["low"] > 0.002, change
    assert change["estimate"] == pytest.approx(
        result.summary["reward_end"] - result.summary["reward_start"]
    )
    last = result.evaluations[12]
    assert last.probes["contrast"]["n"] == 3
    assert last.probes["count"]["estimate"] == 3.0
    # what comes back is the model that was evaluated
    assert not hasattr(result.model.transformer, "module")


@pytest.mark.slow
@pytest.mark.parametrize("calls", [1, 4])
def test_an_interrupted_run_goes_on_to_the_same_numbers(
    whole: Path, tmp_path: Path, calls: int
) -> None:
    with pytest.raises(InterruptionError):
        run(settings(), tmp_path, reward=after(calls))
    run(settings(), tmp_path)
    assert numbers(tmp_path) == numbers(whole)
    for file in ("checkpoints/000003/weights.safetensors", "lora/pytorch_lora_weights.safetensors"):
        assert (tmp_path / file).read_bytes() == (whole / file).read_bytes()


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_costs_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import realbench.train.checkpoint as module

    written = module.save_file

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if "000002" in str(path) and path.name == "ema.safetensors":
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        written(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", full)
        with pytest.raises(RealBenchError, match=r"000002 \(No space left"):
            run(settings(), tmp_path)
    assert [one.name for one in (tmp_path / "checkpoints").glob("[0-9]*")] == ["000000", "000001"]
    run(settings(), tmp_path)
    assert numbers(tmp_path) == numbers(whole)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(
    whole: Path, tmp_path: Path
) -> None:
    run(settings(training={"iterations": 2}), tmp_path)
    damaged = tmp_path / "checkpoints" / "000002"
    (damaged / "optimizer.pt").write_bytes(b"PK\x03\x04 no such thing")
    with pytest.raises(RealBenchError, match=r"checkpoints/000002 cannot be loaded"):
        run(settings(), tmp_path)
    for file in damaged.iterdir():
        file.unlink()
    damaged.rmdir()
    run(settings(), tmp_path)  # of three iterations now
    assert numbers(tmp_path)[3] == numbers(whole)[3]


def test_weights_whose_count_of_steps_is_one_tensor_go_on_alike(
    whole: Path, tmp_path: Path
) -> None:
    """As a checkpoint of DeepSpeed has it."""
    run(settings(training={"iterations": 2}), tmp_path)
    file = tmp_path / "checkpoints" / "000002" / "optimizer.pt"
    states = torch.load(file, weights_only=True)
    step = next(iter(states.values()))["step"]
    torch.save({name: one | {"step": step} for name, one in states.items()}, file)
    run(settings(), tmp_path)
    assert numbers(tmp_path)[3] == numbers(whole)[3]
    weights = "checkpoints/000003/weights.safetensors"
    assert (tmp_path / weights).read_bytes() == (whole / weights).read_bytes()


def test_another_config_or_reward_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"another loss\.clip \(0\.001, now 0\.01\)"):
        run(settings(loss={"clip": 1e-2}), whole)
    with pytest.raises(UsageError, match="another reward"):
        run(settings(), whole, reward=lambda images, prompts: np.zeros(len(images)))
    with pytest.raises(UsageError, match="other prompts"):
        train(settings(), out=whole, prompts=["else"], evaluation_prompts=EVALUATED)


@pytest.mark.slow
def test_a_run_that_ended_before_its_first_iteration_takes_a_mended_config(
    whole: Path, tmp_path: Path
) -> None:
    def wrong(images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        raise InterruptionError

    with pytest.raises(InterruptionError):
        run(settings(loss={"clip": 1e-2}), tmp_path, reward=wrong)
    assert (tmp_path / "run.json").exists()
    run(settings(), tmp_path)
    assert numbers(tmp_path) == numbers(whole)
    assert "brightness" in (tmp_path / "run.json").read_text()


@pytest.mark.slow
def test_what_saves_memory_changes_nothing(whole: Path, tmp_path: Path) -> None:
    memory = {
        "gradient_checkpointing": True,
        "vae_slicing": True,
        "offload_text_encoders": True,
        "offload_vae": True,
    }
    run(settings(memory=memory), tmp_path)
    ours, theirs = numbers(tmp_path), numbers(whole)
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        assert one["reward"] == pytest.approx(other["reward"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


@pytest.mark.slow
def test_the_mean_of_the_weights_is_warmed_up_and_counts_every_so_many_steps(
    tmp_path: Path,
) -> None:
    config = settings(
        training={"iterations": 6, "updates_per_iteration": 1},
        ema={"decay": 0.22, "every": 2},
        evaluation={"every": 6},
        checkpoints={"keep": 9},
    )
    run(config, tmp_path)

    def saved(iteration: int, kind: str) -> dict[str, torch.Tensor]:
        return load_file(tmp_path / f"checkpoints/{iteration:06}/{kind}.safetensors")

    expected = saved(0, "weights")
    for n, iteration in enumerate((2, 4, 6), start=1):
        decay = min(0.22, (1 + n) / (10 + n))
        new = saved(iteration, "weights")
        expected = {k: decay * v + (1 - decay) * new[k] for k, v in expected.items()}
        for after in (iteration, min(iteration + 1, 6)):
            torch.testing.assert_close(saved(after, "ema"), expected)
    assert any((v != expected[k]).any() for k, v in saved(6, "weights").items())


def test_other_ways_to_train_run(tmp_path: Path) -> None:
    config = settings(
        model={"dtype": "bfloat16"},
        sampling={"kind": "cps", "window": 2, "guidance": 2.0},
        training={"passes": 2, "iterations": 1},
        loss={"kl": 0.1, "kl_of": "velocity", "guard": False},
        ema={"enabled": False},
    )
    figures = run(config).log[1].figure
    # the first of four optimiser steps is taken with the weights that sampled
    assert figures("ratio_mean") == pytest.approx(1, abs=0.1)
    assert figures("kl") > 0
    assert np.isfinite(figures("loss"))


def test_the_first_ratio_is_one() -> None:
    config = settings(training={"iterations": 1, "updates_per_iteration": 1, "batch_size": 3})
    figures = run(config).log[1].figure
    assert figures("ratio_mean") == pytest.approx(1, abs=1e-6)
    assert figures("ratio_std") < 1e-6
    assert figures("clip_fraction") == 0
    assert figures("loss") == pytest.approx(0, abs=1e-4)  # advantages of a group sum to 0


def test_the_run_stops_when_the_reward_is_gamed(tmp_path: Path) -> None:
    evaluations = 0

    def reward(images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        noise = brightness(images, prompts) / 100
        return noise + 0.3 + 0.1 * evaluations

    def heldout(images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        nonlocal evaluations
        evaluations += 1
        return 0.9 - 0.1 * evaluations + brightness(images, prompts) / 1000

    config = settings(training={"iterations": 9}, evaluation={"every": 1, "stop_on_hacking": True})
    with pytest.warns(UserWarning, match="reward rises while the held-out score falls"):
        result = run(config, tmp_path, reward=reward, heldout=heldout)
    stopped = result.log[-1].iteration
    assert result.stop_reason == "hacking"
    assert stopped < 9
    assert json.loads((tmp_path / "summary.json").read_text())["warnings"]
    again = run(config, tmp_path, reward=reward, heldout=heldout)
    assert again.log[-1].iteration == stopped


@pytest.mark.slow
def test_the_run_ends_once_the_reward_has_risen_enough(tmp_path: Path) -> None:
    evaluations = 0

    def reward(images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        return brightness(images, prompts) / 100 + 0.3 + 0.1 * evaluations

    def heldout(images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        nonlocal evaluations
        evaluations += 1
        return brightness(images, prompts)

    config = settings(
        training={"iterations": 9},
        evaluation={"every": 1, "stop_at_rise": 0.15},
        checkpoints={"every": 9},
    )
    result = run(config, tmp_path, reward=reward, heldout=heldout)
    assert (result.stop_reason, result.log[-1].iteration) == ("risen", 2)
    assert (tmp_path / "lora" / "pytorch_lora_weights.safetensors").is_file()
    again = run(config, tmp_path, reward=reward, heldout=heldout)
    assert again.log[-1].iteration == 2


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    config = settings(training={"learning_rate": 1e30})
    with pytest.raises(RealBenchError, match="the gradient is not finite"):
        run(config, tmp_path)


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        (settings(), {"reward": None}, r"no \[reward\]"),
        (settings(lora={"targets": ["nothing"]}), {}, "nothing"),
        (settings(tracking={"trackers": ["wandb"]}), {}, "pip install wandb"),
        (settings(), {"heldout": brightness, "evaluation_prompts": ["one"]}, "two evaluation"),
    ],
)
def test_misuse_is_one_line(
    config: DiffusionConfig, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    from realbench.train.flow_models.sd3 import StableDiffusion3
    from tests.train.tiny_pipelines import tiny_sd3

    if "wandb" in message:
        from importlib.util import find_spec

        if find_spec("wandb"):
            pytest.skip("wandb is installed")
    arguments = {
        "model": StableDiffusion3(tiny_sd3()),
        "reward": brightness,
        "prompts": PROMPTS,
        "evaluation_prompts": EVALUATED,
    } | more
    with pytest.raises(UsageError, match=message) as caught:
        train(config, out=tmp_path, **arguments)
    assert "\n" not in str(caught.value)


def test_a_held_out_judge_that_is_part_of_the_reward_is_refused(tmp_path: Path) -> None:
    config = settings(
        reward={"components": [{"kind": "detectors", "detectors": ["semantic-lite"]}]},
        evaluation={"heldout": ["semantic-lite"]},
    )
    with pytest.raises(UsageError, match="semantic-lite is part of the reward"):
        run(config, tmp_path, reward=None)
