"""Code that comes with a pipeline's folder is never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="needs realgen[generate]")

from realbench.errors import RealBenchError
from realbench.generation.pipeline import PipelineOptions, load_pipeline

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from diffusers import DiffusionPipeline
class Mine(DiffusionPipeline):
    def __init__(self, part=None):
        super().__init__()
class Part:
    pass
"""


@pytest.mark.parametrize(
    ("index", "file"),
    [
        ({"_class_name": ["pipeline", "Mine"]}, "pipeline.py"),
        ({"_class_name": "DiffusionPipeline", "part": ["mine", "Part"]}, "part/mine.py"),
    ],
    ids=["of the pipeline", "of a part"],
)
def test_code_of_a_folder_is_not_run(tmp_path: Path, index: dict[str, Any], file: str) -> None:
    folder, marker = tmp_path / "model", tmp_path / "it ran"
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text(CODE.format(marker=str(marker)))
    index = {"_diffusers_version": "0.38.0"} | index
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(RealBenchError, match="cannot load the pipeline"):
        load_pipeline(PipelineOptions(str(folder), device="cpu"), "float32")
    assert not marker.exists()
