"""Distances of one set of pictures from another, from their features, and what each picture adds.

Every figure is returned as a :class:`Term`: its value, and the influence of each picture on it
(Hampel 1974, JASA 69(346)), so that a bootstrap over prompts costs a product of matrices and not
a figure a resample. Influences have mean 0; resampled means of them, added to the value, are
the figure's draws to first order. Where both sets are from one source, a distance is flat and
the first order of it is noise, which spreads more than the figure does: such intervals are wide
rather than narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from realbench.stats import Interval, bootstrap_auc, bootstrap_share

FloatArray = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Groups = npt.NDArray[np.str_]

NEIGHBOURS = 5  # as Naeem et al. (2020) recommend, for precision and recall as well
_ROWS = 1024  # of a matrix of all pairs, which is never whole in memory
_FOLDS = 5
_PENALTY = 0.01  # C of the logistic regression on standardised features
_RANK = 1e-6  # of the largest eigenvalue; smaller ones are none


@dataclass(frozen=True)
class Term:
    """A figure of n photographs and m pictures.

    Attributes:
        value: of the figure.
        photographs: influence of each photograph, float64 (n,), mean 0.
        pictures: influence of each picture, float64 (m,), mean 0.
        interval: the figure's own one, for shares and areas, which have better ones near 0 and 1.
        scores: what the figure says of each picture, (m,), where it does.
    """

    value: float
    photographs: FloatArray
    pictures: FloatArray
    interval: Interval | None = None
    scores: FloatArray | None = None


@dataclass(frozen=True)
class Side:
    """Features (n, d) of one set, and the prompts (n,) of its pictures."""

    features: Features
    groups: Groups


Compute = Callable[[Side, Side, int], dict[str, Term]]


def frechet(photographs: Side, pictures: Side, seed: int = 0) -> dict[str, Term]:
    """Fréchet distance ``fd`` of two sets (Heusel et al. 2017, arXiv 1706.08500, equation 6).

    |m - m'|² + tr(C + C' - 2 (C C')^(1/2)) of their means and covariances. It is biased upwards
    by about 1 / n: compare equal numbers of pictures alone.
    """
    x, y = (side.features.astype(np.float64) for side in (photographs, pictures))
    means = x.mean(axis=0), y.mean(axis=0)
    x, y = x - means[0], y - means[1]
    covariances = x.T @ x / (len(x) - 1), y.T @ y / (len(y) - 1)
    roots = [_power(covariance, 0.5) for covariance in covariances]
    product = roots[0] @ covariances[1] @ roots[0]
    root = np.sqrt(np.linalg.eigvalsh(product).clip(min=0)).sum()
    shift = means[0] - means[1]
    value = shift @ shift + sum(map(np.trace, covariances)) - 2 * root
    other = roots[1] @ covariances[0] @ roots[1]
    # The derivative by C' is 1 - C^(1/2) (C^(1/2) C' C^(1/2))^(-1/2) C^(1/2), that by C alike.
    along = roots[1] @ _power(other, -0.5) @ roots[1], roots[0] @ _power(product, -0.5) @ roots[0]
    influences = [
        _centred(
            2 * sign * part @ shift + (part * part).sum(axis=1) - (part @ a * part).sum(axis=1)
        )
        for part, a, sign in ((x, along[0], 1), (y, along[1], -1))
    ]
    return {"fd": Term(float(value), influences[0], influences[1])}


def _power(matrix: FloatArray, exponent: float) -> FloatArray:
    """Return a power of a symmetric matrix; directions without variance stay 0."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > _RANK * max(values[-1], 1e-300)
    return (vectors[:, kept] * values[kept] ** exponent) @ vectors[:, kept].T


def cubic(products: Features) -> Features:
    """Kernel of KID (Binkowski et al. 2018, arXiv 1801.01401, section 4): (x·y / d + 1)³.

    Args:
        products: x·y / d of all pairs.
    """
    return (products + 1) ** 3


def kernel_distance(photographs: Side, pictures: Side, seed: int = 0) -> dict[str, Term]:
    """Kernel distance ``kd``: the unbiased MMD² of :func:`cubic` (equation 4 there).

    All pairs count, where KID takes the mean over subsets of 1,000.
    """
    d = photographs.features.shape[1]
    return {"kd": _mmd(photographs.features, pictures.features, lambda g: cubic(g / d))}


def cmmd(photographs: Side, pictures: Side, seed: int = 0) -> dict[str, Term]:
    """``cmmd`` of Jayasumana et al. (2024, arXiv 2401.09603): 1000 · MMD², Gaussian, σ = 10.

    Features have length 1. Unbiased (equation 4 there), which the authors' program is not.
    """
    x, y = (
        side.features / np.linalg.norm(side.features, axis=1, keepdims=True)
        for side in (photographs, pictures)
    )
    return {"cmmd": _mmd(x, y, lambda products: np.exp((products - 1) / 100), 1000.0)}


def _mmd(
    x: Features, y: Features, kernel: Callable[[Features], Features], scale: float = 1.0
) -> Term:
    """Return scale · the unbiased MMD² (Gretton et al. 2012, JMLR 13, lemma 6)."""
    (xx, _), (yy, _), (xy, yx) = (_row_means(*pair, kernel) for pair in ((x, x), (y, y), (x, y)))
    value = xx.mean() + yy.mean() - 2 * xy.mean()
    return Term(
        float(scale * value), _centred(2 * scale * (xx - xy)), _centred(2 * scale * (yy - yx))
    )


def _row_means(
    x: Features, y: Features, kernel: Callable[[Features], Features]
) -> tuple[FloatArray, FloatArray]:
    """Return each picture's mean kernel with the other side; with its own side, without itself."""
    rows, columns = [], np.zeros(len(y))
    for start, products in _products(x, y):
        values = kernel(products)
        if x is y:
            np.fill_diagonal(values[:, start:], 0)
        rows.append(values.sum(axis=1, dtype=np.float64))
        columns += values.sum(axis=0, dtype=np.float64)
    return np.concatenate(rows) / (len(y) - (x is y)), columns / len(x)


def _products(x: Features, y: Features) -> Iterator[tuple[int, Features]]:
    """Yield x·y of all pairs in blocks of rows, with the first row's number."""
    for start in range(0, len(x), _ROWS):
        yield start, x[start : start + _ROWS] @ y.T


def _squared(x: Features, y: Features) -> Iterator[tuple[int, Features]]:
    """Yield squared distances of all pairs in blocks of rows, with the first row's number."""
    lengths = (x * x).sum(axis=1), (y * y).sum(axis=1)
    for start, products in _products(x, y):
        yield start, lengths[0][start : start + _ROWS, None] + lengths[1] - 2 * products


def neighbourhoods(photographs: Side, pictures: Side, seed: int = 0) -> dict[str, Term]:
    """Precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991, equations 1 and 2).

    And density and coverage (Naeem et al. 2020, arXiv 2002.09797, equations 3 and 4), all with
    balls out to the fifth neighbour. The three shares are of one side, and the other side is drawn
    as well: as both count alike, their intervals are wider by √2 than those of a share.
    """
    middle = photographs.features.mean(axis=0)  # distances lose digits far from the origin
    x, y = photographs.features - middle, pictures.features - middle
    k = min(NEIGHBOURS, len(x) - 1, len(y) - 1)
    reach_x, reach_y = _reach(x, k), _reach(y, k)
    inside = np.zeros(len(y))  # how many photographs' balls a picture lies in
    holds = np.zeros(len(x))  # how many pictures a photograph's ball holds
    recalled = np.zeros(len(x), bool)
    for start, squares in _squared(x, y):
        block = slice(start, start + len(squares))
        within = squares < reach_x[block, None]
        inside += within.sum(axis=0)
        holds[block] = within.sum(axis=1)
        recalled[block] = (squares < reach_y).any(axis=1)
    return {
        "precision": _share(inside > 0, pictures.groups, photographs=len(x), seed=seed),
        "recall": _share(recalled, photographs.groups, pictures=len(y), seed=seed),
        "density": Term(
            float(inside.mean() / k),
            _centred(holds * len(x) / (k * len(y))),
            _centred(inside / k),
        ),
        "coverage": _share(holds > 0, photographs.groups, pictures=len(y), seed=seed),
    }


def _reach(x: Features, k: int) -> Features:
    """Return the squared distance of each point to its k-th neighbour."""
    return np.concatenate([np.partition(squares, k, axis=1)[:, k] for _, squares in _squared(x, x)])


def _share(
    hits: npt.NDArray[np.bool_],
    groups: Groups,
    *,
    photographs: int | None = None,
    pictures: int | None = None,
    seed: int,
) -> Term:
    """Return a share of hits of one side; of the other one the number is given."""
    own = np.sqrt(2) * _centred(hits.astype(np.float64))
    return Term(
        float(hits.mean()),
        own if photographs is None else np.zeros(photographs),
        own if pictures is None else np.zeros(pictures),
        _wider(bootstrap_share(hits, groups, seed=seed)),
    )


def _wider(interval: Interval) -> Interval:
    """Return an interval in [0, 1] that is wider by √2, of twice the variance."""
    middle, ends = interval.estimate, np.array([interval.low, interval.high])
    low, high = np.clip(middle + np.sqrt(2) * (ends - middle), 0, 1)
    return replace(interval, low=float(low), high=float(high))


def two_sample(photographs: Side, pictures: Side, seed: int = 0) -> dict[str, Term]:
    """Classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv 1610.06545, section 3).

    ``auc`` is the area under the ROC curve, where they have the accuracy, of a logistic
    regression: 0.5 where nothing tells pictures from photographs, 1 where everything does. A
    prompt's pictures and photographs are judged by a regression that saw none of them; as folds
    have levels of their own, areas are of ranks within a fold. ``scores`` are these ranks in
    (0, 1), higher for what looks more like the photographs.

    Of two pictures each is judged by what was learned from the other, so that without any
    difference a pair counts twice, which doubles the variance: interval and influences are wider
    by √2 than those of an area of independent scores.
    """
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([photographs.features, pictures.features])
    real = np.arange(len(x)) < len(photographs.features)
    folds = _folds(np.concatenate([photographs.groups, pictures.groups]), real, seed)
    scores = np.full(len(x), 0.5)
    for fold in range(_FOLDS):
        out = folds == fold
        if not out.any() or len(set(real[~out])) < 2:
            continue
        center, scale = x[~out].mean(axis=0), x[~out].std(axis=0) + 1e-6
        model = LogisticRegression(C=_PENALTY, max_iter=200, tol=1e-3)
        model.fit((x[~out] - center) / scale, real[~out])
        judged = ((x[out] - center) / scale) @ model.coef_[0]
        scores[out] = _placed(judged, judged)
    a, b = scores[real], scores[~real]
    interval = _wider(bootstrap_auc(a, b, photographs.groups, pictures.groups, seed=seed))
    interval = replace(interval, n=len(b))
    wins = [np.sqrt(2) * _centred(one) for one in (_placed(a, b), 1 - _placed(b, a))]
    return {"auc": Term(interval.estimate, wins[0], wins[1], interval, b)}


def _placed(values: FloatArray, others: FloatArray) -> FloatArray:
    """Return the share of ``others`` below each value, ties half (DeLong's placements)."""
    ordered = np.sort(others)
    sides = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return sum(sides, np.zeros(len(values))) / (2 * len(others))


def _folds(groups: Groups, real: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.intp]:
    """Deal prompts out to folds, each kind (both sides, one, the other) in turn: (n,) numbers."""
    _, codes = np.unique(groups, return_inverse=True)
    kind = np.zeros(codes.max() + 1, int)
    np.bitwise_or.at(kind, codes, np.where(real, 1, 2))
    order = np.random.default_rng(seed).permutation(len(kind))
    order = order[np.argsort(kind[order], kind="stable")]
    fold = np.empty(len(kind), np.intp)
    fold[order] = np.arange(len(kind)) % _FOLDS
    return fold[codes]


def _centred(values: FloatArray) -> FloatArray:
    return values - values.mean()
