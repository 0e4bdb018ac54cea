"""What in a picture sways a judge besides its realism: Bradley–Terry with covariates per picture.

The log-odds of a against b on a prompt are the difference of their ratings plus, for each
covariate, its effect times the difference of the two pictures in it, as text arenas control for
length and style. So the ratings are those that pictures would have that are alike in all
covariates, as far as these work the same way for every contestant. Covariates are standardized over
all pictures: an effect is what one standard deviation more is worth, in points of rating.

A covariate that hardly varies within the contestants, such as the size of models that have one
each, cannot be told from them: it is left out and named.

Ties are half wins, and virtual ties are added, as in :mod:`realbench.arena.bradley_terry`; the
effects are held by a prior that weighs as much as one even comparison. Intervals are of a bootstrap
over prompts, of the solution's linear form: each resample moves it by its prompts' influences,
which are those of the jackknife. That form knows no end where a contestant has hardly won or hardly
lost: its rating then has no interval here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage, special

from realbench.arena.bradley_terry import MEAN, POINTS, virtual_ties
from realbench.arena.ranking import contestant_prompts, order_of
from realbench.arena.records import Nuisances
from realbench.arena.tally import FloatArray, Tally, from_draws, tally, without_interval
from realbench.arena.votes import Comparison
from realbench.images import UnreadableImage, format_and_size, read_image
from realbench.stats.bootstrap import draw_weights
from realbench.stats.record import Estimate

COVARIATES = (
    *("sharpness", "saturation", "contrast", "brightness", "noise"),
    *("size", "bytes a pixel", "JPEG"),
)
"""Sharpness: the logarithm of the variance of the Laplacian; saturation: the mean of HSV's;
contrast and brightness: standard deviation and mean of the luma in [0, 1]; noise: the logarithm of
Immerkær's estimate (1996, Comput. Vis. Image Underst. 64:300-302); size and bytes a pixel: the
logarithms of the file's pixels and of its bytes for each; JPEG: 1 where the file is one."""

_SIDE = 1024  # pixels; pictures are measured as a judge sees them, scaled down to this
_THREADS = 4
_LEAST_WITHIN = 0.01  # of a covariate's variance, what lies within contestants
_LEAST_RESULTS = 5  # wins and losses, ties half, of a contestant whose rating has an interval
_PRIOR = 0.25  # the information of one even comparison
_LAPLACIAN_OF_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])

Key = tuple[str, str]
"""A contestant and a prompt's id."""


def measure_pictures(pictures: Mapping[Key, Path]) -> dict[Key, FloatArray]:
    """Return each picture's :data:`COVARIATES`, float64 (8,); unreadable ones are left out."""
    with ThreadPoolExecutor(_THREADS, "realbench-nuisances") as pool:
        found = zip(pictures, pool.map(_measure, pictures.values()), strict=True)
        return {key: values for key, values in found if values is not None}


def _measure(path: Path) -> FloatArray | None:
    try:
        picture = Image.fromarray(read_image(path))
        kind, width, height = format_and_size(path)
        weight = path.stat().st_size
    except (UnreadableImage, OSError):
        return None
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    rgb = np.asarray(picture, dtype=np.float64) / 255
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    highest = rgb.max(axis=2)
    saturation = (highest - rgb.min(axis=2)) / np.maximum(highest, 1e-9)
    grain = np.abs(ndimage.convolve(luma, _LAPLACIAN_OF_LAPLACIAN)).mean() * np.sqrt(np.pi / 2) / 6
    return np.array(
        [
            np.log(ndimage.laplace(luma).var() + 1e-8),
            saturation.mean(),
            luma.std(),
            luma.mean(),
            np.log(grain + 1e-5),
            np.log(width * height),
            np.log(weight / (width * height)),
            float(kind == "JPEG"),
        ]
    )


