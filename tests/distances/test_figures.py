"""Figures against torch-fidelity and prdc on shared features, and their intervals."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg

from realbench.distances import figures
from realbench.distances.compare import KINDS, resampled
from realbench.distances.figures import Side, Term

FEATURES = 24


def features(n: int, seed: int, shift: float = 0.0) -> NDArray[np.float32]:
    """Return skewed, correlated features (n, 24)."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(FEATURES, FEATURES))
    skewed = rng.gamma(2.0, size=(n, FEATURES)) - 2 + shift
    return (skewed @ mixing / 3).astype(np.float32)


def side(values: NDArray[np.float32], first: int = 0) -> Side:
    return Side(values, np.array([f"p{n:05d}" for n in range(first, first + len(values))]))


PHOTOGRAPHS, PICTURES = features(300, 0), features(300, 1, 0.3)


def all_terms(a: Side, b: Side, seed: int = 0) -> dict[str, Term]:
    return (
        figures.two_sample(a, b, seed)
        | figures.frechet(a, b)
        | figures.kernel_distance(a, b)
        | figures.neighbourhoods(a, b)
        | figures.cmmd(a, b)
    )


def test_frechet_is_that_of_torch_fidelity() -> None:
    metric = pytest.importorskip("torch_fidelity.metric_fid")
    statistics = [
        {"mu": one.mean(axis=0), "sigma": np.cov(one, rowvar=False)}
        for one in (PHOTOGRAPHS.astype(float), PICTURES.astype(float))
    ]
    theirs = metric.fid_statistics_to_metric(*statistics, False)
    ours = figures.frechet(side(PHOTOGRAPHS), side(PICTURES))["fd"].value
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)


@pytest.mark.parametrize("n", [12, 300])  # fewer than features, and more
def test_frechet_by_its_definition(n: int) -> None:
    x, y = PHOTOGRAPHS[:n].astype(float), PICTURES[:n].astype(float)
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.sqrt(np.abs(linalg.eigvals(cx @ cy))).sum()
    shift = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    ours = figures.frechet(side(PHOTOGRAPHS[:n]), side(PICTURES[:n]))["fd"].value
    assert ours == pytest.approx(shift + cx.trace() + cy.trace() - 2 * root, rel=1e-4)


def test_kernel_distance_by_its_definition() -> None:
    x, y = PHOTOGRAPHS[:40].astype(float), PICTURES[:40].astype(float)
    xx, yy, xy = ((a @ b.T / FEATURES + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    pairs = xx.sum() - xx.trace() + yy.sum() - yy.trace()
    ours = figures.kernel_distance(side(PHOTOGRAPHS[:40]), side(PICTURES[:40]))["kd"].value
    assert ours == pytest.approx(pairs / (40 * 39) - 2 * xy.mean(), rel=1e-4)


def test_kernel_distance_is_that_of_torch_fidelity_over_all_pairs() -> None:
    torch = pytest.importorskip("torch")
    metric = pytest.importorskip("torch_fidelity.metric_kid")
    theirs = metric.kid_features_to_metric(
        torch.from_numpy(PHOTOGRAPHS),
        torch.from_numpy(PICTURES),
        kid_subsets=1,
        kid_subset_size=300,
        verbose=False,
    )
    ours = figures.kernel_distance(side(PHOTOGRAPHS), side(PICTURES))["kd"].value
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)


def test_neighbourhoods_are_those_of_prdc() -> None:
    prdc = pytest.importorskip("prdc")
    theirs = prdc.compute_prdc(PHOTOGRAPHS.astype(float), PICTURES.astype(float), nearest_k=5)
    ours = figures.neighbourhoods(side(PHOTOGRAPHS), side(PICTURES))
    assert {name: term.value for name, term in ours.items()} == pytest.approx(theirs, abs=1e-4)


def test_blocks_of_rows_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = all_terms(side(PHOTOGRAPHS), side(PICTURES[:290]))
    monkeypatch.setattr(figures, "_ROWS", 37)
    blocks = all_terms(side(PHOTOGRAPHS), side(PICTURES[:290]))
    for name, term in whole.items():
        assert blocks[name].value == pytest.approx(term.value, rel=1e-6)
        assert blocks[name].pictures == pytest.approx(term.pictures, abs=1e-4)


def test_cmmd_by_its_definition() -> None:
    x, y = (one.astype(float) for one in (PHOTOGRAPHS[:40], PICTURES[:40]))
    x, y = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (x, y))

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / (2 * 10**2))

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    unbiased = (xx.sum() - 40 + yy.sum() - 40) / (40 * 39) - 2 * xy.mean()
    ours = figures.cmmd(side(PHOTOGRAPHS[:40]), side(PICTURES[:40]))["cmmd"].value
    assert ours == pytest.approx(1000 * unbiased, rel=1e-3)


