"""Fits the weights of an ensemble on images whose truth is known (logistic stacking)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from realbench.bench.labelled import Labelled, each_detector, named_from, score_labelled
from realbench.detection.cards import Card
from realbench.detection.ensemble import weights as level_weights
from realbench.detection.ensembles import Ensemble, add_ensemble, check_free, find_cards
from realbench.detection.registry import list_detectors
from realbench.detection.specs import Precision
from realbench.errors import UsageError
from realbench.stats import auc
from realbench.stats.bootstrap import Interval, expanded_percentiles
from realbench.stats.record import estimate

_RIDGE = 1e-3  # of the weights, at losses of about 0.5 an image: keeps separable data finite
_RESAMPLES = 1000


def fuse(
    detectors: Sequence[str | Path],
    real: Sequence[Path],
    generated: Sequence[Path],
    *,
    name: str,
    out: Path,
    weights: Mapping[str, Mapping[str, str | Path]] | None = None,
    precision: Precision = "float32",
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Fit non-negative weights of detectors' calibrated logits, and compare with the plain average.

    Each image is judged by weights that were fitted without its generator (without its prompt,
    where there is one generator); the saved ones are fitted on all. The plain average is that of
    an ensemble without weights: each level weighs the same.

    Args:
        out: the ``ensembles.toml`` that receives it, under ``name``.
        weights, precision: as for :func:`realbench.score`.
        options: those of :func:`score_labelled`.

    Returns:
        ``weights`` and ``bias``, ``average`` and ``fusion`` with AUC and log loss,
        ``auc_gained`` and ``log_loss_saved`` by the fusion, whether it ``ranks_better`` and has
        ``better_probabilities`` (intervals above 0), and notes.

    Raises:
        UsageError: fewer than two detectors or 50 images of a class; the name is taken.
    """
    check_free(out, name)
    cards = find_cards(detectors, weights, precision)
    if len(cards) < 2:
        raise UsageError("fusion needs at least two detectors: repeat --detector")
    known = list_detectors()
    members = [
        str(one) if str(one) in known else named_from(out.parent, Path(one))
        for one in each_detector(detectors)
    ]
    labelled = score_labelled(cards, real, generated, **options)
    labelled.need("fusion")
    table = np.stack([labelled.logits[card.name] for card in cards], axis=1)
    shares, bias = fit_weights(table, labelled.real)
    found = _compared(cards, table, labelled, seed)
    found |= {
        "name": name,
        "weights": {c.name: w for c, w in zip(cards, shares.tolist(), strict=True)},
        "bias": bias,
        "path": str(out),
    }
    ensemble = Ensemble(
        description=(
            f"fitted on {int(labelled.real.sum())} photographs and "
            f"{int((~labelled.real).sum())} generated images of {len(labelled.generators)} "
            f"generator{'s' if len(labelled.generators) > 1 else ''}"
        ),
        detectors=tuple(members),
        weights=tuple(shares.tolist()),
        bias=bias,
        path=out,
    )
    add_ensemble(out, name, ensemble)
    return found


def fit_weights(
    logits: np.ndarray, real: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], float]:
    """Fit weights, at least 0, and a bias to the least log loss at even odds.

    Stacking with non-negative weights (Breiman 1996, Machine Learning 24), here of logits and for
    the logistic loss.

    Args:
        logits: float (n, detectors).
        real: (n,), with both classes.

    Returns:
        float64 (detectors,) and the bias, rounded to four digits.

    Raises:
        UsageError: all weights would be 0.
    """
    weights, bias = _fitted(logits, real)
    if not weights.any():
        raise UsageError(
            "none of the detectors tells these photographs from these generated images: there is "
            "nothing to fuse"
        )
    return weights, bias


def _fitted(
    logits: np.ndarray, real: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], float]:
    from scipy.optimize import minimize
    from scipy.special import expit

    x = np.asarray(logits, np.float64)
    importance = 0.5 / np.where(real, real.sum(), (~real).sum())
    target = real.astype(np.float64)

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = point[:-1], point[-1]
        z = x @ w + b
        value = importance @ np.logaddexp(0, np.where(real, -z, z)) + _RIDGE * (w @ w)
        slope = importance * (expit(z) - target)
        return float(value), np.append(x.T @ slope + 2 * _RIDGE * w, slope.sum())

    count = x.shape[1]
    start = np.append(np.full(count, 1 / count), 0.0)
    bounds = [(0.0, None)] * count + [(None, None)]
    best = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    return np.round(best[:-1], 4), round(float(best[-1]), 4)


def _compared(
    cards: Sequence[Card], table: np.ndarray, labelled: Labelled, seed: int
) -> dict[str, Any]:
    real = labelled.real
    share = level_weights({card.name: card.level for card in cards})
    average = table @ np.array([share[card.name] for card in cards])
    fusion = np.empty(len(real))
    folds = labelled.generator_folds()
    of_generators = len(labelled.generators) > 1
    for fold in range(folds.max() + 1):
        mine = folds == fold
        w, b = _fitted(table[~mine], real[~mine])
        fusion[mine] = table[mine] @ w + b
    gained = _auc_gained(average, fusion, labelled, seed)
    saved = labelled.log_loss(fusion, seed, before=average)
    notes = list(labelled.notes)
    if not of_generators:
        notes.append(
            f"{labelled.generators[0]} is the only generator: held out is by prompt, and nothing "
            "tells how the weights do on others"
        )
    return {
        "held_out": "generators" if of_generators else "prompts",
        "n_real": int(real.sum()),
        "n_generated": int((~real).sum()),
        "average": _figures(average, labelled, seed),
        "fusion": _figures(fusion, labelled, seed),
        "auc_gained": estimate(gained),
        "log_loss_saved": estimate(saved),
        "ranks_better": bool(gained.low > 0),
        "better_probabilities": bool(saved.low > 0),
        "notes": notes,
    }


def _figures(logits: np.ndarray, labelled: Labelled, seed: int) -> dict[str, Any]:
    found = {"auc": labelled.area(logits, seed), "log_loss": labelled.log_loss(logits, seed)}
    return {name: estimate(one) for name, one in found.items()}


def _auc_gained(before: np.ndarray, after: np.ndarray, labelled: Labelled, seed: int) -> Interval:
    """Return the rise of the AUC, with an interval over prompts that are drawn for both alike."""
    real = labelled.real
    rng = np.random.default_rng(seed)
    names, group = np.unique(labelled.prompt, return_inverse=True)
    whole = auc(after[real], after[~real]) - auc(before[real], before[~real])
    draws = []
    for _ in range(_RESAMPLES):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[group]
        rows = np.repeat(np.arange(len(real)), times)
        mine = real[rows]
        if mine.any() and not mine.all():
            photos, made = rows[mine], rows[~mine]
            draws.append(auc(after[photos], after[made]) - auc(before[photos], before[made]))
    if len(names) < 2 or len(draws) < 2:
        return Interval(whole, float("nan"), float("nan"), len(real), len(names))
    low, high = expanded_percentiles(np.array(draws), len(names), 0.95)
    return Interval(whole, low, high, len(real), len(names))
