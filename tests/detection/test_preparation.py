"""What detectors of one backbone share, and the precision of their networks."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import realbench
from realbench.detection.detector import prepare_for
from realbench.detection.families import published, views
from realbench.detection.registry import find_card
from realbench.errors import RealBenchWarning
from realbench.scoring import Scorer, score
from tests.detection.families.published_cards import pictures
from tests.fakes import FakeDetector, make_card

CARD = """name = "{name}"
level = "feature"
family = "timm-classifier"
description = "Tiny"
licence = "Apache-2.0"

[input]
size = 64
fit = "{fit}"
resize = "bicubic"

[model]
architecture = "test_vit"

[model.options]
img_size = 64

[weights]
source = "file"
file = "w.safetensors"
"""


def make(folder: Path, name: str, fit: str, seed: int) -> Path:
    place = folder / name
    place.mkdir()
    torch.manual_seed(seed)
    network = timm.create_model("test_vit", num_classes=1, img_size=64)
    torch.nn.init.normal_(network.head.weight, std=3.0)
    save_file(network.state_dict(), place / "w.safetensors")
    (place / "card.toml").write_text(CARD.format(name=name, fit=fit))
    return place


@pytest.fixture
def cards(tmp_path: Path) -> list[Path]:
    fits = {"one": "short-side", "two": "short-side", "other": "squash"}
    return [make(tmp_path, name, fit, seed) for seed, (name, fit) in enumerate(fits.items())]


def test_one_view_serves_detectors_that_see_the_same(
    cards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    real = published.view

    def counted(image: np.ndarray, spec: published.InputSpec) -> np.ndarray:
        seen.append(spec.fit)
        return real(image, spec)

    monkeypatch.setattr(published, "view", counted)
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))
    images = pictures((90, 120), (70, 65))
    together = Scorer(cards, device="cpu")(images)
    assert sorted(map(str, seen)) == ["short-side", "short-side", "squash", "squash"]  # threads
    for card in cards:
        alone = Scorer([card], device="cpu")(images)
        np.testing.assert_array_equal(alone.logits[card.name], together.logits[card.name])
    folder = tmp_path / "images"
    folder.mkdir()
    for n, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{n}.png")
    seen.clear()
    table = score(folder, detectors=cards, device="cpu").table
    assert sorted(map(str, seen)) == ["short-side", "short-side", "squash", "squash"]
    np.testing.assert_allclose(table["two"], together.detectors["two"], atol=1e-5)


def test_what_has_no_name_is_not_shared() -> None:
    detectors = {name: FakeDetector(name) for name in "abc"}
    detectors["b"].preparation = detectors["c"].preparation = "mean"  # type: ignore[attr-defined]
    image = np.full((5, 5, 3), 9, np.uint8)
    prepared = prepare_for(detectors, ["a", "b", "c"], image)
    assert prepared["b"] is prepared["c"]
    assert prepared["a"] is not prepared["b"]
    assert [detectors[name].prepared for name in "abc"] == [1, 1, 0]


@pytest.mark.parametrize("native", [False, True])
def test_who_asks_for_bfloat16_where_it_is_imitated_is_told_so(
    cards: list[Path], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_cpu_has_bfloat16", lambda: native)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        realbench.load_detector(find_card(cards[0]))
        assert not caught  # in float32 there is nothing to say
        realbench.load_detector(find_card(cards[0]).with_precision("bfloat16"))
    told = [str(one.message) for one in caught if one.category is RealBenchWarning]
    assert len(told) == (0 if native else 1)
    assert all("imitates bfloat16" in one and "leave --precision out" in one for one in told)


def test_bfloat16_is_another_fingerprint_and_nearly_the_same_score(
    cards: list[Path], tmp_path: Path
) -> None:
    card = find_card(cards[0])
    reduced = card.with_precision("bfloat16")
    assert reduced.fingerprint != card.fingerprint
    assert card.with_precision("float32").fingerprint == card.fingerprint
    own = find_card(make_card(tmp_path, "embedded"))
    assert own.with_precision("bfloat16").fingerprint == own.fingerprint
    images = pictures((90, 120), (70, 65), (64, 64))
    exact = Scorer(cards[:1], device="cpu")(images).logits["one"]
    quick = Scorer(cards[:1], device="cpu", precision="bfloat16")(images).logits["one"]
    assert np.abs(exact - quick).max() > 0  # it is another computation
    assert np.abs(exact - quick).max() < 0.05 * np.abs(exact).max() + 0.05
    again = realbench.load_detector(reduced)
    batch = torch.stack([again.prepare(image) for image in images])
    np.testing.assert_allclose(again.logits(batch).numpy(), quick, atol=0.05)
