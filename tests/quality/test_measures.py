"""Measures of quality against the libraries' own implementations, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms
from torchvision.transforms import functional as vision

import realbench
from realbench.content import content_path
from realbench.detection.cards import read_card
from realbench.errors import RealBenchError, UsageError
from realbench.quality.cards import MeasureCard, find_measure, find_measures, list_measures
from realbench.quality.measure import load_measure
from tests.detection.families.published_cards import pictures
from tests.quality.tiny_clip import ARCHITECTURE, make_clip, register, save_transformers_clip

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PROMPTS = ["a red fox in snow", "a cup of coffee on a wooden table", "a red fox in snow", "x"]
IMAGES = pictures((300, 420), (250, 224), (100, 500), (33, 20))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("clip")
    register(folder)
    model = make_clip()
    path = folder / "open_clip_model.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return model, path


def tiny(folder: Path, name: str, *changes: tuple[str, str]) -> MeasureCard:
    """Return the project's card ``name`` for the tiny architecture."""
    text = (content_path("quality") / name / "measure.toml").read_text()
    for old, new in [("ViT-L-14-quickgelu", ARCHITECTURE), ("ViT-H-14", ARCHITECTURE), *changes]:
        text = text.replace(old, new)
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "measure.toml").write_text(text)
    return find_measure(place)


def scores(card: MeasureCard, weights: dict[str, Path]) -> np.ndarray:
    measure = load_measure(card.with_weights(weights))
    return measure.scores(torch.stack([measure.prepare(one) for one in IMAGES]), PROMPTS)


def cosines(model: Any, pixels: torch.Tensor, tokenizer: Any) -> np.ndarray:
    with torch.no_grad():
        pictures = model.encode_image(pixels, normalize=True)
        texts = model.encode_text(tokenizer(PROMPTS), normalize=True)
    return (pictures @ texts.T).diagonal().numpy()


def clip_pixels() -> torch.Tensor:
    prepare = open_clip.image_transform(
        224, is_train=False, mean=MEAN, std=STD, resize_mode="shortest", interpolation="bicubic"
    )
    return torch.stack([prepare(Image.fromarray(one)) for one in IMAGES])


def test_clip_score_is_open_clips_cosine(clip: tuple[Any, Path], tmp_path: Path) -> None:
    model, path = clip
    expected = 100 * cosines(model, clip_pixels(), open_clip.get_tokenizer(ARCHITECTURE))
    assert expected.min() < 0 < expected.max()  # so that the floor is seen
    found = scores(tiny(tmp_path, "clip-score"), {"weights": path})
    np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-4)