def controlled(
    comparisons: Iterable[Comparison],
    measured: Mapping[Key, FloatArray],
    contestants: Sequence[str],
    *,
    resamples: int,
    seed: int,
    names: Sequence[str] = COVARIATES,
) -> Nuisances | str:
    """Rate with the covariates held equal, and without them on the same comparisons.

    Args:
        comparisons: One a pair and prompt; those of pictures that are not measured take no part.
        measured: Each picture's covariates (c,).
        contestants: All names.
        resamples, seed: Of the bootstrap over prompts.
        names: Of the covariates (c,).

    Returns:
        What ``ratings.json`` holds, or why there are no such ratings.
    """
    used = [
        one
        for one in comparisons
        if (one.a, one.prompt_id) in measured and (one.b, one.prompt_id) in measured
    ]
    counted = tally(used, contestants)
    if len(counted.prompts) < 2:
        return "nuisances: fewer than two prompts with pictures that can be measured"
    prompts = [counted.prompts[n] for n in counted.prompt]
    sides = [
        np.array(
            [measured[contestants[n], p] for n, p in zip(side[counted.pair], prompts, strict=True)]
        )
        for side in (counted.first, counted.second)
    ]
    deviation = np.concatenate(sides).std(axis=0)
    gaps = (sides[0] - sides[1]) / np.where(deviation > 1e-9, deviation, np.inf)
    design = counted.incidence[counted.pair]
    # What of a covariate's differences the contestants do not explain.
    within = gaps - design @ np.linalg.lstsq(design, gaps, rcond=None)[0]
    share = (within**2).sum(axis=0) / np.maximum((gaps**2).sum(axis=0), 1e-12)
    kept = np.flatnonzero((share > _LEAST_WITHIN) & (deviation > 1e-9))
    k = len(contestants)
    weights = draw_weights(np.random.default_rng(seed), len(counted.prompts), resamples)
    rated, drawn = _fit(counted, np.hstack([design, gaps[:, kept]]), weights)
    plain, plain_drawn = _fit(counted, design, weights)
    size, groups = counted.contestant_counts.astype(int), contestant_prompts(counted)
    effects = dict.fromkeys(range(len(names)), without_interval(float("nan"), 0, 0))
    for column, n in enumerate(kept, start=k):
        found = from_draws(
            float(rated[column] * POINTS),
            drawn[:, column] * POINTS,
            counted.n,
            len(counted.prompts),
        )
        effects[int(n)] = found
    won = np.bincount(counted.first, counted.pair_scores, minlength=k)
    won += np.bincount(counted.second, counted.pair_counts - counted.pair_scores, minlength=k)
    bounded = np.minimum(won, size - won) >= _LEAST_RESULTS
    scale = [
        (np.where(size > 0, values[:k] * POINTS + MEAN, np.nan), draws[:, :k] * POINTS + MEAN)
        for values, draws in ((rated, drawn), (plain, plain_drawn))
    ]

    def rating(which: int, n: int) -> Estimate:
        values, draws = scale[which]
        if not bounded[n]:
            return without_interval(float(values[n]), int(size[n]), int(groups[n]))
        return from_draws(float(values[n]), draws[:, n], int(size[n]), int(groups[n]))

    return {
        "n_comparisons": counted.n,
        "ratings": [
            {"contestant": contestants[n], "controlled": rating(0, n), "plain": rating(1, n)}
            for n in order_of(scale[0][0], counted.components())
        ],
        "effects": [
            {"covariate": names[n], "deviation": float(f"{deviation[n]:.6g}"), "effect": effects[n]}
            for n in range(len(names))
        ],
    }


def _fit(counted: Tally, design: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients in log-odds (m,) and those of resamples (rows, m); see the module.

    Args:
        counted: The comparisons.
        design: Their rows (n, m), the contestants' incidence first.
        weights: How often each resample has each prompt (rows, P).
    """
    k, m = len(counted.contestants), design.shape[1]
    labels = counted.components()
    level = np.zeros((m, m))  # fixes each component's mean, and holds the effects
    level[:k, :k] = labels[:, None] == labels[None, :]
    level[range(k, m), range(k, m)] = _PRIOR
    ties = virtual_ties(counted)
    even = np.zeros((len(ties), m))
    even[:, :k] = counted.incidence
    rows = np.vstack([design, even])
    amount = np.concatenate([np.ones(counted.n), ties])
    score = np.concatenate([counted.score, np.full(len(ties), 0.5)])
    found = np.zeros(m)
    for _ in range(100):
        chance = special.expit(rows @ found)
        pull = rows.T @ (amount * (score - chance)) - level @ found
        matrix = (rows * (amount * chance * (1 - chance))[:, None]).T @ rows + level
        step = np.linalg.solve(matrix, pull)
        found = found + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < 1e-9:
            break
    chance = special.expit(design @ found)
    pulls, weight = counted.score - chance, chance * (1 - chance)
    influence = np.zeros((len(counted.prompts), m))
    ends = np.searchsorted(counted.prompt, np.arange(len(counted.prompts) + 1))
    for n, (start, end) in enumerate(pairwise(ends)):  # comparisons stand by prompt
        own = design[start:end]
        # What leaving a prompt out moves, which is a little more than what it adds.
        rest = matrix - (own * weight[start:end, None]).T @ own
        influence[n] = np.linalg.solve(rest, own.T @ pulls[start:end])
    return found, found + (weights - 1) @ influence
