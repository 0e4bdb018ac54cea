"""Judges a fold's network on what it never saw, in the matched protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from realbench.detection import perturbations as p
from realbench.detection.families.embedded import native_crops, whole_image
from realbench.detection.families.views import raw_logits
from realbench.detection.training.data import TrainingImage
from realbench.detection.training.recipe import Recipe
from realbench.images import read_image

Change = Callable[[np.ndarray], np.ndarray]

NATIVE = "native protocol"
NUMBER_OF_REENCODED = 32  # held-out images per fold whose verdicts are asked for again
NUMBER_OF_DEGRADED = 32  # held-out generated images per fold in the hard-to-fool benchmark


def degradations(seed: int = 0) -> dict[str, Change]:
    """Return the degradations that must not raise the realism of a generated image."""
    rng = np.random.default_rng(seed)
    changes: dict[str, Change] = {}
    for sigma in (1, 2, 3):
        changes[f"blur σ={sigma}"] = partial(p.blur, sigma=sigma)
    for sigma in (2, 5, 10, 20):
        changes[f"noise σ={sigma}"] = partial(p.noise, sigma=sigma, rng=rng)
    for quality in (30, 50, 70, 95):
        changes[f"JPEG q={quality}"] = partial(p.jpeg, quality=quality)
    for factor in (1.5, 2, 4):
        changes[f"down-up ×{factor}"] = partial(p.down_up, factor=factor)
    changes["up-down ×2"] = partial(p.up_down, factor=2)
    for percent in (80, 200):
        changes[f"sharpen {percent} %"] = partial(p.sharpen, percent=percent)
    return changes


def reencodings() -> dict[str, Change]:
    """Return what happens to pictures on their way through the web, after which verdicts stand."""
    changes: dict[str, Change] = {}
    for quality in (70, 80, 90, 95):
        changes[f"again as JPEG q={quality}"] = partial(p.jpeg, quality=quality)
    for percent in (90, 110):
        changes[f"rescaled to {percent} %"] = partial(p.rescale, factor=percent / 100)
    return changes


def blank_pictures(size: int = 512, seed: int = 0) -> dict[str, np.ndarray]:
    """Return pictures of nothing, uint8 (size, size, 3), that must score under 0.1."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    horizontal = np.repeat(np.tile(ramp, (size, 1))[..., None], 3, axis=2)
    gray_noise = np.clip(rng.normal(128, 30, (size, size, 1)), 0, 255).astype(np.uint8)
    return {
        "uniform noise": rng.integers(0, 256, (size, size, 3), np.uint8),
        "Gaussian noise": np.clip(rng.normal(128, 50, (size, size, 3)), 0, 255).astype(np.uint8),
        "gray Gaussian noise": np.repeat(gray_noise, 3, axis=2),
        "black": np.zeros((size, size, 3), np.uint8),
        "white": np.full((size, size, 3), 255, np.uint8),
        "flat gray": np.full((size, size, 3), 128, np.uint8),
        "flat color": np.full((size, size, 3), (200, 30, 60), np.uint8),
        "gray gradient": horizontal,
        "color gradient": np.stack(
            [horizontal[..., 0], ramp[:, None] + 0 * horizontal[..., 0], 255 - horizontal[..., 0]],
            axis=2,
        ),
    }


@torch.inference_mode()
def network_logits(network: nn.Module, images: Iterable[np.ndarray], recipe: Recipe) -> np.ndarray:
    """Return the uncalibrated logits of uint8 RGB images as the loaded detector would."""
    values = []
    for image in images:
        if recipe.kind == "semantic":
            views = whole_image(image, recipe.input_size, Image.Resampling.BICUBIC)
        else:
            views = native_crops(image, recipe.input_size, round(recipe.views**0.5))
        batch = torch.from_numpy(views).permute(0, 3, 1, 2)[None]
        values.append(raw_logits(network, batch, torch.device("cpu")).item())
    return np.array(values)


def held_out_scores(
    network: nn.Module,
    images: Sequence[TrainingImage],
    recipe: Recipe,
    fold: int,
    *,
    calibrates_only: bool = False,
) -> pd.DataFrame:
    """Score a fold's held-out images, and degraded copies of some generated ones.

    Args:
        calibrates_only: score what a calibration is fitted on, and no more.

    Returns:
        a row per score: fold, path, real, source, subset, round_trip, change, logit. Changes
        come after the matched protocol, but for ``NATIVE``, the native protocol instead.
    """
    rng = np.random.default_rng(fold)
    left_out = (*recipe.never_train, *recipe.unscored_subsets)
    held_out = [
        i for i in images if i.tests(fold) and i.source not in left_out and i.subset not in left_out
    ]
    if calibrates_only:
        held_out = [image for image in held_out if not image.round_trip]
    whole = [p.matched(read_image(image.path), recipe.matched_size) for image in held_out]
    rows: list[tuple[object, ...]] = [
        (fold, image.path, image.real, image.source, image.subset, image.round_trip, "unchanged")
        for image in held_out
    ]
    logits = list(network_logits(network, whole, recipe))
    columns = ["fold", "path", "real", "source", "subset", "round_trip", "change"]
    if calibrates_only:
        return pd.DataFrame(rows, columns=columns).assign(logit=logits)
    rows += [(*row[:-1], NATIVE) for row in rows]
    middles = (p.native(read_image(image.path), recipe.matched_size) for image in held_out)
    logits += list(network_logits(network, middles, recipe))
    generated = [n for n, i in enumerate(held_out) if not i.real and not i.round_trip]
    chosen = rng.permutation(generated)[:NUMBER_OF_DEGRADED]
    for name, change in degradations(fold).items():
        rows += [(*rows[n][:-1], name) for n in chosen]
        logits += list(network_logits(network, (change(whole[n]) for n in chosen), recipe))
    shown = [n for n, i in enumerate(held_out) if not i.round_trip]
    shown = [int(n) for n in rng.permutation(shown)[:NUMBER_OF_REENCODED]]
    for name, change in reencodings().items():
        rows += [(*rows[n][:-1], name) for n in shown]
        logits += list(network_logits(network, (change(whole[n]) for n in shown), recipe))
    for name, picture in blank_pictures(recipe.matched_size, seed=fold).items():
        rows.append((fold, None, False, "blank", "blank", False, name))
        logits += list(network_logits(network, [picture], recipe))
    broken = [
        i
        for i in images
        if i.source in recipe.never_train and i.subset not in recipe.unscored_subsets
    ]
    rows += [(fold, i.path, False, i.source, "broken", False, "unchanged") for i in broken]
    matched = (p.matched(read_image(i.path), recipe.matched_size) for i in broken)
    logits += list(network_logits(network, matched, recipe))
    return pd.DataFrame(rows, columns=columns).assign(logit=logits)
