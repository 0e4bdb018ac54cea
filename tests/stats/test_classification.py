"""Measures of detection against scikit-learn's and this package's own unweighted ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from realbench import stats
from realbench.stats.classification import (
    MEASURES,
    best_threshold,
    detection_measures,
    error_correlation,
)

# Few distinct values, so that ties are the rule.
SCORES = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=30)


@settings(max_examples=40)
@given(SCORES, SCORES)
def test_estimates_are_those_of_independent_implementations(
    real: list[float], generated: list[float]
) -> None:
    found = {k: v.estimate for k, v in detection_measures(real, generated, resamples=2).items()}
    assert list(found) == list(MEASURES)
    fake = np.array([0] * len(real) + [1] * len(generated))
    p = np.array(real + generated)
    even = np.where(fake, 1 / len(generated), 1 / len(real))
    assert found["auc"] == stats.auc(real, generated)
    assert found["average_precision"] == pytest.approx(
        average_precision_score(fake, -p, sample_weight=even)
    )
    assert found["accuracy"] == pytest.approx(balanced_accuracy_score(fake, p <= 0.5))
    cuts = [-1.0, *p]
    best = max(balanced_accuracy_score(fake, p <= cut) for cut in cuts)
    assert found["best_accuracy"] == pytest.approx(best)
    at = best_threshold(real, generated)
    assert balanced_accuracy_score(fake, (p <= at) & (at > 0)) == pytest.approx(best)
    assert found["tpr_at_5_fpr"] == pytest.approx(stats.tpr_at_fpr(real, generated, 0.05))
    assert found["tpr_at_1_fpr"] == pytest.approx(stats.tpr_at_fpr(real, generated, 0.01))
    # The same image many times over makes classes of one size, where the plain error is ours.
    repeated = np.concatenate([np.repeat(real, len(generated)), np.repeat(generated, len(real))])
    truth = np.repeat([1, 0], len(real) * len(generated))
    assert found["calibration_error"] == pytest.approx(
        stats.expected_calibration_error(repeated, truth)
    )


def test_intervals_contain_the_estimate_and_shrink_with_more_images() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (30, 480):
        real, generated = rng.beta(4, 2, n), rng.beta(2, 4, n)
        found = detection_measures(real, generated, resamples=300)
        for one in found.values():
            assert 0 <= one.low <= one.estimate <= one.high <= 1
        widths.append({name: one.high - one.low for name, one in found.items()})
    assert all(widths[1][name] < 0.6 * widths[0][name] for name in MEASURES)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    many = detection_measures(rng.beta(4, 2, 200_000), rng.beta(2, 4, 200_000), resamples=2)
    hits = dict.fromkeys(("auc", "average_precision", "accuracy"), 0)
    runs = 120
    for _ in range(runs):
        found = detection_measures(rng.beta(4, 2, 60), rng.beta(2, 4, 60), resamples=200)
        for name in hits:
            hits[name] += found[name].low <= many[name].estimate <= found[name].high
    for name, count in hits.items():
        assert 0.88 <= count / runs <= 1.0, name


def test_images_of_one_prompt_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    prompts = rng.normal(0, 1, 20)
    ids = np.repeat(np.arange(20), 10)
    real = 1 / (1 + np.exp(-(1 + prompts[ids] + rng.normal(0, 0.1, 200))))
    generated = rng.uniform(0, 1, 200)
    alone = detection_measures(real, generated, resamples=300)["accuracy"]
    clustered = detection_measures(real, generated, ids, 100 + ids, resamples=300)["accuracy"]
    assert clustered.n_groups == 20
    assert clustered.high - clustered.low > 1.3 * (alone.high - alone.low)


def test_separated_classes_and_missing_ones_have_honest_intervals() -> None:
    found = detection_measures([0.9] * 5, [0.1] * 5)
    assert found["accuracy"].estimate == found["best_accuracy"].estimate == 1
    assert found["tpr_at_5_fpr"].low < 0.9
    assert all(math.isnan(v.estimate) for v in detection_measures([], [0.2]).values())
    assert math.isnan(detection_measures([0.9], [0.2])["accuracy"].low)
    assert math.isnan(best_threshold([], [0.1]))


def test_at_one_percent_a_hundred_photographs_allow_one_false_alarm() -> None:
    generated = np.linspace(0.0, 0.5, 11)
    for n, found_share in ((99, 0.0), (100, 1.0), (199, 1.0)):
        real = np.full(n, 0.9)
        real[0] = 0.0  # one photograph looks most generated of all
        found = detection_measures(real, generated, resamples=50)["tpr_at_1_fpr"]
        assert found.estimate == found_share, n
        assert found.n == 11
        assert found.low <= found_share <= found.high


def test_error_correlation() -> None:
    rng = np.random.default_rng(3)
    truth = np.repeat([True, False], 100)
    error = rng.uniform(0, 0.6, 200)
    a = np.where(truth, 1 - error, error)
    assert error_correlation(a, a, truth).estimate == pytest.approx(1)
    other = rng.permutation(error)
    b = np.where(truth, 1 - other, other)
    found = error_correlation(a, b, truth, resamples=300)
    assert found.estimate == pytest.approx(np.corrcoef(error, other)[0, 1])
    assert found.low < 0 < found.high
    assert math.isnan(error_correlation(np.where(truth, 1.0, 0.0), a, truth).estimate)
    assert math.isnan(error_correlation([0.1], [0.2], [True]).estimate)
