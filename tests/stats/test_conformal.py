"""Verdicts: the definition's values, the bound over many splits, and where it does not reach."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import special as scipy_special
from scipy import stats as scipy_stats

from realbench.stats import VerdictRule, errors_by_source, verdict_stability
from realbench.stats import fit_verdicts as fit_by_source


def fit_verdicts(photographs: Any, generated: Any, most: float = 0.05) -> VerdictRule:
    """Fit on one source of each class."""
    return fit_by_source({"": photographs}, {"": generated}, most)


def by_definition(
    realism: float, photographs: np.ndarray, generated: np.ndarray, most: float
) -> str:
    """The verdict from the two p-values, counted."""
    p_photograph = (1 + np.sum(photographs <= realism)) / (len(photographs) + 1)
    p_generated = (1 + np.sum(generated >= realism)) / (len(generated) + 1)
    if p_photograph <= most < p_generated:
        return "generated"
    return "photograph" if p_generated <= most < p_photograph else "unsure"


@pytest.mark.parametrize("most", [0.05, 0.1, 0.29])
def test_the_rule_is_the_definition_with_ties_and_overlap_and_gaps(most: float) -> None:
    rng = np.random.default_rng(0)
    realism = np.linspace(0, 1, 101)
    for shift in (-0.6, 0.0, 0.1, 0.6):  # the classes turned round, alike, overlapping and apart
        photographs = np.clip(rng.normal(0.5 + shift / 2, 0.1, 99), 0, 1).round(2)
        generated = np.clip(rng.normal(0.5 - shift / 2, 0.1, 59), 0, 1).round(2)
        rule = fit_verdicts(photographs, generated, most)
        wanted = [by_definition(one, photographs, generated, most) for one in realism.round(2)]
        assert rule.verdicts(realism).tolist() == wanted


def test_few_held_out_images_allow_no_claim() -> None:
    photographs, generated = np.linspace(0.6, 0.9, 18), np.linspace(0.1, 0.4, 19)
    rule = fit_verdicts(photographs, generated)
    assert (rule.low, rule.high) == (-math.inf, 0.4)
    assert rule.verdicts([0.0, 0.4, 0.5, 1.0]).tolist() == ["unsure", "unsure", *["photograph"] * 2]
    assert fit_verdicts([*photographs, 0.95], generated).verdicts([0.0]).tolist() == ["generated"]


def test_an_image_without_a_score_gets_no_verdict() -> None:
    rule = fit_verdicts(np.linspace(0.6, 0.9, 30), np.linspace(0.1, 0.4, 30))
    assert rule.verdicts([math.nan, 0.0]).tolist() == ["", "generated"]


@pytest.mark.parametrize("most", [0.0, 0.51, math.nan])
def test_a_bound_that_is_none_is_refused(most: float) -> None:
    with pytest.raises(ValueError, match=r"above 0 and at most 0\.5"):
        fit_verdicts([0.5], [0.5], most)


@pytest.mark.parametrize(("n", "most"), [(59, 0.05), (100, 0.05), (39, 0.1)])
def test_the_bound_holds_over_many_splits_and_is_not_wasted(n: int, most: float) -> None:
    """A new photograph is called generated with probability k / (n + 1), k = floor(a (n + 1))."""
    rng = np.random.default_rng(1)
    splits, wrong_real, wrong_made, low_ends = 2000, 0, 0, []
    for _ in range(splits):
        photographs, generated = rng.beta(2, 1, n + 1), rng.beta(1, 2, n + 1)
        rule = fit_verdicts(photographs[1:], generated[1:], most)
        wrong_real += rule.verdicts(photographs[:1])[0] == "generated"
        wrong_made += rule.verdicts(generated[:1])[0] == "photograph"
        low_ends.append(rule.low)
    k = math.floor(most * (n + 1))
    for wrong in (wrong_real, wrong_made):
        low, high = scipy_stats.binom.interval(0.999, splits, k / (n + 1))
        assert low <= wrong <= high
    # The error of one fitted rule is distributed as Beta(k, n + 1 - k).
    errors = scipy_stats.beta(2, 1).cdf(low_ends)
    assert scipy_stats.kstest(errors, scipy_stats.beta(k, n + 1 - k).cdf).pvalue > 0.001


def test_a_source_of_another_kind_shows_in_the_errors_by_source() -> None:
    photographs = {"a": np.linspace(0.5, 1, 40), "b": np.linspace(0.5, 1, 40), "odd": [0.1, 0.9]}
    generated = {"x": np.linspace(0.0, 0.3, 40), "y": [0.2, 0.95, 0.2, 0.99]}
    real, made = errors_by_source(photographs, generated)
    # k = floor(0.05 · 83) = 4 of all, and of the 42 others of "a" two: 0.1 and 0.5.
    assert real == {"a": 0.0, "b": 0.0, "odd": 0.5}
    assert made == {"x": 0.0, "y": 0.5}
    assert errors_by_source({"a": [0.5]}, {"x": [0.5]}) == ({}, {})


def test_levels_are_lowered_until_the_bound_holds_for_sources_left_out() -> None:
    rng = np.random.default_rng(3)
    level = rng.normal(2, 1, (30, 1))  # sources that scatter more than their images
    scores = scipy_special.expit(level + rng.normal(0, 1, (30, 30)))
    photographs = {f"s{n}": some for n, some in enumerate(scores)}
    generated = {"x": rng.uniform(0, 1, 900)}
    rule = fit_by_source(photographs, generated, 0.05)
    pooled = fit_verdicts(scores.ravel(), generated["x"], 0.05)
    assert rule.low < pooled.low
    assert rule.low_level < pooled.low_level == 45 / 901
    assert np.mean(list(errors_by_source(photographs, generated)[0].values())) <= 0.05
    k = round(pooled.low_level * 871)  # of the 870 others at the level of all
    others = [np.sort(np.delete(scores, n, axis=0).ravel())[k - 1] for n in range(30)]
    assert np.mean(scores < np.array(others)[:, None]) > 0.05
    assert (rule.high, rule.high_level) == (pooled.high, pooled.high_level)  # a single source


def test_stability_counts_changed_and_reversed_verdicts() -> None:
    rule = fit_verdicts(np.linspace(0.6, 0.9, 30), np.linspace(0.1, 0.65, 30))
    assert (rule.low, rule.high) == (0.6, 0.65)
    found = verdict_stability(rule, [0.3, 0.62, 0.8, 0.8], [0.62, 0.63, 0.1, 0.9])
    assert (found.changed, found.reversed, found.n) == (0.5, 0.25, 4)
