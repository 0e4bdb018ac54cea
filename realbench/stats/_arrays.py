"""Checks and groups the arrays that the statistics take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Groups = Sequence[Any] | npt.ArrayLike
"""Labels, one for each value: of any kind that can be sorted, such as prompt ids."""

# Standard errors below this are rounding, not spread (scores have an order of magnitude of 1).
ROUNDING = 1e-14


def finite(values: npt.ArrayLike, name: str) -> FloatArray:
    """Return the values as float64 (n,); ValueError for other shapes, nan and infinity."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite: drop the images without a score first")
    return array


def labels_of(groups: Groups | None, n: int, name: str) -> npt.NDArray[Any]:
    """Return the labels (n,) of n values; without any, each value is a group of its own."""
    if groups is None:
        return np.arange(n)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"{name} must have one label for each of the {n} values")
    return labels


def group_sums(values: FloatArray, groups: Groups | None) -> tuple[FloatArray, FloatArray]:
    """Sum and count of each group, float64 (n_groups,) each, ordered by label."""
    if groups is None:
        return values, np.ones_like(values)
    _, index = np.unique(labels_of(groups, len(values), "groups"), return_inverse=True)
    return sums_of(index, values), sums_of(index, np.ones_like(values))


def sums_of(index: npt.NDArray[np.intp], values: FloatArray) -> FloatArray:
    """Sum of the values of each group, float64 (n_groups,); index says whose each value is."""
    return np.bincount(index, weights=values).astype(np.float64, copy=False)


def check_options(resamples: int, confidence: float) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
