"""``realgen-train diffusion`` under DeepSpeed, in two processes on a CPU.

CI leaves these runs out, since DeepSpeed compiles a part of itself: ``pip install deepspeed``, then
``python -m pytest tests/train/test_deepspeed_run.py``.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from realbench.errors import UsageError
from tests.train.loop_runs import command, environment, numbers, run, write_config
from tests.train.test_diffusion_run import assert_alike

pytest.importorskip("diffusers", reason="needs realgen[train]")
pytest.importorskip("peft", reason="needs realgen[train]")

installed = importlib.util.find_spec("deepspeed") is not None
needs_deepspeed = pytest.mark.skipif(not installed, reason="needs pip install deepspeed")
LAST = "checkpoints/000004"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.train.tiny_pipelines import tiny_sd3

    folder = tmp_path_factory.mktemp("deepspeed")
    tiny_sd3().save_pretrained(folder / "sd3")
    return write_config(folder, folder / "sd3")


def launch(
    config: Path, out: Path, *arguments: str, stage: int = 2
) -> subprocess.CompletedProcess[str]:
    """Run to the end in two processes."""
    plain = command(config, out, *arguments, processes=2)
    flag = plain.index("--multi_gpu")
    chosen = ["--use_deepspeed", "--zero_stage", str(stage)]
    return subprocess.run(
        [*plain[:flag], *chosen, *plain[flag + 1 :]],
        env=environment(DS_ACCELERATOR="cpu"),
        text=True,
        capture_output=True,
        timeout=400,
    )


@pytest.fixture(scope="module")
def sharded(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "sharded"
    result = launch(config, out)
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def without_last(run_: Path, out: Path) -> Path:
    """Copy a run as it was before its last checkpoint."""
    shutil.copytree(run_, out)
    shutil.rmtree(out / LAST)
    return out


@needs_deepspeed
@pytest.mark.slow
def test_shards_come_to_the_numbers_of_whole_optimisers(
    config: Path, sharded: Path, tmp_path: Path
) -> None:
    run(config, tmp_path, processes=2)
    assert_alike(numbers(sharded), numbers(tmp_path))
    state = torch.load(sharded / LAST / "optimizer.pt", weights_only=True)
    assert all(set(one) == {"step", "exp_avg", "exp_avg_sq"} for one in state.values())
    assert all(float(one["step"]) == 8 for one in state.values())  # two updates an iteration


@needs_deepspeed
@pytest.mark.slow
def test_a_run_goes_on_to_the_same_numbers(config: Path, sharded: Path, tmp_path: Path) -> None:
    again = without_last(sharded, tmp_path / "again")
    result = launch(config, again)
    assert result.returncode == 0, result.stdout + result.stderr
    assert numbers(again) == numbers(sharded)
    for name in ("weights", "ema"):
        file_ = f"{LAST}/{name}.safetensors"
        assert (again / file_).read_bytes() == (sharded / file_).read_bytes()


@needs_deepspeed
@pytest.mark.slow
def test_a_run_goes_on_without_it(config: Path, sharded: Path, tmp_path: Path) -> None:
    alone = without_last(sharded, tmp_path / "alone")
    run(config, alone)
    ours = load_file(alone / LAST / "weights.safetensors")
    theirs = load_file(sharded / LAST / "weights.safetensors")
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4)


@needs_deepspeed
@pytest.mark.slow
def test_in_bfloat16_gradients_and_weights_are_not_rounded(config: Path, tmp_path: Path) -> None:
    settings = ["--set", "model.dtype=bfloat16", "--set", "training.iterations=2"]
    result = launch(config, tmp_path / "sharded", *settings, stage=1)
    assert result.returncode == 0, result.stdout + result.stderr
    run(config, tmp_path / "plain", *settings, processes=2)
    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints/000002/optimizer.pt", weights_only=True)
        for name in ("sharded", "plain")
    )
    for name, state in theirs.items():
        torch.testing.assert_close(ours[name]["exp_avg"], state["exp_avg"], rtol=1e-4, atol=1e-8)
    saved = load_file(tmp_path / "sharded/checkpoints/000002/weights.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    assert any((value != value.bfloat16()).any() for value in saved.values())


@pytest.mark.slow
@pytest.mark.skipif(installed, reason="is about a machine without DeepSpeed")
def test_without_deepspeed_one_line_says_so(config: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        command(config, tmp_path),
        env=environment(ACCELERATE_USE_DEEPSPEED="true"),
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert result.returncode == 2
    assert "pip install deepspeed, or launch without it" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("launched", "message"),
    [
        ({"ACCELERATE_DEEPSPEED_CONFIG_FILE": "x.json"}, "a file of DeepSpeed's settings is not"),
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "stage 3 .*--zero_stage 1 or 2.*FSDP"),
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, "stage 0"),
        ({"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "offloading .cpu, none."),
    ],
)
def test_what_cannot_be_trained_with_is_one_line(
    launched: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from realbench.train.machine import _deepspeed_plugin

    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        _deepspeed_plugin(4, 1.0, half=False)


def test_the_trainings_own_settings_are_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from realbench.train.machine import _deepspeed_plugin

    monkeypatch.setenv("ACCELERATE_GRADIENT_CLIPPING", "9")
    settings = _deepspeed_plugin(4, 0.5, half=True).deepspeed_config
    assert (settings["gradient_accumulation_steps"], settings["gradient_clipping"]) == (4, 0.5)
    assert settings["zero_optimization"]["stage"] == 2
    assert settings["torch_autocast"]["enabled"] is True
    assert "bf16" not in settings
