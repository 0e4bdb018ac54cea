"""Fits what a network says of statistics of views; deterministic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from realbench.detection.families.patch_statistics import COMPONENTS, PatchStatistics
from realbench.detection.training.data import TrainingImage
from realbench.detection.training.recipe import Recipe
from realbench.detection.training.statistics import NOTHING, RENDER, Statistics
from realbench.errors import UsageError

_ITERATIONS = 300
_ODD_PHOTOGRAPHS = 0.003
_STEEPER = 2.0
_LEFT_ALONE = 5.0  # logit of 0.993
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
    usable = np.array([*(image.trains(fold) for image in images), False, False])
    chosen = usable[statistics.image]  # what was made on the spot is of no image
    owners = statistics.image[chosen]
    values = torch.from_numpy(statistics.values[chosen]).float()
    real = np.array([images[n].real for n in owners])
    weights = view_weights(owners, images, recipe)
    _standardize(network, values[real], weights[real])
    deviations = network.standardized(values)
    photographs = deviations[real]
    _fit_real(network, deviations, real, weights, recipe)
    made = [_made(network, statistics, what) for what in (NOTHING, RENDER)]
    _tell_apart(network.taken, network.limited(photographs), network.limited(torch.cat(made)), 0.01)
    nothing = network.distances(made[0])
    _tell_apart(network.usual, network.distances(photographs), nothing, 1.0)


def _made(network: PatchStatistics, statistics: Statistics, what: int) -> Tensor:
    """Return the deviations of what was made on the spot."""
    values = torch.from_numpy(statistics.values[statistics.image == what]).float()
    return network.standardized(values)


def _standardize(network: PatchStatistics, photographs: Tensor, weights: np.ndarray) -> None:
    """Set centre, scale and main directions to those of photographs' statistics."""
    w = torch.from_numpy(weights / weights.sum()).float()[:, None]
    network.center.copy_((w * photographs).sum(dim=0))
    variance = (w * (photographs - network.center).square()).sum(dim=0)
    network.scale.copy_(variance.sqrt().clamp(min=1e-6))
    z = network.standardized(photographs).clamp(-_LARGEST, _LARGEST)
    covariance = (w * z).T @ z
    eigenvalues, vectors = torch.linalg.eigh(covariance.double())
    network.basis.copy_(vectors[:, -COMPONENTS:].T.flip(0))
    network.spread.copy_(eigenvalues[-COMPONENTS:].flip(0))
    network.rest.fill_(float(eigenvalues[:-COMPONENTS].clamp(min=0).sum()))


def _fit_real(
    network: PatchStatistics,
    deviations: Tensor,
    real: np.ndarray,
    weights: np.ndarray,
    recipe: Recipe,
) -> None:
    from sklearn.linear_model import LogisticRegression

    limited = network.limited(deviations).numpy()
    model = LogisticRegression(C=recipe.inverse_penalty, max_iter=_ITERATIONS)
    model.fit(limited, real, sample_weight=weights)
    network.real.weight.copy_(torch.from_numpy(model.coef_))
    network.real.bias.copy_(torch.from_numpy(model.intercept_))


def _tell_apart(
    layer: nn.Linear, photographs: Tensor, others: Tensor, inverse_penalty: float
) -> None:
    """Fit a layer that leaves all but the oddest photographs alone and falls steeply below.

    Photographs differ more from one another than generated images do, so the factor is still 0.993
    where three photographs in a thousand are below.
    """
    from sklearn.linear_model import LogisticRegression

    both = torch.cat([photographs, others]).numpy()
    label = np.arange(len(both)) < len(photographs)
    model = LogisticRegression(
        C=inverse_penalty, max_iter=_ITERATIONS, class_weight="balanced"
    ).fit(both, label)
    lowest = np.quantile(both[label] @ model.coef_[0], _ODD_PHOTOGRAPHS)
    layer.weight.copy_(torch.from_numpy(_STEEPER * model.coef_))
    layer.bias.fill_(float(_LEFT_ALONE - _STEEPER * lowest))


def view_weights(owners: np.ndarray, images: Sequence[TrainingImage], recipe: Recipe) -> np.ndarray:
    """Return the weight of each view by the recipe's shares; they sum to 1.

    Inside a kind, each source counts alike, so that large sources do not drown small ones.

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
    in_kind = Counter(kind for kind, _, _ in views)
    weights = np.array(
        [share_of.get(key[0], 0.0) / in_kind[key[0]] / views[key] for key in sources]
    )
    return weights / weights.sum()


def _source(image: TrainingImage, generated: dict[str, float]) -> tuple[str, str, str]:
    """Return an image's kind, subset and source."""
    kind = image.subset if image.subset in generated else "*"
    if image.real:
        kind = "photographs"
    elif image.round_trip:
        kind = "round trips"
    return kind, image.subset, image.source
