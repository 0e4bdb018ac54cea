"""The shipped small model: its files, its pictures, and how the trainer sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="needs realgen[train]")

import torch

from realbench.content import content_path
from realbench.detection.registry import EMBEDDED_DETECTORS, find_card
from realbench.errors import UsageError
from realbench.generation.small_photo import SmallPhotoPipeline, load_small_photo
from realbench.train.config import SamplingConfig
from realbench.train.flow_models.small_photo import SmallPhoto
from realbench.train.rollout import replay, rollout

FOLDER = content_path("models") / "small-photo"
MEANS, DEVIATION = [0.481, 0.483, 0.476], 0.216  # of the weights as they are shipped
PROMPTS = ["A mountain lake under a cloudy sky", "A smiling man in a white shirt", ""]


@pytest.fixture(scope="module")
def pipeline() -> SmallPhotoPipeline:
    loaded = load_small_photo()
    loaded.set_progress_bar_config(disable=True)
    return loaded


def _generators(n: int = len(PROMPTS)) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def test_the_files_are_small_and_hold_no_pickle() -> None:
    files = [file for file in FOLDER.rglob("*") if file.is_file() and "making" not in file.parts]
    assert sum(file.stat().st_size for file in files) < 15e6
    assert {file.suffix for file in files} <= {".json", ".jsonl", ".md", ".safetensors"}


def test_pictures_depend_on_prompt_and_seed_only(pipeline: SmallPhotoPipeline) -> None:
    together = pipeline(PROMPTS, 4, generator=_generators(), output_type="np").images
    assert together.shape == (3, 32, 32, 3)
    alone = pipeline(PROMPTS[1], 4, generator=[_generators()[1]], output_type="np").images
    np.testing.assert_allclose(alone[0], together[1], atol=1e-4)
    other = pipeline(PROMPTS[0], 4, generator=[_generators()[1]], output_type="np").images
    assert np.abs(other[0] - together[1]).mean() > 0.01


def test_golden_statistics(pipeline: SmallPhotoPipeline) -> None:
    pictures = pipeline(PROMPTS[:2] * 4, 10, generator=_generators(8), output_type="np").images
    assert pictures.mean((0, 1, 2)).tolist() == pytest.approx(MEANS, abs=0.01)
    assert float(pictures.std()) == pytest.approx(DEVIATION, abs=0.01)


def test_the_trainer_draws_the_pipeline_s_own_pictures(pipeline: SmallPhotoPipeline) -> None:
    model = SmallPhoto(pipeline)
    for guidance in (1.0, 2.5):
        settings = SamplingConfig(steps=3, window=1, guidance=guidance, height=32, width=32)
        made = rollout(model, model.encode_prompts(PROMPTS), settings, _generators())
        own = pipeline(
            PROMPTS, 3, guidance_scale=guidance, generator=_generators(), output_type="np"
        ).images
        difference = made.images.permute(0, 2, 3, 1).numpy() / 255 - own
        assert np.abs(difference).max() < 0.51 / 255 + 1e-4


def test_log_probabilities_are_the_same_again(pipeline: SmallPhotoPipeline) -> None:
    model = SmallPhoto(pipeline)
    settings = SamplingConfig(steps=6, guidance=2.0, height=32, width=32)
    rows = model.encode_prompts(PROMPTS)
    made = rollout(model, rows, settings, _generators(), window=range(1, 3))
    for taken in made.steps:
        again = replay(model, rows, taken, settings)
        torch.testing.assert_close(again.log_prob, taken.log_prob, atol=1e-5, rtol=0)


def test_another_size_is_refused(pipeline: SmallPhotoPipeline) -> None:
    with pytest.raises(UsageError, match="32 x 32"):
        SmallPhoto(pipeline).initial_latents(1, 64, 64, _generators(1))


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"making\.py"):
        load_small_photo(tmp_path)


def test_it_loads_as_a_pipeline_of_diffusers(pipeline: SmallPhotoPipeline) -> None:
    from diffusers import DiffusionPipeline

    loaded = SmallPhotoPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32)
    assert isinstance(loaded, DiffusionPipeline)
    loaded.set_progress_bar_config(disable=True)
    both = [
        p(PROMPTS, 2, generator=_generators(), output_type="np").images for p in (loaded, pipeline)
    ]
    np.testing.assert_allclose(both[0], both[1], atol=1e-4)


def test_it_is_loaded_in_a_type_without_a_word_of_diffusers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from diffusers.models.modeling_utils import logger

    from realbench.train.flow_models import load_flow_model

    said: list[str] = []
    monkeypatch.setattr(logger, "warning", said.append)
    for dtype in ("float32", "bfloat16"):
        model = load_flow_model("small-photo", dtype=dtype, device="cpu")
        assert model.dtype == getattr(torch, dtype)
    assert said == []


def test_its_judges_are_apart_from_the_default_detectors() -> None:
    reward, heldout = find_card("small-photo-reward"), find_card("small-photo-heldout")
    assert not {reward.name, heldout.name} & set(EMBEDDED_DETECTORS)
    assert reward.model.architecture != heldout.model.architecture
    assert "32 pixels" in reward.description
    assert "32 pixels" in heldout.description
    assert all(card.weights_path.stat().st_size < 8e6 for card in (reward, heldout))
