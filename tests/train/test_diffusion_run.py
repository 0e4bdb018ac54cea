"""``realgen-train diffusion`` as its users run it: alone, in two processes, and killed."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Once
from tests.train.loop_runs import command, environment, numbers, run, write_config

pytest.importorskip("diffusers", reason="needs realgen[train]")
pytest.importorskip("peft", reason="needs realgen[train]")


@pytest.fixture(scope="session")
def place(once: Once) -> Path:
    """A folder with a model, its config, and a run that nothing disturbed."""

    def make(folder: Path) -> None:
        from tests.train.tiny_pipelines import tiny_sd3

        tiny_sd3().save_pretrained(folder / "sd3")
        config = write_config(folder, folder / "sd3")
        run(config, folder / "whole", "--set", 'tracking.trackers=["tensorboard"]')

    return once("diffusion", make)


@pytest.fixture(scope="session")
def model(place: Path) -> Path:
    return place / "sd3"


@pytest.fixture(scope="session")
def config(place: Path) -> Path:
    return place / "tiny.toml"


@pytest.fixture(scope="session")
def whole(place: Path) -> Path:
    return place / "whole"


def test_the_command_trains_and_prints_its_summary(tmp_path: Path, capsys: Any) -> None:
    from realbench.cli.program import exit_code
    from realbench.cli.train import app
    from tests.train.tiny_pipelines import tiny_sd3

    tiny_sd3().save_pretrained(tmp_path / "sd3")
    config, out = write_config(tmp_path, tmp_path / "sd3"), tmp_path / "run"
    arguments = ["diffusion", "--config", str(config), "--out", str(out), "--json"]
    assert exit_code(app, "realgen-train", [*arguments, "--set", "training.iterations=1"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(capsys.readouterr().out) == summary
    assert summary["iterations"] == 1
    assert (out / "lora" / "pytorch_lora_weights.safetensors").is_file()


@pytest.mark.slow
def test_a_run_leaves_what_it_says(whole: Path) -> None:
    lines = numbers(whole)
    assert [one["iteration"] for one in lines] == [0, 1, 2, 3, 4]
    assert [bool(one.get("evaluation")) for one in lines] == [True, False, True, False, True]
    first = lines[1]
    assert first["groups"] == 2
    total = (first["components"]["bright"] + 0.5 * first["components"]["red"]) / 1.5
    assert first["reward"] == pytest.approx(total, abs=1e-6)
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["reward_start"] == lines[0]["evaluation"]["reward"]["estimate"]
    assert summary["reward_end"] == lines[4]["evaluation"]["reward"]["estimate"]
    assert summary["heldout_end"] is None
    manifest = json.loads((whole / "run.json").read_text())
    assert manifest["stop_reason"] == "complete"
    assert manifest["n_prompts"] == 3  # two of the five are evaluated
    assert sorted(path.name for path in (whole / "samples" / "000004").iterdir()) == [
        "p0.png",
        "p4.png",
    ]
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["000003", "000004"]
    assert "<html" in (whole / "report.html").read_text()


@pytest.mark.slow
def test_curves_are_in_tensorboard(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(whole / "tensorboard"))
    found.Reload()
    written = {event.step: event.value for event in found.Scalars("reward")}
    logged = {one["iteration"]: one["reward"] for one in numbers(whole) if "reward" in one}
    assert written == pytest.approx(logged, abs=1e-6)
    assert [event.step for event in found.Images("samples")] == [0, 2, 4]


@pytest.mark.slow
def test_the_lora_loads_into_the_pipeline_and_makes_the_images_of_the_run(
    whole: Path, model: Path
) -> None:
    import torch
    from diffusers import StableDiffusion3Pipeline
    from PIL import Image

    from realbench.train.groups import image_generator

    pipe = StableDiffusion3Pipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)

    def images() -> np.ndarray:
        made = pipe(
            ["a red bird", "rain"],
            num_inference_steps=6,
            guidance_scale=2.0,
            height=16,
            width=16,
            generator=[image_generator(0, "evaluation", n) for n in range(2)],
            output_type="np",
        ).images
        return np.asarray(np.round(made * 255), np.int16)

    def saved(iteration: str) -> np.ndarray:
        return np.stack(
            [
                np.asarray(Image.open(whole / "samples" / iteration / f"{name}.png"), np.int16)
                for name in ("p0", "p4")
            ]
        )

    with torch.inference_mode():
        assert np.abs(images() - saved("000000")).max() <= 1
        pipe.load_lora_weights(whole / "lora")
        trained = images()
    assert np.abs(trained - saved("000004")).max() <= 1
    assert np.abs(trained - saved("000000")).max() > 10


@pytest.mark.slow
def test_two_processes_come_to_the_numbers_of_one(
    config: Path, whole: Path, tmp_path: Path
) -> None:
    run(config, tmp_path, processes=2)
    assert json.loads((tmp_path / "run.json").read_text())["processes"] == 2
    assert_alike(numbers(tmp_path), numbers(whole))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_numbers(
    config: Path, whole: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command(config, tmp_path), env=environment(LOOP_TEST_DELAY="0.3"), text=True
    )
    log = tmp_path / "log.jsonl"
    deadline = time.monotonic() + 200
    # The third line is iteration 2: from then on it may be saving, or in the midst of iteration 3.
    while not log.exists() or log.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(numbers(tmp_path)) < 5
    with log.open("ab") as file:
        file.write(b'{"iteration": 3, "rew')  # a line that was cut off
    run(config, tmp_path)
    assert numbers(tmp_path) == numbers(whole)
    for name in ("weights", "ema"):
        file_ = f"checkpoints/000004/{name}.safetensors"
        assert (tmp_path / file_).read_bytes() == (whole / file_).read_bytes()
    lora = "lora/pytorch_lora_weights.safetensors"
    assert (tmp_path / lora).read_bytes() == (whole / lora).read_bytes()


def assert_alike(ours: Any, theirs: Any) -> None:
    """Check that two logs differ by rounding alone."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_alike(ours[key], theirs[key])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_alike(one, other)
    elif isinstance(ours, float):
        # a sum of squares over ranks is made in another order
        assert math.isclose(ours, theirs, rel_tol=2e-3, abs_tol=2e-5), (ours, theirs)
    else:
        assert ours == theirs
