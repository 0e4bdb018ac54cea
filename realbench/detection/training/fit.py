"""Fits what a network says of statistics of views; deterministic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from realbench.detection.families.patch_statistics import COMPONENTS, PatchStatistics
from realbench.detection.training.data import TrainingImage
from realbench.detection.training.recipe import Recipe
from realbench.detection.training.statistics import Statistics
from realbench.errors import UsageError

_ITERATIONS = 300
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
    usable = np.array([*(image.trains(fold) for image in images), False])  # -1 is of no image
    chosen = usable[statistics.image]
    owners = statistics.image[chosen]
    values = torch.from_numpy(statistics.values[chosen]).float()
    real = np.array([images[n].real for n in owners])
    weights = view_weights(owners, images, recipe)
    _standardize(network, values[real], weights[real])
    deviations = network.standardized(values)
    _fit_real(network, deviations, real, weights, recipe)
    nothing = torch.from_numpy(statistics.values[statistics.image < 0]).float()
    _fit_picture(network, deviations, weights, network.standardized(nothing))


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


def _fit_picture(
    network: PatchStatistics, deviations: Tensor, weights: np.ndarray, nothing: Tensor
) -> None:
    """Fit P(picture) on views of anything against pictures of nothing, at even odds."""
    from sklearn.linear_model import LogisticRegression

    distances = network.distances(torch.cat([deviations, nothing])).numpy()
    label = np.arange(len(distances)) < len(deviations)
    share = np.concatenate([weights, np.full(len(nothing), 1 / len(nothing))])
    model = LogisticRegression(max_iter=_ITERATIONS)
    model.fit(distances, label, sample_weight=share * len(share) / 2)
    network.picture.weight.copy_(torch.from_numpy(model.coef_))
    network.picture.bias.copy_(torch.from_numpy(model.intercept_))


def view_weights(owners: np.ndarray, images: Sequence[TrainingImage], recipe: Recipe) -> np.ndarray:
    """Return the weight of each view by the recipe's shares; they sum to 1.

    Inside a kind, each source counts alike, so that large sources do not drown small ones.

    Args:
        owners: int (n,), indices of ``images``.

    Raises:
        UsageError: photographs or generated images are missing.
    """
    shares = recipe.shares
    kinds = [_kind(images[n], shares.generated) for n in owners]
    if "photographs" not in kinds or not set(kinds) & set(shares.generated):
        raise UsageError("training needs photographs and generated images, and one is missing")
    share_of = {**shares.generated, "round trips": shares.round_trip}
    share_of["photographs"] = 1 - sum(share_of.values())
    sources = [
        (kind, images[n].subset, images[n].source) for kind, n in zip(kinds, owners, strict=True)
    ]
    views = Counter(sources)
    in_kind = Counter(kind for kind, _, _ in views)
    weights = np.array(
        [share_of.get(key[0], 0.0) / in_kind[key[0]] / views[key] for key in sources]
    )
    return weights / weights.sum()


def _kind(image: TrainingImage, generated: dict[str, float]) -> str:
    if image.real:
        return "photographs"
    if image.round_trip:
        return "round trips"
    return image.subset if image.subset in generated else "*"
