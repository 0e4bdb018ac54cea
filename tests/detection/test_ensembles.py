"""Named ensembles and calibrations of one's own: found, refused, and what they change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.special import expit

from realbench.bench.calibrate import doubt
from realbench.bench.fuse import fit_weights
from realbench.bench.labelled import Labelled, log_losses
from realbench.detection.calibration import SavedCalibration, fit_calibration
from realbench.detection.ensemble import combine, fused_terms
from realbench.detection.ensembles import (
    Ensemble,
    add_ensemble,
    choose_cards,
    list_ensembles,
    presets,
    read_ensembles,
)
from realbench.detection.registry import EMBEDDED_DETECTORS, find_card, list_detectors
from realbench.errors import UsageError
from realbench.scoring import Scorer
from realbench.stats import Interval
from tests.fakes import make_card


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REALBENCH_ENSEMBLES", raising=False)


def test_presets_name_detectors_that_exist_and_keep_rewards_apart() -> None:
    shipped = presets()
    assert tuple(shipped["default"].detectors) == EMBEDDED_DETECTORS
    assert shipped["realgen-reward"].detectors == ("forensic-chat", "omniaid-realgen")
    rewards = {*shipped["default"].detectors, *shipped["realgen-reward"].detectors}
    assert not rewards & set(shipped["held-out"].detectors)
    assert shipped["default"].weights == (0.88, 0.22)
    for name, ensemble in shipped.items():
        assert set(ensemble.detectors) <= set(list_detectors())
        levels = {card.level for card in choose_cards(ensemble.detectors)}
        assert levels == ({"feature"} if name == "published" else {"feature", "semantic"})


def test_a_preset_expands_and_levels_weigh_the_same() -> None:
    cards = choose_cards(["ensemble:realgen-reward", "trace-lite"])
    assert [card.name for card in cards] == ["forensic-chat", "omniaid-realgen", "trace-lite"]
    assert not fused_terms(cards)


def test_own_ensembles_come_from_the_working_directory_or_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ensembles.toml").write_text('[here]\ndetectors = ["npr"]\n')
    assert set(list_ensembles()) - set(presets()) == {"here"}
    other = tmp_path / "else.toml"
    other.write_text('[there]\ndetectors = ["npr"]\n')
    monkeypatch.setenv("REALBENCH_ENSEMBLES", str(other))
    assert set(list_ensembles()) - set(presets()) == {"there"}
    monkeypatch.setenv("REALBENCH_ENSEMBLES", str(tmp_path / "gone.toml"))
    with pytest.raises(UsageError, match=r"gone\.toml .*is missing"):
        list_ensembles()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[x]\ndetectors = []\n", r"\[x\] detectors"),
        ('[x]\ndetectors = ["npr"]\nweights = [-1]\n', "at least 0"),
        ('[x]\ndetectors = ["npr"]\nweights = [1, 2]\n', "2 weights for 1 detectors"),
        ('[x]\ndetectors = ["npr"]\nweights = [0]\n', "above 0"),
        ('[x]\ndetectors = ["npr"]\nbias = 1\n', "bias goes with weights"),
        ('[x]\ndetectors = ["npr"]\nweight = [1]\n', "weight: Extra"),
        ('[default]\ndetectors = ["npr"]\n', "preset's name"),
        ("x = 1\n", "must be a table"),
        ("[x\n", "is no TOML"),
    ],
)
def test_a_wrong_file_of_ensembles_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "ensembles.toml").write_text(text)
    with pytest.raises(UsageError, match=told):
        list_ensembles()


def test_unknown_ensembles_and_misplaced_ones_are_told() -> None:
    with pytest.raises(UsageError, match="did you mean held-out"):
        choose_cards(["ensemble:heldout"])
    with pytest.raises(UsageError, match="one detector is wanted here"):
        find_card("ensemble:default")


def test_a_fused_ensemble_scores_its_weighted_sum(tmp_path: Path) -> None:
    make_card(tmp_path / "cards", "one", level="semantic", seed=1)
    make_card(tmp_path / "cards", "two", level="feature", seed=2)
    members = ("./cards/one", "./cards/two")
    fused = Ensemble(detectors=members, weights=(0.25, 1.5), bias=-0.7, path=tmp_path / "x")
    add_ensemble(tmp_path / "ensembles.toml", "mine", fused)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (70, 80, 3), np.uint8) for _ in range(4)]
    scores = Scorer("ensemble:mine", device="cpu")(images)
    expected = expit(0.25 * scores.logits["one"] + 1.5 * scores.logits["two"] - 0.7)
    assert scores.realism == pytest.approx(expected, abs=1e-6)
    # Members are judged as by themselves: the cache holds one score for both.
    alone = find_card(tmp_path / "cards" / "one")
    assert choose_cards(["ensemble:mine"])[0].fingerprint == alone.fingerprint
    with pytest.raises(UsageError, match="give it alone"):
        choose_cards(["ensemble:mine", "trace-lite"])
    with pytest.raises(UsageError, match="has an ensemble 'mine' already"):
        add_ensemble(tmp_path / "ensembles.toml", "mine", fused)
    with pytest.raises(UsageError, match="preset's name"):
        add_ensemble(tmp_path / "ensembles.toml", "held-out", fused)
    add_ensemble(tmp_path / "ensembles.toml", "more", fused)
    assert set(read_ensembles(tmp_path / "ensembles.toml")) == {"mine", "more"}


def _logits(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three detectors: a good one, a weaker one with errors of its own, and one that misleads."""
    rng = np.random.default_rng(seed)
    real = np.arange(n) % 4 == 0
    side = np.where(real, 1.0, -1.0)
    good, weak, wrong = (side * a + rng.normal(0, 1.5, n) for a in (1.5, 0.6, -0.4))
    return np.stack([good, weak, wrong], axis=1), real


