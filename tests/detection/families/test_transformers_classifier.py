"""Hub classifiers against transformers' own pipeline, with tiny models of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import realbench
from realbench.errors import RealBenchError
from tests.detection.families.published_cards import changed_card, logits, pictures

LABELS = {
    "sdxl-detector": ["artificial", "human"],
    "ai-image-detector": ["artificial", "human"],
    "ai-image-detector-deploy": ["artificial", "real"],
    "ai-vs-human": ["ai", "hum"],
}
REAL = {"human", "real", "hum"}
SIZES = ((300, 420), (90, 64), (500, 31), (1, 1))


def save_model(folder: Path, kind: str, labels: list[str]) -> Path:
    """Save a classifier of some ten thousand weights, with its processor."""
    names: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: n for n, name in enumerate(labels)},
    }
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    vision = {"image_size": 64, "patch_size": 16, "num_attention_heads": 2, **small}
    swin = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [1, 1]}
    swin |= {"num_heads": [2, 2], "window_size": 4}
    processor: Any = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    if kind == "siglip":
        config = transformers.SiglipConfig(vision_config=vision, text_config=small, **names)
        processor = transformers.SiglipImageProcessor(size={"height": 64, "width": 64})
    elif kind == "clip":
        config = transformers.CLIPConfig(vision_config=vision, projection_dim=32, **names)
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}
        )
    else:
        settings = vision if kind == "vit" else swin
        config = transformers.AutoConfig.for_model(kind, **settings, **names)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForImageClassification.from_config(config)
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.data.normal_(0, 0.5 if "classifier" in name else 0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def pipeline_scores(folder: Path, images: list[np.ndarray]) -> np.ndarray:
    """P(real) as ``transformers.pipeline`` says it."""
    ask = transformers.pipeline("image-classification", model=str(folder), device="cpu")
    answers = [ask(Image.fromarray(i), top_k=None, function_to_apply="softmax") for i in images]
    return np.array([sum(one["score"] for one in a if one["label"] in REAL) for a in answers])


def probability(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit.astype(np.float64)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sdxl-detector", "swin"),
        ("ai-image-detector", "vit"),
        ("ai-image-detector-deploy", "swinv2"),
        ("ai-vs-human", "siglip"),
        ("ai-vs-human", "clip"),
    ],
)
def test_scores_are_the_pipelines(tmp_path: Path, name: str, kind: str) -> None:
    folder = save_model(tmp_path / "model", kind, LABELS[name])
    images = pictures(*SIZES)
    expected = pipeline_scores(folder, images)
    assert np.ptp(expected) > 0.001
    detector = realbench.load_detector(name, weights=folder)
    np.testing.assert_allclose(probability(logits(detector, images)), expected, atol=1e-4)


def test_labels_of_one_class_add_up(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "vit", ["sdxl", "human", "midjourney"])
    card = changed_card(tmp_path, "sdxl-detector", ('["artificial"]', '["sdxl", "midjourney"]'))
    images = pictures(*SIZES)
    found = probability(logits(realbench.load_detector(card, weights=folder), images))
    np.testing.assert_allclose(found, pipeline_scores(folder, images), atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["fake", "real"], "has 'human', but the model's labels are 'fake', 'real'"),
        (["artificial", "human", "deepfake"], "does not say whether 'deepfake'"),
    ],
)
def test_labels_are_never_guessed(tmp_path: Path, labels: list[str], message: str) -> None:
    folder = save_model(tmp_path / "model", "vit", labels)
    with pytest.raises(RealBenchError, match=message):
        realbench.load_detector("sdxl-detector", weights=folder)


def test_a_card_without_labels_and_one_with_a_label_twice_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "vit", ["artificial", "human"])
    text = '[labels]\nreal = ["human"]\ngenerated = ["artificial"]\n'
    card = changed_card(tmp_path, "sdxl-detector", (text, ""))
    with pytest.raises(RealBenchError, match="never guessed"):
        realbench.load_detector(card, weights=folder)
    card = changed_card(tmp_path, "sdxl-detector", ('["artificial"]', '["human"]'))
    with pytest.raises(RealBenchError, match="'human' stands for both classes"):
        realbench.load_detector(card, weights=folder)


def test_an_incomplete_model_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_model(tmp_path / "model", "vit", ["artificial", "human"])
    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "classifier" not in k},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(RealBenchError, match="2 tensors are missing"):
        realbench.load_detector("sdxl-detector", weights=folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(RealBenchError, match="AutoImageProcessor") as caught:
        realbench.load_detector("sdxl-detector", weights=folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(RealBenchError, match="is no model folder"):
        realbench.load_detector("sdxl-detector", weights=folder / "config.json")


def test_a_processor_with_steps_of_its_own_is_refused(tmp_path: Path) -> None:
    """Pictures of different shapes cannot share a batch."""
    folder = save_model(tmp_path / "model", "vit", ["artificial", "human"])
    transformers.CLIPImageProcessor(do_center_crop=False).save_pretrained(folder)
    with pytest.raises(RealBenchError, match="different shapes"):
        realbench.load_detector("sdxl-detector", weights=folder)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_torch_weights_are_read_and_code_in_them_is_not_run(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = save_model(tmp_path / "model", "vit", ["artificial", "human"])
    images = pictures((90, 120))
    first = logits(realbench.load_detector("sdxl-detector", weights=folder), images)
    state: dict[str, Any] = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    second = logits(realbench.load_detector("sdxl-detector", weights=folder), images)
    np.testing.assert_array_equal(first, second)
    torch.save(state | {"extra": Evil(tmp_path / "owned")}, folder / "pytorch_model.bin")
    with pytest.raises(RealBenchError, match="cannot be loaded") as caught:
        realbench.load_detector("sdxl-detector", weights=folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_a_file_that_was_cut_off_is_named_with_its_folder(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "vit", ["artificial", "human"])
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RealBenchError, match=r"model cannot be loaded .*; fetch it again"):
        realbench.load_detector("sdxl-detector", weights=folder)


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "vit", ["artificial", "human"])
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    with pytest.raises(RealBenchError, match="it needs Python code of its own, which is never run"):
        realbench.load_detector("sdxl-detector", weights=folder)
    assert not (tmp_path / "owned").exists()