@pytest.mark.parametrize("name", ["fd", "kd"])
@pytest.mark.parametrize("of_photographs", [False, True])
def test_an_influence_is_what_a_picture_adds(name: str, of_photographs: bool) -> None:
    """Without it, the figure is lower by its influence over n, to first order."""
    compute = {"fd": figures.frechet, "kd": figures.kernel_distance}[name]
    a, b = side(features(2000, 4)), side(features(2000, 5, 0.4))
    term = compute(a, b)[name]
    own = term.photographs if of_photographs else term.pictures
    which, one = int(np.argmax(own)), a if of_photographs else b
    less = side(np.delete(one.features, which, axis=0))
    after = compute(less, b)[name] if of_photographs else compute(a, less)[name]
    assert (term.value - after.value) * 1999 == pytest.approx(own[which], rel=0.05)


def test_the_more_they_differ_the_farther_they_are() -> None:
    steps = [
        all_terms(side(PHOTOGRAPHS), side(features(300, 1, shift), 300))
        for shift in (0, 0.3, 0.6, 1)
    ]
    for name in ("auc", "fd", "kd", "cmmd"):
        values = [step[name].value for step in steps]
        assert values == sorted(values)
    for name in ("precision", "recall", "density", "coverage"):
        assert steps[0][name].value > steps[-1][name].value


@pytest.mark.slow
def test_half_against_half_is_no_distance_in_95_of_100_splits() -> None:
    everything = features(2000, 7)
    found: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(2000)[:240]
        halves = side(everything[order[:120]]), side(everything[order[120:]], 120)
        terms = {"half": all_terms(*halves, seed)}
        drawn = resampled(terms, halves[0].groups, {"half": halves[1].groups}, seed)
        for (_, name), (_, interval) in drawn.items():
            found.setdefault(name, []).append((interval.estimate, interval.low, interval.high))
    for name, rows in found.items():
        values = np.array(rows)
        # What n = 120 makes of no distance: for what is biased, the mean over all splits.
        nothing = {"auc": 0.5, "kd": 0.0, "cmmd": 0.0}.get(name, values[:, 0].mean())
        inside = np.mean((values[:, 1] <= nothing) & (nothing <= values[:, 2]))
        assert inside >= 0.93, (name, inside)
        if name in ("auc", "kd", "cmmd"):
            assert abs(values[:, 0].mean() - nothing) < 3 * values[:, 0].std() / np.sqrt(200) + 0.01


def test_a_prompt_of_both_sides_is_judged_by_a_fold_that_saw_neither() -> None:
    """A photograph and its twin: a fold with one of them in training would know the other."""
    noise = np.random.default_rng(3).normal(size=(100, 400)).astype(np.float32)
    scores = figures.two_sample(side(noise), side(noise))["auc"]
    assert scores.value == pytest.approx(0.5, abs=1e-9)


def test_every_figure_has_a_name() -> None:
    ours = all_terms(side(PHOTOGRAPHS[:50]), side(PICTURES[:50]))
    assert set(ours) <= set(KINDS)
    for term in ours.values():
        assert term.photographs.mean() == pytest.approx(0, abs=1e-6)
        assert len(term.pictures) == 50


def test_two_sets_that_are_apart_are_told_apart() -> None:
    test = partial(figures.two_sample, side(PHOTOGRAPHS))
    assert test(side(PHOTOGRAPHS + 5, 300), 0)["auc"].value == 1.0
