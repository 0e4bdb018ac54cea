"""CLIP families against open_clip's own preprocessing, encoders and zero-shot classifier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

import realbench
from realbench.errors import RealBenchError, UsageError
from tests.detection.families.published_cards import changed_card, logits, pictures

ARCHITECTURE = "realbench-tiny-quickgelu"
TINY = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 16, "patch_size": 32},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 1,
    },
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = ((300, 420), (250, 224), (100, 500), (33, 20), (1, 1))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A tiny CLIP model whose pictures and texts differ, and its file."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    model = open_clip.create_model(ARCHITECTURE, pretrained=None, load_weights=False)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight *= 2
    path = folder / "open_clip_model.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return model.eval(), path


def save_head(path: Path, width: int, outputs: int = 1) -> torch.nn.Linear:
    torch.manual_seed(1)
    head = torch.nn.Linear(width, outputs)
    torch.save(head.state_dict(), path)
    return head


def univfd_reference(model: Any, head: torch.nn.Linear, images: Sequence[np.ndarray]) -> np.ndarray:
    """Score as the paper: the middle 224 px, CLIP's image features, one layer, P(fake)."""
    prepare = transforms.Compose(
        [transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    with torch.no_grad():
        x = torch.stack([prepare(Image.fromarray(image)) for image in images])
        fake = head(model.encode_image(x)).sigmoid().squeeze(1)
    return 1 - fake.numpy()


def probability(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit.astype(np.float64)))


def tiny_univfd(folder: Path, *changes: tuple[str, str]) -> Path:
    return changed_card(folder, "univfd", ("ViT-L-14-quickgelu", ARCHITECTURE), *changes)


def test_univfd_gives_the_papers_number(clip: tuple[Any, Path], tmp_path: Path) -> None:
    model, path = clip
    head = save_head(tmp_path / "fc_weights.pth", 48)
    detector = realbench.load_detector(
        tiny_univfd(tmp_path),
        weights={"weights": tmp_path / "fc_weights.pth", "backbone": path},
    )
    images = pictures(*SIZES)
    expected = univfd_reference(model, head, images)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(probability(logits(detector, images)), expected, atol=1e-4)


def test_files_beside_the_card_and_in_the_weights_folder_are_found(
    clip: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = clip
    monkeypatch.setenv("REALBENCH_WEIGHTS", str(tmp_path / "weights"))
    card = tiny_univfd(tmp_path / "cards")
    save_head(card / "fc_weights.pth", 48)
    (tmp_path / "weights" / "univfd").mkdir(parents=True)
    (tmp_path / "weights" / "univfd" / path.name).symlink_to(path)
    detector = realbench.load_detector(card)
    assert np.isfinite(logits(detector, pictures((240, 240)))).all()


def test_a_head_of_two_classes_on_features_of_length_one(
    clip: tuple[Any, Path], tmp_path: Path
) -> None:
    model, path = clip
    head = save_head(tmp_path / "head.pth", 48, outputs=2)
    card = tiny_univfd(
        tmp_path,
        ('kind = "logit-fake"', 'kind = "classes"\nreal = 1'),
        ("[backbone]", "[model.options]\nunit_length = true\n\n[backbone]"),
    )
    given = {"weights": tmp_path / "head.pth", "backbone": path}
    images = pictures((300, 300), (224, 230))
    prepare = transforms.Compose(
        [transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    with torch.no_grad():
        x = torch.stack([prepare(Image.fromarray(image)) for image in images])
        expected = head(model.encode_image(x, normalize=True)).softmax(dim=1)[:, 1].numpy()
    found = probability(logits(realbench.load_detector(card, weights=given), images))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((ARCHITECTURE, "ViT-Q-99"), "open_clip has no model 'ViT-Q-99'"),
        (('kind = "logit-fake"', 'kind = "classes"\nreal = 0'), "one output: say logit"),
        (('fit = "center-crop"\n', ""), "input.fit"),
        (('fit = "center-crop"\nresize = "none"', 'fit = "squash"\nresize = "none"'), "resize"),
        (("[output]", "[output]\nreal = 1"), "real"),
        (
            ('source = "hub"\nrepo = "timm/vit_large_patch14_clip_224.openai"', 'source = "hub"'),
            "repo",
        ),
    ],
)
def test_a_wrong_card_is_refused(
    clip: tuple[Any, Path], tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    save_head(tmp_path / "fc_weights.pth", 48)
    card = tiny_univfd(tmp_path, change)
    with pytest.raises(UsageError, match=message) as caught:
        realbench.load_detector(
            card, weights={"weights": tmp_path / "fc_weights.pth", "backbone": clip[1]}
        )
    assert "\n" not in str(caught.value)


def test_files_of_other_networks_are_refused(clip: tuple[Any, Path], tmp_path: Path) -> None:
    card = tiny_univfd(tmp_path)
    save_head(tmp_path / "wide.pth", 512)
    with pytest.raises(RealBenchError, match=r"takes 512 features, but .* gives 48"):
        realbench.load_detector(
            card, weights={"weights": tmp_path / "wide.pth", "backbone": clip[1]}
        )
    with pytest.raises(RealBenchError, match="is no linear layer"):
        realbench.load_detector(card, weights={"weights": clip[1], "backbone": clip[1]})
    save_head(tmp_path / "fc.pth", 48)
    with pytest.raises(RealBenchError, match=r"does not fit .* of its card") as caught:
        realbench.load_detector(
            card, weights={"weights": tmp_path / "fc.pth", "backbone": tmp_path / "fc.pth"}
        )
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="has weights and backbone, no 'head'"):
        realbench.load_detector(card, weights={"head": tmp_path / "fc.pth"})


def test_zero_shot_is_open_clips_classifier(clip: tuple[Any, Path], tmp_path: Path) -> None:
    model, path = clip
    folder = changed_card(tmp_path, "clip-zeroshot", ("ViT-L-14-quickgelu", ARCHITECTURE))
    detector = realbench.load_detector(folder, weights=path)
    prompts = detector.card.prompts
    assert prompts is not None
    assert len(prompts.real) == len(prompts.generated)  # so that open_clip can pair them
    classifier = open_clip.build_zero_shot_classifier(
        model,
        open_clip.get_tokenizer(ARCHITECTURE),
        ["real", "generated"],
        [lambda name, n=n: getattr(prompts, name)[n] for n in range(len(prompts.real))],
    )
    prepare = open_clip.image_transform(
        224, is_train=False, mean=MEAN, std=STD, resize_mode="shortest", interpolation="bicubic"
    )
    images = pictures(*SIZES[:-2])
    with torch.no_grad():
        x = torch.stack([prepare(Image.fromarray(image)) for image in images])
        scores = model.logit_scale.exp() * model.encode_image(x, normalize=True) @ classifier
        expected = scores.softmax(dim=1)[:, 0].numpy()
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(probability(logits(detector, images)), expected, atol=1e-4)


def test_prompts_decide_the_fingerprint(clip: tuple[Any, Path], tmp_path: Path) -> None:
    from realbench.detection.cards import read_card

    def fingerprint(*changes: tuple[str, str]) -> str:
        folder = changed_card(tmp_path, "clip-zeroshot", *changes)
        return read_card(folder).with_weights({"weights": clip[1]}).fingerprint

    assert fingerprint() != fingerprint(('"a photo."', '"a photo of a thing."'))


@pytest.mark.slow
def test_univfd_with_the_published_shapes(tmp_path: Path) -> None:
    """CLIP ViT-L/14 and a layer of 768 features, as published, with random weights."""
    torch.manual_seed(0)
    model = open_clip.create_model(
        "ViT-L-14-quickgelu", pretrained=None, load_weights=False, device="meta"
    ).visual.to_empty(device="cpu")
    for name, weight in model.named_parameters():
        weight.data.normal_(1.0 if "ln_" in name and "weight" in name else 0.0, 0.03)
        weight.data = weight.data.half().float()
    path = tmp_path / "open_clip_model.safetensors"
    save_file({f"visual.{k}": v.half() for k, v in model.state_dict().items()}, path)
    model.encode_image = model.forward
    head = save_head(tmp_path / "fc_weights.pth", 768)
    detector = realbench.load_detector(
        "univfd", weights={"weights": tmp_path / "fc_weights.pth", "backbone": path}
    )
    images = pictures((256, 300))
    expected = univfd_reference(model, head, images)
    np.testing.assert_allclose(probability(logits(detector, images)), expected, atol=1e-4)
