"""Krippendorff's alpha and Cohen's kappa, against published examples and other implementations."""

from __future__ import annotations

import evalica
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import cohen_kappa_score

from realbench.stats import cohen_kappa, krippendorff_alpha

NAN = float("nan")
results = st.sampled_from([0.0, 0.5, 1.0])

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: four observers, 12
# units, missing data. Alpha for interval data is given there as 0.849.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]


def test_alpha_of_the_published_example() -> None:
    found = krippendorff_alpha(PUBLISHED, both_directions=False)
    assert found.estimate == pytest.approx(0.849, abs=5e-4)
    assert found.n == 11  # one unit has a single score


def test_alpha_by_hand() -> None:
    # Units (1, 1), (0, 0), (1, 0). Observed: mean squared difference 1/3 of a unit's two scores.
    # Expected: of six scores, three 1 and three 0, 18 of the 30 ordered pairs differ by 1.
    found = krippendorff_alpha([[1, 0, 1], [1, 0, 0]], both_directions=False)
    assert found.estimate == pytest.approx(1 - (1 / 3) / (18 / 30))


@given(
    table=arrays.arrays(
        float,
        st.tuples(st.integers(2, 4), st.integers(2, 12)),
        elements=st.sampled_from([0.0, 0.5, 1.0, NAN]),
    )
)
def test_alpha_is_evalicas(table: np.ndarray) -> None:
    if not ((~np.isnan(table)).sum(axis=0) > 1).any():
        assert np.isnan(krippendorff_alpha(table).estimate)
        return
    found = krippendorff_alpha(table, both_directions=False, resamples=10)
    other = evalica.alpha(pd.DataFrame(table), distance="interval")
    assert found.estimate == pytest.approx(other.alpha, abs=1e-9)


@given(arrays.arrays(float, st.tuples(st.just(2), st.integers(2, 30)), elements=results), st.data())
def test_which_contestant_is_asked_for_makes_no_difference(
    table: np.ndarray, data: st.DataObject
) -> None:
    turned = data.draw(arrays.arrays(bool, table.shape[1]))
    other = np.where(turned, 1 - table, table)
    for measure in (krippendorff_alpha, lambda t, **k: cohen_kappa(*t, **k)):
        a, b = measure(table, resamples=20), measure(other, resamples=20)
        assert a.estimate == pytest.approx(b.estimate, abs=1e-9, nan_ok=True)
        assert a.low == pytest.approx(b.low, abs=1e-9, nan_ok=True)


def test_kappa_of_a_worked_example() -> None:
    # 50 units: both yes 20, both no 15, only a yes 5, only b yes 10. Observed agreement 0.7,
    # by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    a = [1] * 20 + [0] * 15 + [1] * 5 + [0] * 10
    b = [1] * 20 + [0] * 15 + [0] * 5 + [1] * 10
    assert cohen_kappa(a, b, both_directions=False).estimate == pytest.approx(0.4)


@given(arrays.arrays(float, st.tuples(st.just(2), st.integers(2, 40)), elements=results))
def test_kappa_is_scikit_learns(table: np.ndarray) -> None:
    found = cohen_kappa(*table, both_directions=False, resamples=10)
    labels = (table * 2).astype(int)
    if len(np.unique(labels)) > 1:
        assert found.estimate == pytest.approx(cohen_kappa_score(*labels), nan_ok=True)
    else:
        assert np.isnan(found.estimate)


def test_intervals_are_over_prompts() -> None:
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(20), 30)
    agrees = np.repeat(rng.random(20) < 0.6, 30)  # judges agree on a prompt throughout or never
    a = rng.integers(0, 2, 600).astype(float)
    b = np.where(agrees, a, 1 - a)
    for measure in (krippendorff_alpha, lambda t, *r: cohen_kappa(*t, *r)):
        whole, single = measure(np.array([a, b]), prompts), measure(np.array([a, b]))
        assert whole.low <= whole.estimate <= whole.high
        assert whole.high - whole.low > 3 * (single.high - single.low)
        assert (whole.n, whole.n_groups) == (600, 20)


def test_kappa_interval_covers_as_it_says() -> None:
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        a = rng.integers(0, 2, 120).astype(float)
        b = np.where(rng.random(120) < 0.8, a, 1 - a)  # kappa 0.6
        found = cohen_kappa(a, b, np.repeat(np.arange(40), 3), resamples=200, seed=seed)
        inside += found.low <= 0.6 <= found.high
    assert 0.91 <= inside / 200 <= 0.985


def test_degenerate_tables() -> None:
    assert krippendorff_alpha([[1, 1], [1, 1]], both_directions=False).estimate == 1
    one_prompt = krippendorff_alpha([[1, 0], [1, 1]], ["p", "p"])
    assert np.isnan([one_prompt.low, one_prompt.high]).all()
    assert not np.isnan(one_prompt.estimate)
    nobody = krippendorff_alpha([[1, NAN], [NAN, 0]])
    assert np.isnan(nobody.estimate)
    assert nobody.n == 0
    assert np.isnan(cohen_kappa([], []).estimate)
    with pytest.raises(ValueError, match="same length"):
        cohen_kappa([1], [1, 0])
    with pytest.raises(ValueError, match="shape"):
        krippendorff_alpha([1, 0])