def test_hpsv2_is_the_cosine_of_the_whole_picture_on_black(
    clip: tuple[Any, Path], tmp_path: Path
) -> None:
    model, _ = clip
    torch.save({"state_dict": model.state_dict()}, tmp_path / "HPS.pt")

    def prepare(image: np.ndarray) -> torch.Tensor:
        """As the authors' transform: floats, the long side scaled, zeros around, normalised."""
        pixels = transforms.ToTensor()(Image.fromarray(image))
        scale = 224 / max(pixels.shape[1:])
        rows, columns = (round(side * scale) for side in pixels.shape[1:])
        pixels = vision.resize(pixels, [rows, columns], transforms.InterpolationMode.BICUBIC)
        down, right = 224 - rows, 224 - columns
        pixels = vision.pad(pixels, [right // 2, down // 2, right - right // 2, down - down // 2])
        return vision.normalize(pixels, MEAN, STD)

    pixels = torch.stack([prepare(one) for one in IMAGES])
    expected = 100 * cosines(model, pixels, open_clip.get_tokenizer(ARCHITECTURE))
    found = scores(tiny(tmp_path, "hpsv2"), {"weights": tmp_path / "HPS.pt"})
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_long_clip_joins_its_two_tables_of_positions(
    clip: tuple[Any, Path], tmp_path: Path
) -> None:
    model = make_clip(force_context_length=248)
    state = dict(model.state_dict())
    whole = state["positional_embedding"]
    noise = torch.randn_like(whole)
    state["positional_embedding"] = torch.cat([whole[:20], noise[20:]])
    state["positional_embedding_res"] = torch.cat([noise[:20], whole[20:]])
    torch.save(state, tmp_path / "longclip-L.pt")
    card = tiny(tmp_path, "long-clip").with_weights({"weights": tmp_path / "longclip-L.pt"})
    measure = load_measure(card)
    long = "a fox " * 80
    assert not measure.cuts(long)
    assert measure.cuts(long * 3)
    tokenizer = open_clip.get_tokenizer(ARCHITECTURE, context_length=248)
    pixels = clip_pixels()[:1]
    with torch.no_grad():
        texts = model.encode_text(tokenizer([long]), normalize=True)
        expected = 100 * (model.encode_image(pixels, normalize=True) * texts).sum().item()
    found = measure.scores(measure.prepare(IMAGES[0])[None], [long])
    np.testing.assert_allclose(found, [max(expected, 0)], atol=1e-4)
    assert load_measure(tiny(tmp_path, "clip-score").with_weights({"weights": clip[1]})).cuts(long)


def test_pickscore_is_the_logit_of_transformers(tmp_path: Path) -> None:
    from transformers import CLIPProcessor

    model = save_transformers_clip(tmp_path / "model")
    processor = CLIPProcessor.from_pretrained(tmp_path / "model")
    inputs = processor(
        text=PROMPTS,
        images=[Image.fromarray(one) for one in IMAGES],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        expected = model(**inputs).logits_per_image.diagonal().numpy()
    found = scores(tiny(tmp_path, "pickscore"), {"weights": tmp_path / "model"})
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)
    measure = load_measure(
        tiny(tmp_path, "pickscore").with_weights({"weights": tmp_path / "model"})
    )
    assert not measure.cuts("a fox")
    assert measure.cuts("a fox " * 40)
    cut = measure.scores(measure.prepare(IMAGES[0])[None], ["a fox " * 40])
    assert np.isfinite(cut).all()


def test_aesthetic_is_its_published_layers_on_features_of_length_one(
    clip: tuple[Any, Path], tmp_path: Path
) -> None:
    model, path = clip
    torch.manual_seed(3)
    sizes, drops = [48, 1024, 128, 64, 16, 1], [0.2, 0.2, 0.1, None, None]
    modules: list[torch.nn.Module] = []
    for inputs, outputs, drop in zip(sizes, sizes[1:], drops, strict=False):
        modules += [torch.nn.Linear(inputs, outputs)]
        modules += [torch.nn.Dropout(drop)] if drop else []
    layers = torch.nn.Sequential(*modules).eval()
    state = {f"layers.{name}": value for name, value in layers.state_dict().items()}
    published = [f"layers.{n}.{part}" for n in (0, 2, 4, 6, 7) for part in ("weight", "bias")]
    assert sorted(state) == sorted(published)
    torch.save(state, tmp_path / "head.pth")
    with torch.no_grad():
        features = model.encode_image(clip_pixels(), normalize=True)
        expected = layers(features).squeeze(1).numpy()
    card = tiny(tmp_path, "aesthetic", ("sha256 = ", "#"))
    found = scores(card, {"weights": tmp_path / "head.pth", "backbone": path})
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_wrong_weights_are_refused(clip: tuple[Any, Path], tmp_path: Path) -> None:
    head = tmp_path / "head.pth"
    torch.save({"layers.0.weight": torch.zeros(1, 99), "layers.0.bias": torch.zeros(1)}, head)
    with pytest.raises(RealBenchError, match=r"head\.pth has sha256 .*its card says 21dd590f"):
        scores(tiny(tmp_path, "aesthetic"), {"weights": head, "backbone": clip[1]})
    unhashed = tiny(tmp_path, "aesthetic", ("sha256 = ", "#"))
    with pytest.raises(RealBenchError, match=r"takes 99 features, but .* gives 48"):
        scores(unhashed, {"weights": head, "backbone": clip[1]})
    with pytest.raises(RealBenchError, match="does not fit"):
        scores(tiny(tmp_path, "clip-score"), {"weights": head})
    with pytest.raises(UsageError, match="is no model folder"):
        scores(tiny(tmp_path, "pickscore"), {"weights": head})


def test_missing_weights_name_file_hash_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, parts in {
        "aesthetic": ("sac+logos+ava1-l14-linearMSE.pth", "sha256 21dd590f3ccd", "curl -LO"),
        "hpsv2": ("HPS_v2.1_compressed.pt", "hf download xswu/HPSv2 HPS_v2.1_compressed.pt"),
        "pickscore": ("hf download yuvalkirstain/PickScore_v1",),
        "long-clip": ("hf download BeichenZhang/LongCLIP-L longclip-L.pt",),
        "clip-score": ("hf download timm/vit_large_patch14_clip_224.openai",),
    }.items():
        with pytest.raises(RealBenchError) as caught:
            _ = find_measure(name).fingerprint
        assert all(part in str(caught.value) for part in parts), caught.value
        assert "\n" not in str(caught.value)


def test_a_measure_cannot_be_used_as_a_detector(tmp_path: Path) -> None:
    for name in list_measures():
        with pytest.raises(UsageError, match=f"gives no P.real.*--quality {name}"):
            realbench.load_detector(name)
        with pytest.raises(UsageError, match=r"has no card\.toml"):
            realbench.load_detector(content_path("quality") / name)
        text = (content_path("quality") / name / "measure.toml").read_text()
        (tmp_path / "card.toml").write_text(text)  # nor by another file name
        with pytest.raises(UsageError, match="is not a valid detector card"):
            read_card(tmp_path)
    detector = content_path("detectors") / "univfd"
    with pytest.raises(UsageError, match=r"has no measure\.toml"):
        find_measure(detector)
    with pytest.raises(UsageError, match="did you mean pickscore"):
        find_measure("pick-score")
    with pytest.raises(UsageError, match="given twice"):
        find_measures(["hpsv2", "hpsv2"], {})


def test_the_cache_key_follows_prompt_and_weights(clip: tuple[Any, Path], tmp_path: Path) -> None:
    card = tiny(tmp_path, "clip-score").with_weights({"weights": clip[1]})
    other = tiny(tmp_path / "other", "clip-score", ("scale = 100.0", "scale = 1.0"))
    keys = [card.key("a"), card.key("b"), other.with_weights({"weights": clip[1]}).key("a")]
    assert len(set(keys)) == 3
    blind = tiny(tmp_path, "aesthetic", ("sha256 = ", "#")).with_weights(
        {"weights": clip[1], "backbone": clip[1]}
    )
    assert blind.key("a") == blind.key(None)


@pytest.mark.slow
def test_published_names_and_shapes_fit_the_cards() -> None:
    """The real architectures, without memory: what the checkpoints hold is what they take."""
    for name, width, context in (
        ("hpsv2", 1024, 77),
        ("clip-score", 768, 77),
        ("long-clip", 768, 248),
    ):
        card = find_measure(name)
        model = open_clip.create_model(
            card.model.architecture, load_weights=False, device="meta", **card.model.options
        )
        state = model.state_dict()
        assert state["text_projection"].shape[1] == width
        assert state["positional_embedding"].shape[0] == context
        assert "visual.transformer.resblocks.23.attn.in_proj_weight" in state
