"""Held-out logits in verdict.json: of which networks they are, and what they become."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from realbench.detection.calibration import SavedCalibration
from realbench.detection.cards import Card
from realbench.detection.ensemble import combine
from realbench.detection.registry import find_card
from realbench.detection.specs import Term
from realbench.detection.verdict import ConformalSample, doubts, find_sample, read_sample
from realbench.errors import UsageError
from realbench.stats import fit_verdicts
from tests.fakes import make_card

RNG = np.random.default_rng(0)
REAL = np.repeat([True, False], 40)
SOURCE = np.array([*["street"] * 25, *["home"] * 15, *["flux"] * 30, *["sdxl"] * 10])
LOGITS = {
    "one": np.where(REAL, 2.0, -2.0) + RNG.normal(size=80),
    "two": np.where(REAL, 1.0, -1.0) + RNG.normal(size=80),
}


@pytest.fixture
def cards(tmp_path: Path) -> list[Card]:
    folders = [make_card(tmp_path, "one"), make_card(tmp_path, "two", level="feature", seed=1)]
    return [find_card(folder) for folder in folders]


def sample_of(cards: list[Card]) -> ConformalSample:
    return ConformalSample.of(cards, LOGITS, REAL, SOURCE, "as they are")


def test_a_sample_gives_back_the_realism_of_any_ensemble_of_its_detectors(
    cards: list[Card], tmp_path: Path
) -> None:
    sample = read_sample(sample_of(cards).write(tmp_path))
    assert sample == sample_of(cards)
    levels = {"one": "semantic", "two": "feature"}
    fused = {"one": Term(0.9, 0.1), "two": Term(0.2, 0.1)}
    both = combine(LOGITS, levels)
    alone = combine({"one": LOGITS["one"]}, levels)
    weighted = combine(LOGITS, levels, fused)
    for chosen, wanted in (
        (cards, both),
        (cards[:1], alone),
        ([card.fused_with(fused[card.name]) for card in cards], weighted),
    ):
        photographs, generated = sample.realism(chosen)
        assert list(photographs) == ["home", "street"]
        np.testing.assert_allclose(photographs["home"], wanted[SOURCE == "home"], atol=1e-4)
        np.testing.assert_allclose(generated["flux"], wanted[SOURCE == "flux"], atol=1e-4)


def test_a_sample_serves_every_calibration_of_the_same_network(
    cards: list[Card], tmp_path: Path
) -> None:
    """It holds raw logits, so that a calibration moves thresholds and changes no verdict."""
    sample_of(cards).write(tmp_path)
    folder = tmp_path / "calibrated" / "one"
    SavedCalibration(
        detector="../../one",
        temperature=2.0,
        bias=0.5,
        n_real=50,
        n_generated=50,
        fingerprint=cards[0].uncalibrated,
    ).write(folder)
    calibrated = find_card(folder)
    sample = find_sample([calibrated])
    assert sample is not None
    before, after = sample.rule(cards[:1]), sample.rule([calibrated])
    wanted = 1 / (1 + np.exp(-(np.log(before.low / (1 - before.low)) + 0.5) / 2))
    assert after.low == pytest.approx(wanted, abs=1e-5)


def test_the_sample_beside_a_calibration_goes_before_that_of_the_card(
    cards: list[Card], tmp_path: Path
) -> None:
    assert find_sample(cards) is None
    general = sample_of(cards)
    general.write(tmp_path)
    assert find_sample(cards) == general
    own = general.model_copy(update={"pictures": "the user's"})
    own.write(tmp_path / "two")
    assert find_sample(cards) == own


def test_a_sample_of_other_weights_is_not_used(cards: list[Card], tmp_path: Path) -> None:
    sample_of(cards).write(tmp_path)
    other = find_card(make_card(tmp_path / "elsewhere", "one", seed=7))
    other.path.joinpath("verdict.json").write_bytes(tmp_path.joinpath("verdict.json").read_bytes())
    assert find_sample([other]) is None
    assert find_sample([cards[0], other]) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"photographs": {"home": {"one": [1.0]}}}, "not the logits of just the detectors"),
        ({"photographs": {"home": {"one": [1.0], "two": [1.0, 2.0]}}}, "one logit for each image"),
        ({"photographs": {"home": {"one": [], "two": []}}}, "one logit for each image"),
        ({"generated": {}}, "generated: "),
        ({"format": 2}, "format: "),
    ],
)
def test_a_file_that_is_no_sample_is_named(
    cards: list[Card], tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps(sample_of(cards).model_dump(mode="json") | change))
    with pytest.raises(UsageError, match=reason) as caught:
        find_sample(cards)
    assert str(path) in str(caught.value)


def test_doubts_say_what_cannot_be_called(cards: list[Card]) -> None:
    (line,) = doubts(cards, None)
    assert "no verdicts" in line
    assert "realbench detectors calibrate one two --reference PHOTOS" in line
    rule = sample_of(cards).rule(cards)
    assert doubts(cards, rule) == []
    few = fit_verdicts({"a": np.linspace(0.5, 1, 18)}, {"x": np.linspace(0, 0.5, 19)})
    (line,) = doubts(cards, few)
    assert "no image can be called generated: at 0.05 that takes 19 held-out photographs" in line
    assert "there are 18" in line
