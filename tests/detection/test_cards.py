"""Cards, fingerprints and weights: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import realbench
from realbench.detection.calibration import calibrated, fit_calibration
from realbench.detection.cards import read_card
from realbench.detection.families.embedded import crop_offsets, native_crops, whole_image
from realbench.errors import RealBenchError, UsageError
from tests.fakes import make_card


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return make_card(tmp_path, "mine", level="feature")


def edit(card: Path, old: str, new: str) -> None:
    path = card / "card.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_folder_of_ones_own_loads_and_scores_any_size(card: Path) -> None:
    detector = realbench.load_detector(card)
    assert (detector.name, detector.level) == ("mine", "feature")
    for shape in ((1, 1), (8, 8), (63, 200), (300, 301)):
        prepared = detector.prepare(np.full((*shape, 3), 200, np.uint8))
        assert prepared.shape == (4, 3, 64, 64)
        assert prepared.dtype == torch.uint8
        assert torch.isfinite(detector.logits(prepared[None])).all()


def test_the_fingerprint_follows_what_decides_scores_and_nothing_else(card: Path) -> None:
    first = read_card(card).fingerprint
    edit(card, "A tiny detector", "Another description of a tiny detector")
    assert read_card(card).fingerprint == first
    with (card / "card.toml").open("a") as file:
        file.write("\n[calibration]\ntemperature = 2.0\n")
    assert read_card(card).fingerprint != first


def test_another_entry_of_one_file_is_another_fingerprint(card: Path) -> None:
    found = {read_card(card).fingerprint}
    for old, new in (
        ("[weights]", '[weights]\nkey = "state_dict"'),
        ('"state_dict"', '"ema"'),
        ('key = "ema"', 'strip_prefix = "ema"'),
        ('strip_prefix = "ema"', 'strip_prefix = "ema."'),
    ):
        edit(card, old, new)
        found.add(read_card(card).fingerprint)
    assert len(found) == 5


def test_calibration_and_orientation_change_the_logit_as_the_card_says(card: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)

    def logit() -> float:
        detector = realbench.load_detector(card)
        return detector.logits(detector.prepare(picture)[None]).item()

    raw = logit()
    with (card / "card.toml").open("a") as file:
        file.write("\n[calibration]\ntemperature = 2.0\nbias = 1.0\n")
    assert logit() == pytest.approx((raw + 1) / 2, rel=1e-5)
    with (card / "card.toml").open("a") as file:
        file.write('\n[output]\nkind = "logit-fake"\n')
    assert logit() == pytest.approx((-raw + 1) / 2, rel=1e-5)


def test_other_weights_than_the_cards_are_refused(card: Path) -> None:
    weights = card / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RealBenchError, match=r"weights\.safetensors has sha256"):
        realbench.load_detector(card)
    with pytest.raises(RealBenchError, match=r"weights\.safetensors has sha256"):
        _ = read_card(card).fingerprint  # cached scores are not found by a wrong hash
    weights.unlink()
    with pytest.raises(RealBenchError, match="cannot be read"):
        realbench.load_detector(card)


def test_a_pickle_is_not_opened(card: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "owned",)  # type: ignore[return-value]

    weights = card / "weights.safetensors"
    old = read_card(card).weights.sha256
    weights.write_bytes(pickle.dumps(Evil()))
    import hashlib

    edit(card, old, hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.raises(RealBenchError, match="not a safetensors file"):
        realbench.load_detector(card)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('level = "feature"', 'level = "smell"', "level"),
        ('family = "native-crops"', 'family = "magic"', "unknown family 'magic'"),
        ("views = 4", "views = 3", "square number"),
        ('name = "mine"', 'name = "realism"', "column"),
        ("size = 64", "size = 64\nsizes = 1", "sizes"),
        ('architecture = "test_efficientnet"', 'architecture = "test_resnet"', "does not fit"),
        ('architecture = "test_efficientnet"', 'architecture = "nonsense"', "'nonsense' .* built"),
        ("[weights]", "[model.options]\nnonsense = 1\n\n[weights]", "'nonsense'.* correct"),
        ("[weights]", "[model.options]\nnum_classes = 3\n\n[weights]", "num_classes.* correct"),
        ("[input]\n", "[input]\nmean = [0.5, 0.5]\n", "mean"),
        ('name = "mine"', "name = 3", "name"),
        ('name = "mine"', "name = ", "TOML"),
    ],
)
def test_a_wrong_card_names_what_is_wrong(card: Path, old: str, new: str, message: str) -> None:
    edit(card, old, new)
    with pytest.raises(RealBenchError, match=message) as caught:
        realbench.load_detector(card)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_suggests_a_close_one() -> None:
    with pytest.raises(UsageError, match="did you mean semantic-lite"):
        realbench.load_detector("semantic-light")


@given(st.integers(1, 4000), st.integers(1, 300), st.integers(1, 5))
def test_crops_lie_inside_and_spread(length: int, size: int, count: int) -> None:
    offsets = crop_offsets(length, size, count)
    assert len(offsets) == count
    assert offsets == sorted(offsets)
    assert all(0 <= start <= max(0, length - size) for start in offsets)
    if length >= (count + 1) * size:  # room for all: they do not overlap
        assert all(b - a >= size - 1 for a, b in itertools.pairwise(offsets))


@given(st.integers(1, 90), st.integers(1, 90))
def test_views_have_one_shape_and_native_pixels(height: int, width: int) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    crops = native_crops(image, 32, 2)
    assert crops.shape == (4, 32, 32, 3)
    assert set(np.unique(crops)) <= set(np.unique(image))
    from PIL import Image

    assert whole_image(image, 24, Image.Resampling.BICUBIC).shape == (1, 24, 24, 3)


def test_calibration_recovers_the_distortion_of_known_probabilities() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, 20_000)
    real = rng.random(20_000) < 1 / (1 + np.exp(-truth))
    spec = fit_calibration(truth * 3 + 1.5, real)
    np.testing.assert_allclose(calibrated(truth * 3 + 1.5, spec), truth, atol=0.25)
