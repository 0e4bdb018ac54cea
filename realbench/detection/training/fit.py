"""Fits what a network says of statistics of views; deterministic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.families.patch_statistics import COMPONENTS, PatchStatistics
from realbench.detection.training.data import TrainingImage
from realbench.detection.training.recipe import Recipe
from realbench.detection.training.statistics import NOTHING, RENDER, Statistics
from realbench.errors import UsageError

_ITERATIONS = 300
_SHRINKAGE = 0.3
_ADAPTATION = 0.1  # variance of a weight around the one that it starts from: see docs/detectors.md
_SPREAD = 2.0  # standard deviation of the regression's logits beside tuned blocks
_ODD_PHOTOGRAPHS = 0.003
_STEEPER = 2.0
# Logits. Photographs of other sources lie further out; crops of gray noise lie near photographs'.
_LEFT_ALONE = {"semantic": 10.0, "trace": 5.0}
_LEAST_SPREAD = 1e-3  # of fewer photographs than directions
_LARGEST = 20.0  # deviations, in standard deviations, in the main directions of photographs


@torch.inference_mode()
def fit(
    network: PatchStatistics,
    statistics: Statistics,
    images: Sequence[TrainingImage],
    recipe: Recipe,
    fold: int | None,
) -> None:
    """Fit the layers of ``network`` above its statistics.

    Args:
        network: gets them set, so that it gives the logit of P(real) at even odds.
        statistics: of views of ``images``; those that ``fold`` may not learn from are left out.
        images: what the views are of.
        fold: None for the final fit, on all of them.
    """
    chosen = _learned_from(statistics, images, fold)
    owners = statistics.image[chosen]
    values = torch.from_numpy(statistics.values[chosen]).float()
    real = np.array([images[n].real for n in owners])
    weights = view_weights(owners, images, recipe)
    _standardize(network, values[real], weights[real])
    deviations = network.standardized(values)
    photographs = deviations[real]
    sources = np.array([_origin(images[n], recipe) for n in owners])
    _fit_real(network, deviations, real, weights, sources, recipe)
    made = [_made(network, statistics, what) for what in (NOTHING, RENDER)]
    alone = _LEFT_ALONE[recipe.kind]
    shown, others = network.limited(photographs), network.limited(torch.cat(made))
    _tell_apart(network.taken, shown, others, 0.01, alone)
    shown, others = network.distances(photographs), network.distances(made[0])
    _tell_apart(network.usual, shown, others, 1.0, alone)


def adapt(
    network: PatchStatistics,
    statistics: Statistics,
    images: Sequence[TrainingImage],
    recipe: Recipe,
    fold: int | None,
) -> None:
    """Change a trained network's regression by as little as new images ask for.

    The most probable weights under a normal prior around those that it has: what the images say
    nothing of stays as it was, and so do the tuned blocks and the other two factors.

    Args:
        network: trained; its regression is changed in place.
        statistics, images, fold: as for :func:`fit`.
    """
    chosen = _learned_from(statistics, images, fold)
    owners = statistics.image[chosen]
    real = torch.tensor([images[n].real for n in owners], dtype=torch.float32)
    weights = torch.from_numpy(view_weights(owners, images, recipe)).float()
    z = network.limited(network.standardized(torch.from_numpy(statistics.values[chosen]).float()))
    before = network.real(z).squeeze(1) + torch.from_numpy(statistics.tuned[chosen])
    change = torch.zeros(z.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = before + z @ change[:-1] + change[-1]
        errors = functional.binary_cross_entropy_with_logits(logits, real, weights, reduction="sum")
        total = errors + change.square().sum() / (2 * _ADAPTATION)
        total.backward()
        return total

    with torch.inference_mode(False), torch.enable_grad():
        optimizer.step(loss)
    network.real.weight.add_(change.detach()[None, :-1])
    network.real.bias.add_(change.detach()[-1])


def _learned_from(
    statistics: Statistics, images: Sequence[TrainingImage], fold: int | None
) -> np.ndarray:
    """Return which views, bool (n,), are of images that a fold may learn from."""
    usable = np.array([*(image.trains(fold) for image in images), False, False])
    return usable[statistics.image]  # what was made on the spot is of no image


def _made(network: PatchStatistics, statistics: Statistics, what: int) -> Tensor:
    """Return the deviations of what was made on the spot."""
    values = torch.from_numpy(statistics.values[statistics.image == what]).float()
    return network.standardized(values)


def _standardize(network: PatchStatistics, photographs: Tensor, weights: np.ndarray) -> None:
    """Set centre, scale and main directions to those of photographs' statistics."""
    from scipy.sparse.linalg import eigsh

    w = torch.from_numpy(weights / weights.sum()).float()[:, None]
    network.center.copy_((w * photographs).sum(dim=0))
    variance = (w * (photographs - network.center).square()).sum(dim=0)
    network.scale.copy_(variance.sqrt().clamp(min=1e-6))
    z = network.standardized(photographs).clamp(-_LARGEST, _LARGEST)
    covariance = ((w * z).T @ z).double().numpy()
    # All of the thousands of directions would take ten times as long.
    values, vectors = eigsh(covariance, k=COMPONENTS, v0=np.ones(len(covariance)))
    network.basis.copy_(torch.from_numpy(vectors[:, ::-1].T.copy()))
    network.spread.copy_(torch.from_numpy(values[::-1].clip(min=_LEAST_SPREAD)))
    network.rest.fill_(max(float(np.trace(covariance) - values.sum()), _LEAST_SPREAD))


