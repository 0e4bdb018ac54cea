"""``models/small-photo/making`` on a handful of pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="needs realgen[train]")

from safetensors.torch import load_file

from realbench.content import content_path
from realbench.errors import UsageError
from realbench.generation.small_photo import CaptionEncoder, words

sys.path.append(str(content_path("models") / "small-photo" / "making"))  # scripts, no package

from photographs import captioned_photographs, random_crop
from pretrain import PretrainSettings, pretrain

SETTINGS = PretrainSettings(
    size=16, width=32, layers=1, caption_width=8, steps=4, batch=4, crops=2, warmup=1
)


@pytest.fixture
def data(tmp_path: Path, make_picture: Any) -> Path:
    """Eight captioned pictures, one without a caption, and a folder of generated ones."""
    for folder in ("photos", "generated-x"):
        where = tmp_path / "data" / folder
        where.mkdir(parents=True)
        lines = []
        for number in range(8):
            make_picture(40, 30, seed=number).save(where / f"{number:02}.png")
            lines.append(
                json.dumps({"id": f"{number:02}", "prompt": f"A red bird number {number}"})
            )
        (where / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    make_picture(40, 30, seed=9).save(tmp_path / "data" / "photos" / "alone.png")
    return tmp_path / "data"


def _weights(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        found |= {f"{file.parent.name}/{k}": v.numpy() for k, v in load_file(file).items()}
    return found


def test_only_captioned_photographs_are_learned_from(data: Path, tmp_path: Path) -> None:
    found = captioned_photographs(data)
    assert [one.path.parent.name for one in found] == ["photos"] * 8
    assert found[3].caption == "A red bird number 3"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no captioned photographs"):
        captioned_photographs(tmp_path / "empty")
    with pytest.raises(UsageError, match="no such folder"):
        captioned_photographs(data / "missing")


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, total: int, loss: float) -> None:
        if done == 3:
            raise StopError

    record = pretrain(data, tmp_path / "whole", SETTINGS, checkpoint_every=2)
    with pytest.raises(StopError):
        pretrain(data, tmp_path / "cut", SETTINGS, checkpoint_every=2, on_step=stop)
    again = pretrain(data, tmp_path / "cut", SETTINGS, checkpoint_every=2)
    whole, cut = _weights(tmp_path / "whole"), _weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)
    assert again["loss"] == record["loss"]
    assert record["photographs"] == 8
    assert len(record["data_sha256"]) == 64
    assert (tmp_path / "whole-training" / "samples-000004.png").is_file()
    other = PretrainSettings(**(SETTINGS.__dict__ | {"batch": 8}))
    with pytest.raises(UsageError, match="a run with other batch"):
        pretrain(data, tmp_path / "cut", other)


def test_crops_are_squares_of_the_picture_half_of_them_mirrored(make_picture: Any) -> None:
    ramp = make_picture(64, 48).convert("RGB")
    ramp.putdata([(4 * x, 0, 0) for _ in range(48) for x in range(64)])
    rng = np.random.default_rng(0)
    crops = [random_crop(ramp, 16, rng) for _ in range(200)]
    assert {crop.shape for crop in crops} == {(16, 16, 3)}
    rising = np.mean([crop[0, 0, 0] < crop[0, -1, 0] for crop in crops])
    assert 0.4 < rising < 0.6


def test_an_encoder_reads_the_words_that_it_knows() -> None:
    import torch

    assert words("A photo of a Red bird, on the grass!") == ["red", "bird", "grass"]
    encoder = CaptionEncoder(["bird", "grass", "red"], dim=4, max_words=3)
    states, mask = encoder(["a red bird", "", "an unheard-of thing"])
    assert states.shape == (3, 4, 4)
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert torch.equal(states[1], states[2])
    mean = (encoder.embedding.weight[2] + encoder.embedding.weight[0]) / 2
    torch.testing.assert_close(states[0, 0], encoder.start + mean)


@pytest.mark.slow
def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    making = content_path("models") / "small-photo" / "making" / "making.py"
    command = [sys.executable, making, "--data", tmp_path, "--out", tmp_path / "out", "--quiet"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "no captioned photographs" in ended.stderr
    assert "Traceback" not in ended.stderr