def test_fitted_weights_are_the_optimum_and_never_negative() -> None:
    table, real = _logits()
    weights, bias = fit_weights(table, real)
    # Normal classes of one variance: the optimal logit of each is 2 a / sigma² of its value.
    assert weights[:2] == pytest.approx([2 * 1.5 / 1.5**2, 2 * 0.6 / 1.5**2], rel=0.12)
    assert weights[2] == 0.0
    assert bias == pytest.approx(0, abs=0.15)  # even odds, though a quarter are photographs
    best = log_losses(table @ weights + bias, real).mean()
    for step in (0.05, -0.05):
        for n in range(2):
            moved = weights.copy()
            moved[n] += step
            assert log_losses(table @ moved + bias, real).mean() > best
    assert nnls(table, np.where(real, 1.0, -1.0))[0][2] == 0  # least squares leaves it out, too


def test_nothing_to_fuse_is_told() -> None:
    table, real = _logits()
    with pytest.raises(UsageError, match="nothing to fuse"):
        fit_weights(-table[:, :2], real)


def test_folds_hold_out_generators_and_prompts() -> None:
    real = np.array([True] * 20 + [False] * 40)
    generator = np.array([""] * 20 + ["a"] * 10 + ["b"] * 10 + ["c"] * 20)
    prompt = np.array([str(n % 10) for n in range(60)])
    labelled = Labelled({}, real, generator, prompt, [])
    folds = labelled.generator_folds()
    assert set(folds) == {0, 1, 2}
    for name in "abc":
        assert len(set(folds[generator == name])) == 1
    assert set(folds[real]) == {0, 1, 2}
    by_prompt = labelled.prompt_folds()
    for one in set(prompt):
        assert len(set(by_prompt[prompt == one])) == 1


def test_a_calibration_stands_for_its_detector_and_changes_the_fingerprint(tmp_path: Path) -> None:
    card = make_card(tmp_path / "cards", "one")
    saved = SavedCalibration(
        detector="../cards/one",
        temperature=2.0,
        bias=0.5,
        n_real=60,
        n_generated=60,
        fingerprint=find_card(card).uncalibrated,
    )
    saved.write(tmp_path / "calibrated")
    plain, mine = find_card(card), find_card(tmp_path / "calibrated")
    assert mine.name == "one"
    assert mine.calibration.temperature == 2.0
    assert mine.fingerprint != plain.fingerprint
    image = np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    before = Scorer([card], device="cpu")([image]).logits["one"]
    after = Scorer([tmp_path / "calibrated"], device="cpu")([image]).logits["one"]
    assert after == pytest.approx((before + 0.5) / 2)  # the card's own is temperature 1, bias 0
    assert mine.uncalibrated == plain.uncalibrated
    reduced = mine.changed(model=mine.model.model_copy(update={"precision": "bfloat16"}))
    assert reduced.fingerprint != mine.fingerprint  # and no refusal
    saved.model_copy(update={"fingerprint": "0" * 64}).write(tmp_path / "calibrated")
    other = find_card(tmp_path / "calibrated")
    for _ in range(2):  # it is not forgotten
        with pytest.raises(UsageError, match="of other weights"):
            _ = other.fingerprint
    assert other.to_calibrate().fingerprint
    (tmp_path / "calibrated" / "calibration.toml").write_text("temperature = 0\n")
    with pytest.raises(UsageError, match="is no calibration"):
        find_card(tmp_path / "calibrated")


def test_log_losses_are_those_at_even_odds() -> None:
    table, real = _logits()
    logits = table[:, 0]
    loss = np.logaddexp(0, np.where(real, -logits, logits))
    expected = (loss[real].mean() + loss[~real].mean()) / 2
    assert log_losses(logits, real).mean() == pytest.approx(expected)
    spec = fit_calibration(logits, real)
    fitted = (logits + spec.bias) / spec.temperature
    assert log_losses(fitted, real).mean() < log_losses(logits, real).mean() + 1e-6
    assert combine({"x": fitted}, {"x": "feature"})[:1] == pytest.approx(expit(fitted[:1]))


@pytest.mark.parametrize(
    ("estimate", "low", "prompts", "said"),
    [
        (0.9, 0.8, 30, None),
        (0.97, 0.2, 2, "2 prompts of a class are too few to tell"),
        (0.55, 0.45, 60, "does not tell these photographs"),
        (0.3, 0.1, 2, "does not tell these photographs"),
    ],
)
def test_calibration_tells_few_prompts_from_a_detector_that_cannot(
    estimate: float, low: float, prompts: int, said: str | None
) -> None:
    found = doubt("npr", Interval(estimate, low, 1.0, 100, prompts))
    assert found is said is None or said in str(found)