def _fit_real(
    network: PatchStatistics,
    deviations: Tensor,
    real: np.ndarray,
    weights: np.ndarray,
    sources: np.ndarray,
    recipe: Recipe,
) -> None:
    from sklearn.linear_model import LogisticRegression

    limited = network.limited(deviations).numpy()
    model = LogisticRegression(C=recipe.inverse_penalty, max_iter=_ITERATIONS)
    model.fit(limited, real, sample_weight=weights)
    direction, bias = model.coef_[0], float(model.intercept_[0])
    if recipe.nuisance is not None:
        other = discriminant(limited, real, weights, sources, recipe.nuisance)
        direction = direction / np.std(limited @ direction) + other / np.std(limited @ other)
    if recipe.nuisance is not None or recipe.tuned:
        # On a scale at which tuned blocks' logits stand beside it, and with even odds at 0.
        direction = direction * (_SPREAD / np.std(limited @ direction))
        logits = limited @ direction
        means = [np.average(logits[c], weights=weights[c]) for c in (real, ~real)]
        bias = -sum(means) / 2
    network.real.weight.copy_(torch.from_numpy(direction)[None])
    network.real.bias.fill_(bias)


def discriminant(
    deviations: np.ndarray,
    real: np.ndarray,
    weights: np.ndarray,
    sources: np.ndarray,
    nuisance: float,
) -> np.ndarray:
    """Return a linear discriminant to which differences between the sources of a class are noise.

    Fisher's discriminant whose covariance is that within sources plus ``nuisance`` times that
    between the sources of a class, shrunk towards a multiple of the identity (Ledoit and Wolf
    2004, J. Multivariate Anal. 88, equation 1). Speaker verification treats sessions so (Hatch et
    al. 2006, Interspeech, within-class covariance normalisation).

    Args:
        deviations: float (n, d).
        real: whether each is of a photograph, (n,).
        weights: of each, (n,); they sum to 1.
        sources: what each is from, (n,).

    Returns:
        float64 (d,), pointing towards photographs.
    """
    size = deviations.shape[1]
    covariance = np.zeros((size, size))
    means = {}
    for label in (True, False):
        own = [np.flatnonzero((real == label) & (sources == s)) for s in np.unique(sources)]
        own = [n for n in own if len(n)]
        centers = np.stack([np.average(deviations[n], axis=0, weights=weights[n]) for n in own])
        shares = np.array([weights[n].sum() for n in own])
        means[label] = np.average(centers, axis=0, weights=shares)
        for n, center in zip(own, centers, strict=True):
            scaled = (deviations[n] - center) * np.sqrt(weights[n])[:, None]
            covariance += scaled.T @ scaled
        apart = (centers - means[label]) * np.sqrt(nuisance * shares)[:, None]
        covariance += apart.T @ apart
    covariance[np.diag_indices(size)] += _SHRINKAGE * np.trace(covariance) / size
    return np.linalg.solve(covariance, means[True] - means[False])


def _tell_apart(
    layer: nn.Linear, photographs: Tensor, others: Tensor, inverse_penalty: float, alone: float
) -> None:
    """Fit a layer that leaves all but the oddest photographs alone and falls steeply below.

    Photographs differ more from one another than generated images do, and those of other sources
    more still, so the factor's logit is ``alone`` where three photographs in a thousand are below.
    """
    from sklearn.linear_model import LogisticRegression

    both = torch.cat([photographs, others]).numpy()
    label = np.arange(len(both)) < len(photographs)
    model = LogisticRegression(
        C=inverse_penalty, max_iter=_ITERATIONS, class_weight="balanced"
    ).fit(both, label)
    lowest = np.quantile(both[label] @ model.coef_[0], _ODD_PHOTOGRAPHS)
    layer.weight.copy_(torch.from_numpy(_STEEPER * model.coef_))
    layer.bias.fill_(float(alone - _STEEPER * lowest))


def view_weights(owners: np.ndarray, images: Sequence[TrainingImage], recipe: Recipe) -> np.ndarray:
    """Return the weight of each view by the recipe's shares; they sum to 1.

    Inside a kind, a source counts by its size to the power of the recipe's ``balance``; by 0, the
    default, each counts alike, so that large sources do not drown small ones.

    Args:
        owners: int (n,), indices of ``images``.

    Raises:
        UsageError: photographs or generated images are missing.
    """
    shares = recipe.shares
    sources = [_source(images[n], shares.generated) for n in owners]
    kinds = {kind for kind, _, _ in sources}
    if "photographs" not in kinds or not kinds & set(shares.generated):
        raise UsageError("training needs photographs and generated images, and one is missing")
    share_of = {**shares.generated, "round trips": shares.round_trip}
    share_of["photographs"] = 1 - sum(share_of.values())
    views = Counter(sources)
    in_kind: Counter[str] = Counter()
    for key, count in views.items():
        in_kind[key[0]] += count**recipe.balance
    weights = np.array(
        [
            share_of.get(key[0], 0.0) * views[key] ** (recipe.balance - 1) / in_kind[key[0]]
            for key in sources
        ]
    )
    return weights / weights.sum()


def _origin(image: TrainingImage, recipe: Recipe) -> str:
    return image.source if image.real else recipe.family(image.source)


def _source(image: TrainingImage, generated: dict[str, float]) -> tuple[str, str, str]:
    """Return an image's kind, subset and source."""
    kind = image.subset if image.subset in generated else "*"
    if image.real:
        kind = "photographs"
    elif image.round_trip:
        kind = "round trips"
    return kind, image.subset, image.source
