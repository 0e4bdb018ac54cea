"""``realbench generate`` as its users run it: killed, made again, and its folder scored."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realbench.prompts import load_suite
from tests.cli.commands import command, error_line, realbench
from tests.generation.conftest import tiny_pipeline  # noqa: F401 - a fixture


@pytest.mark.slow
def test_a_killed_run_goes_on_and_its_folder_is_scored(
    tmp_path: Path,
    cards: list[str],
    environment: dict[str, str],
    tiny_pipeline: Path,  # noqa: F811
) -> None:
    out = tmp_path / "tiny"
    suite = ("--prompts", "realbench-mini", "--long", "--limit", "16")
    model = ("--model", tiny_pipeline, "--width", "64", "--height", "64", "--device", "cpu")
    arguments = ("generate", *suite, *model, "--steps", "60", "--out", out)
    process = subprocess.Popen(
        command(*arguments), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        end = time.monotonic() + 240
        while len(list(out.glob("*.png"))) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert 2 <= len(before) < 16
    result = realbench(*arguments, environment=environment)
    assert f"{16 - len(before)} images made in {out}, {len(before)} were there" in result.stdout
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    manifest = json.loads((out / "generation.json").read_text(encoding="utf-8"))
    assert manifest["stop_reason"] == "complete"
    assert manifest["counts"]["images"] == 16
    mini = load_suite("realbench-mini")
    assert [one["prompt"] for one in manifest["images"].values()] == [
        one.prompt_long for one in list(mini.prompts.values())[:16]
    ]
    run = tmp_path / "run"
    options = ("--prompts", "realbench-mini", "--out", run, *cards)
    realbench("score", out, *options, environment=environment)
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["n_scored"] == 16


def test_a_folder_is_made_and_goes_on(
    tmp_path: Path,
    environment: dict[str, str],
    tiny_pipeline: Path,  # noqa: F811
) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "tiny"
    prompts.write_text("a red fox\na blue cup\n", encoding="utf-8")
    model = ("--model", tiny_pipeline, "--width", "32", "--height", "32", "--device", "cpu")
    arguments = ("generate", "--prompts", prompts, *model, "--steps", "1", "--out", out)
    shown = realbench(*arguments, "--limit", "1", environment=environment).stdout
    assert f"1 images made in {out}, 0 were there" in shown
    counts = json.loads(realbench(*arguments, "--json", environment=environment).stdout)
    assert (counts["made"], counts["kept"], counts["images"]) == (1, 1, 2)
    assert sorted(path.name for path in out.glob("*.png")) == ["00000.png", "00001.png"]


def test_what_is_wrong_is_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    pytest.importorskip("diffusers", reason="needs realgen[generate]")
    arguments = ("generate", "--prompts", "realbench-mini", "--model", tmp_path, "--out", "tiny")
    result = realbench(*arguments, environment=environment, cwd=tmp_path, code=2)
    assert "has no model_index.json" in error_line(result)
    result = realbench(*arguments, "--argument", "x", environment=environment, cwd=tmp_path, code=2)
    assert "--argument x: give NAME=VALUE" in error_line(result)
    code = "import sys; sys.modules['diffusers'] = None; from realbench.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 1
    assert (
        "generate needs diffusers: python -m pip install '.[generate]' in a checkout"
        in error_line(result)
    )
