"""Calibration figures against hand-counted cases and their bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import brier_score_loss

from realbench.stats import brier, expected_calibration_error, reliability_curve


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    p = draw(arrays.arrays(np.float64, st.integers(1, 50), elements=st.floats(0, 1)))
    return p, draw(arrays.arrays(np.bool_, len(p)))


def test_curve_and_error_by_hand() -> None:
    p = [0.05, 0.07, 0.5, 0.95, 1.0]
    y = [0, 1, 1, 1, 1]
    curve = reliability_curve(p, y)
    np.testing.assert_allclose(curve.confidence, [0.06, 0.5, 0.975])
    np.testing.assert_allclose(curve.frequency, [0.5, 1.0, 1.0])
    np.testing.assert_array_equal(curve.counts, [2, 1, 2])
    expected = (2 * 0.44 + 1 * 0.5 + 2 * 0.025) / 5
    assert expected_calibration_error(p, y) == pytest.approx(expected)


@given(sample=predictions(), bins=st.integers(1, 20))
def test_curve_accounts_for_every_prediction(
    sample: tuple[np.ndarray, np.ndarray], bins: int
) -> None:
    p, y = sample
    curve = reliability_curve(p, y, bins)
    assert curve.counts.sum() == len(p)
    assert (curve.counts > 0).all()
    assert (np.diff(curve.confidence) > 0).all()
    assert (curve.confidence * curve.counts).sum() == pytest.approx(p.sum())
    assert (curve.frequency * curve.counts).sum() == pytest.approx(y.sum())


@given(sample=predictions())
def test_error_is_at_least_that_of_the_mean_and_symmetric(
    sample: tuple[np.ndarray, np.ndarray],
) -> None:
    p, y = sample
    one_bin = expected_calibration_error(p, y, bins=1)
    assert one_bin == pytest.approx(abs(p.mean() - y.mean()))
    assert one_bin - 1e-12 <= expected_calibration_error(p, y) <= 1
    # Asking for P(generated) instead asks the same question.
    assert expected_calibration_error(1 - p, ~y, bins=1) == pytest.approx(one_bin)


@given(sample=predictions())
def test_brier_agrees_with_scikit_learn(sample: tuple[np.ndarray, np.ndarray]) -> None:
    p, y = sample
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p, pos_label=True))


def test_calibrated_probabilities_have_a_small_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = rng.random(20_000) < p
    assert expected_calibration_error(p, y) < 0.015
    assert expected_calibration_error(p**2, y) > 0.1


def test_no_predictions_have_no_error() -> None:
    assert np.isnan(expected_calibration_error([], []))
    assert np.isnan(brier([], []))
    assert len(reliability_curve([], []).counts) == 0


@pytest.mark.parametrize(
    ("p", "y", "bins", "message"),
    [
        ([1.2], [1], 10, r"in \[0, 1\]"),
        ([-0.1], [1], 10, r"in \[0, 1\]"),
        ([0.5], [2], 10, "0 or 1"),
        ([0.5, 0.5], [1], 10, "same length"),
        ([np.nan], [1], 10, "finite"),
        ([0.5], [1], 0, "bins"),
    ],
)
def test_unusable_arguments_are_named(p: list, y: list, bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reliability_curve(p, y, bins)
