"""``import realbench``: its names are there, and loaded when they are first used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import realbench
from realbench.arena.merging import merge
from realbench.bench.run import bench
from realbench.errors import UsageError
from realbench.generation import GenerateOptions
from realbench.generation.pipeline import PipelineOptions
from realbench.train import diffusion
from realbench.train.config import DiffusionConfig
from realbench.train.prompt import run as prompt
from realbench.train.prompt.config import PromptTrainConfig
from tests.conftest import FolderMaker
from tests.fakes import make_card


def test_every_public_name_is_there() -> None:
    assert {"ArenaRun", "Reward", "ScoreRun", "Scorer", "arena", "generate", "score"} <= set(
        realbench.__all__
    )
    for name in set(realbench.__all__) - {"__version__"}:
        assert callable(getattr(realbench, name)), name
    assert set(realbench.__all__) <= set(dir(realbench))


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, realbench; "
        "assert not {'numpy', 'pydantic', 'torch', 'PIL', 'typer'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("out", ["", "  "])
def test_an_empty_name_of_results_is_not_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_folder: FolderMaker, out: str
) -> None:
    a, b = make_folder("a", 2), make_folder("b", 2)
    kept = make_card(tmp_path / "cards", "tiny")
    scored = realbench.score(a, b, detectors=[kept])
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    options = GenerateOptions(pipeline=PipelineOptions("nothing"))
    for call in (
        lambda: realbench.score(a, b, detectors=[kept], out=out),
        lambda: scored.write(out),
        lambda: realbench.arena(str(a), str(b), out=out),
        lambda: merge([a, b], out),
        lambda: realbench.generate("realbench-mini", out, options),
        lambda: bench(a, real=b, detectors=[kept], out=out),
        lambda: diffusion.train(DiffusionConfig.model_construct(), out=out),
        lambda: prompt.train(PromptTrainConfig.model_construct(), out=out),
    ):
        with pytest.raises(UsageError, match="out is empty"):
            call()
    assert list(working.iterdir()) == []
