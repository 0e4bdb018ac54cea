"""Training views: which part of which image is seen, and what has happened to it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from realbench import rendering
from realbench.detection import perturbations
from realbench.detection.training import augment
from realbench.detection.training.recipe import Recipe

_AS_MATCHED = 0.35
SEMANTIC_STORE = 256  # the largest picture that the semantic level may see


def stored(pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return what views of an image are cut from: uint8 RGB (H, W, 3), as are ``pixels``."""
    if recipe.kind != "semantic":
        return pixels
    square = Image.fromarray(np.ascontiguousarray(perturbations.center_square(pixels)))
    return np.array(square.resize((SEMANTIC_STORE, SEMANTIC_STORE), Image.Resampling.LANCZOS))


def view_of(pixels: np.ndarray, real: bool, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Return an augmented view; some of those of generated images are strongly degraded.

    Every third view or so is as the matched protocol has it, and nothing else happened to it.

    Args:
        pixels: from :func:`stored`.

    Returns:
        uint8 RGB (S, S, 3), S being the recipe's ``input_size``.
    """
    size, semantic = recipe.input_size, recipe.kind == "semantic"
    if rng.random() < _AS_MATCHED:
        cut = augment.whole_view if semantic else augment.matched_view
        return augment.cut(cut(pixels, size, rng), size, rng)
    cut = augment.semantic_view if semantic else augment.trace_view
    view = cut(pixels, size, rng)
    if not real and rng.random() < recipe.degraded_share:
        reduction = perturbations.MATCHED_SIZE / size if semantic else 1.0
        view = augment.degrade(view, reduction, rng)
    return augment.cut(augment.shared_processing(view, rng), size, rng)


def nothing(recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Return a picture of nothing, processed as views are: uint8 RGB (S, S, 3)."""
    size = recipe.input_size
    picture = augment.synthetic(size if recipe.kind == "semantic" else size + 16, rng)
    return augment.cut(augment.shared_processing(picture, rng), size, rng)


def render(recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Return a computer-generated scene, as :func:`stored` returns an image.

    Plain renders are unlike anything that generators make, and as little like photographs.
    """
    scene = (rendering.spheres, rendering.mountains)[rng.integers(2)]
    return stored(scene(int(rng.integers(400, 900)), int(rng.integers(1000, 2**31))), recipe)
