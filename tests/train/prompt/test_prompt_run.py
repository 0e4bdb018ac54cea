"""A training with tiny models, from the command to images: killed, gone on with, exported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from realbench.errors import RealBenchError, UsageError
from tests.conftest import Once
from tests.generation.tiny_models import save_tiny_pipeline, save_tiny_writer
from tests.train.loop_runs import numbers
from tests.train.tiny_detectors import save_tiny_detector

pytest.importorskip("trl", reason="needs realgen[train]")

ROOT = Path(__file__).resolve().parents[3]
ITERATIONS = 4

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def models(once: Once) -> dict[str, Path]:
    def make(folder: Path) -> None:
        save_tiny_writer(folder / "writer", chat=True)
        save_tiny_pipeline(folder / "pipeline")
        save_tiny_detector(folder / "heldout", "statistics")

    folder = once("prompt-models", make)
    return {name: folder / name for name in ("writer", "pipeline", "heldout")}


@pytest.fixture(scope="session")
def suite(once: Once) -> Path:
    def make(folder: Path) -> None:
        things = ("fox", "cup", "boat", "<b>door</b>", "hill", "chair", "lamp", "tree")
        lines = [json.dumps({"id": f"p{n}", "prompt": f"a {t}"}) for n, t in enumerate(things)]
        (folder / "things.jsonl").write_text("\n".join(lines))

    return once("prompts", make) / "things.jsonl"


@pytest.fixture(scope="session")
def config(models: dict[str, Path], suite: Path) -> dict[str, Any]:
    return {
        "model": {"source": str(models["writer"]), "device": "cpu"},
        "prompts": {"suite": str(suite)},
        "writing": {"max_tokens": 10},
        "training": {
            "iterations": ITERATIONS,
            "prompts_per_iteration": 2,
            "group_size": 3,
            "batch_size": 3,
            "learning_rate": 3e-2,
        },
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "loss": {"kl": 0.01},
        "pipeline": {
            "source": str(models["pipeline"]),
            "steps": 2,
            "width": 32,
            "height": 32,
            "batch_size": 4,
            "device": "cpu",
        },
        "reward": {
            "components": [{"kind": "function", "function": "tests.train.loop_rewards:brightness"}]
        },
        "text": {"length": {"minimum": 1, "maximum": 3, "margin": 5}, "form": {"weight": 0.5}},
        "evaluation": {"every": 2, "prompts": 3, "heldout": [str(models["heldout"])]},
        "checkpoints": {"every": 1, "keep": 2},
    }


@pytest.fixture(scope="session")
def finished(config: dict[str, Any], once: Once) -> Any:
    from realbench.train.prompt.config import PromptTrainConfig
    from realbench.train.prompt.run import train

    settings = PromptTrainConfig.model_validate(config)

    def make(folder: Path) -> None:
        stages: list[str] = []
        train(settings, out=folder / "whole", progress=lambda one: stages.append(one.stage))
        assert stages[0] == "loading"
        assert {"evaluating", "training"} <= set(stages)

    return train(settings, out=once("prompt-run", make) / "whole")  # nothing is left to do


def test_a_run_says_what_it_did(finished: Any) -> None:
    out, log = finished.out, [one.values_set() for one in finished.log]
    assert [one["iteration"] for one in log] == list(range(ITERATIONS + 1))
    assert [one["iteration"] for one in log if one.get("evaluation")] == [0, 2, 4]
    for one in log[1:]:
        assert one["n"] == 6
        assert one["groups"] == 2
        assert set(one["components"]) == {"function", "length", "form"}
        weighted = [one["components"][k] * w for k, w in (("function", 0.4), ("length", 0.4))]
        assert one["reward"] == pytest.approx(sum(weighted) + 0.2 * one["components"]["form"])
        assert one["approx_kl"] >= 0
    assert log[4]["approx_kl"] > 0  # the model is no longer the base
    summary = json.loads((out / "summary.json").read_text())
    first, last = log[0]["evaluation"], log[4]["evaluation"]
    assert summary["reward_start"] == first["reward"]["estimate"]
    assert summary["reward_end"] == last["reward"]["estimate"]
    assert summary["heldout_end"] == last["heldout"]["estimate"]
    assert summary["n_prompts"] == 3
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["stop_reason"] == "complete"
    assert manifest["kind"] == "prompt"
    assert manifest["pipeline"]["pipeline"] == "StableDiffusionPipeline"
    assert list(out.glob("tensorboard/**/events.out.tfevents.*"))
    assert len(list((out / "checkpoints").glob("checkpoint-*"))) == 2
    page = (out / "report.html").read_text()
    assert "<b>door</b>" not in page
    assert "Rewrites" in page
    assert "data:image/" in page


def test_a_killed_run_goes_on_to_the_same_numbers(
    finished: Any, config: dict[str, Any], tmp_path: Path
) -> None:
    import torch

    from realbench.train.prompt.config import PromptTrainConfig
    from realbench.train.prompt.run import train

    threads = str(torch.get_num_threads())  # as here: another number sums in another order
    file, out = tmp_path / "tiny.toml", tmp_path / "killed"
    file.write_text(to_toml(config))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "realbench.cli.train", "prompt", "--quiet"),
            *("--config", str(file), "--out", str(out)),
        ],
        cwd=ROOT,
        env=os.environ | {"LOOP_TEST_DELAY": "0.5", "OMP_NUM_THREADS": threads},
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and last_iteration(out) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert last_iteration(out) < ITERATIONS
    # As if it had been killed while it wrote the next checkpoint and the next line.
    (out / "checkpoints" / "checkpoint-9").mkdir()
    with (out / "log.jsonl").open("a") as log:
        log.write('{"iteration": 3, "rew')
    with pytest.raises(UsageError, match=r"a run of realgen-train|has no rewriter yet"):
        generate_with(out, config, tmp_path / "images")
    result = train(PromptTrainConfig.model_validate(config), out=out)
    assert numbers(out) == numbers(finished.out)
    same = "adapter_model.safetensors"
    assert (out / "rewriter" / same).read_bytes() == (finished.rewriter / same).read_bytes()
    # Once more there is nothing to do.
    again = train(PromptTrainConfig.model_validate(config), out=out)
    assert again.summary == result.summary


def test_generate_makes_the_images_of_the_evaluation(
    finished: Any, config: dict[str, Any], suite: Path, tmp_path: Path
) -> None:
    """Prompt -> language model -> diffusion -> image, in one command, by the trained weights."""
    import numpy as np
    from PIL import Image

    out = tmp_path / "images"
    generate_with(finished.out, config, out, command=True, suite=suite)
    manifest = json.loads((out / "generation.json").read_text())
    settings = manifest["settings"]["rewriter"]
    assert settings["instruction"] == "photographic-v1"
    assert settings["max_tokens"] == 10
    assert settings["base"] == config["model"]["source"]
    records = [
        json.loads(line)
        for line in (finished.out / "samples" / f"{ITERATIONS:06}.jsonl").read_text().splitlines()
    ]
    for one in records:
        assert manifest["images"][one["id"]]["rewritten"] == one["rewritten"]
        made = np.asarray(Image.open(out / f"{one['id']}.png"), np.int16)
        seen = finished.out / "samples" / f"{ITERATIONS:06}" / f"{one['id']}.png"
        # Made one by one here, together there: equal but for rounding.
        assert np.abs(made - np.asarray(Image.open(seen), np.int16)).max() <= 2
    # The base model alone writes something else: the adapter is what did it.
    plain = config["model"]["source"]
    generate_with(Path(plain), config, tmp_path / "plain", suite=suite)
    base = json.loads((tmp_path / "plain" / "generation.json").read_text())["images"]
    assert any(base[one["id"]]["rewritten"] != one["rewritten"] for one in records)


def test_what_cannot_go_on_is_one_line(
    finished: Any, config: dict[str, Any], tmp_path: Path
) -> None:
    from realbench.train.prompt.config import PromptTrainConfig
    from realbench.train.prompt.run import train

    def refused(out: Path, **changes: Any) -> str:
        with pytest.raises(RealBenchError) as error:
            train(PromptTrainConfig.model_validate(config | changes), out=out)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "another seed (0, now 1)" in refused(finished.out, seed=1)
    fewer = config["evaluation"] | {"prompts": 2}
    assert "another evaluation.prompts" in refused(finished.out, evaluation=fewer)
    trained = {"source": str(finished.out), "device": "cpu"}
    assert "is a trained rewriter" in refused(tmp_path / "a", model=trained)
    nothing = {"source": str(tmp_path / "no.gguf"), "device": "cpu"}
    assert "there is no file" in refused(tmp_path / "b", model=nothing)
    many = config["lora"] | {"last_layers": 2}
    assert "lora.last_layers is 2, the model has 1" in refused(tmp_path / "c", lora=many)
    inside = config["evaluation"] | {"heldout": ["no-such-detector"]}
    assert "no-such-detector" in refused(tmp_path / "d", evaluation=inside)


def test_a_gamed_reward_ends_the_run_if_asked(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from realbench.errors import RealBenchWarning
    from realbench.train.prompt.config import PromptTrainConfig
    from realbench.train.prompt.run import train
    from realbench.train.watch import hacking_warning

    def alarmed(evaluations: dict[int, dict[str, list[float]]]) -> str | None:
        assert hacking_warning(evaluations) is None
        step, last = list(evaluations.items())[-1]
        assert len(last["reward"]) == len(last["heldout"]) == 3
        return "the reward rises while the held-out score falls" if step == 2 else None

    monkeypatch.setattr("realbench.train.evaluation.hacking_warning", alarmed)
    wary = config["evaluation"] | {"stop_on_hacking": True}
    settings = PromptTrainConfig.model_validate(
        config | {"evaluation": wary, "checkpoints": {"every": 3}}
    )
    with pytest.warns(RealBenchWarning, match="held-out score falls"):
        result = train(settings, out=tmp_path / "run")
    assert result.stop_reason == "hacking"
    assert result.log[-1].iteration == 2
    assert result.summary["warnings"][0]["iteration"] == 2
    # The same command again goes no further, and a lost export is made again.
    (result.rewriter / "rewriter.json").unlink()
    again = train(settings, out=tmp_path / "run")
    assert again.stop_reason == "hacking"
    assert len(again.log) == len(result.log)
    assert (again.rewriter / "rewriter.json").is_file()


def test_all_weights_can_be_trained_and_a_base_model_writes_on(
    config: dict[str, Any], suite: Path, tmp_path: Path
) -> None:
    from realbench.generation.rewriting import RewriterOptions, rewrite
    from realbench.train.prompt.config import PromptTrainConfig
    from realbench.train.prompt.run import train

    writer = save_tiny_writer(tmp_path / "writer", chat=False)
    changes = {
        "model": {"source": str(writer), "device": "cpu"},
        "lora": {"enabled": False},
        "training": config["training"] | {"iterations": 1},
        "pipeline": None,
        "reward": None,
        "evaluation": {"prompts": 3},
        "tracking": {"trackers": []},
    }
    result = train(PromptTrainConfig.model_validate(config | changes), out=tmp_path / "run")
    assert (result.rewriter / "model.safetensors").is_file()
    texts: dict[int, str | None] = {}
    options = RewriterOptions(str(tmp_path / "run"))
    assert options.describe()["max_tokens"] == 10
    rewrite(["a fox"], options, device="cpu", dtype="float32", take=texts.__setitem__)
    assert list(texts) == [0]
    assert not list((tmp_path / "run").glob("rewriter/training_args.bin"))


def generate_with(
    rewriter: Path,
    config: dict[str, Any],
    out: Path,
    *,
    command: bool = False,
    suite: Path | None = None,
) -> None:
    """Make images with a rewriter in front, by the function or by the command."""
    from realbench.cli.main import app
    from realbench.generation import GenerateOptions, generate
    from realbench.generation.pipeline import PipelineOptions
    from realbench.generation.rewriting import RewriterOptions

    pipe = config["pipeline"]
    if command:
        code = app(
            [
                *("generate", "--prompts", str(suite), "--model", pipe["source"]),
                *("--steps", "2", "--width", "32", "--height", "32", "--device", "cpu"),
                *("--rewriter", str(rewriter), "--out", str(out), "--quiet"),
            ],
            standalone_mode=False,
        )
        assert not code
        return
    options = GenerateOptions(
        PipelineOptions(pipe["source"], steps=2, width=32, height=32, device="cpu"),
        RewriterOptions(str(rewriter), max_tokens=10),
    )
    generate(suite or config["prompts"]["suite"], out, options)


def last_iteration(out: Path) -> int:
    """Return the iteration of a log's last whole line, -1 before there is one."""
    try:
        lines = (out / "log.jsonl").read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return -1
    whole = [line for line in lines if line.endswith("\n")]
    return int(json.loads(whole[-1])["iteration"]) if whole else -1


def to_toml(values: dict[str, Any]) -> str:
    """Write nested tables in TOML; JSON's notation of plain values is TOML's, too."""

    def inline(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} = {inline(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(inline, value)) + "]"
        return json.dumps(value)

    return "".join(f"{key} = {inline(value)}\n" for key, value in values.items())
