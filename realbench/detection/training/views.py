"""Training views: which part of which image is seen, and what has happened to it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from realbench import rendering
from realbench.detection import perturbations
from realbench.detection.perturbations import MATCHED_SIZE
from realbench.detection.training import augment
from realbench.detection.training.recipe import Recipe

_AS_MATCHED = 0.35
_NOISY = 0.6  # of the further views of generated images
_CUT = 8  # pixels by which a view is cut smaller, at a random offset


def stored(pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return what views of an image are cut from: uint8 RGB (H, W, 3), as are ``pixels``."""
    return square(pixels, recipe.matched_size) if recipe.kind == "semantic" else pixels


def square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return the centred square of uint8 RGB (H, W, 3), scaled down to ``side`` if it is larger."""
    whole = np.ascontiguousarray(perturbations.center_square(pixels))
    if len(whole) <= side:
        return whole
    return np.array(Image.fromarray(whole).resize((side, side), Image.Resampling.LANCZOS))


def tuning_view(
    pixels: np.ndarray, real: bool, recipe: Recipe, rng: np.random.Generator
) -> np.ndarray:
    """Return an augmented view to train blocks on: of the whole picture, or of a part of it.

    Both classes go through the same re-encoding at the picture's own scale, cutting, scaling,
    recolouring, blur, noise and compression; ``degraded_share`` of generated views are degraded.

    Args:
        pixels: from :func:`square`.

    Returns:
        uint8 RGB (S, S, 3), S being the recipe's ``input_size``.
    """
    assert recipe.tuned is not None
    size = recipe.input_size
    if rng.random() < 0.5:
        pixels = perturbations.jpeg(pixels, int(rng.uniform(60, 97)))
    part = augment.random_part(pixels, size + _CUT, (recipe.tuned.smallest_area, 1.0), 0.3, rng)
    view = np.ascontiguousarray(augment.cut(part, size, rng))
    if rng.random() < 0.4:
        view = augment.recolor(view, rng)
    if rng.random() < 0.15:
        view = perturbations.blur(view, rng.uniform(0.2, 1.2))
    if rng.random() < 0.15:
        view = perturbations.noise(view, rng.uniform(0.5, 6), rng)
    if rng.random() < 0.5:
        view = perturbations.jpeg(view, int(rng.uniform(40, 96)))
    if not real and rng.random() < recipe.tuned.degraded_share:
        reduction = recipe.matched_size / size
        view = augment.degrade(view, reduction, recipe.strongest_noise, rng)
    return view


def view_of(pixels: np.ndarray, real: bool, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Return an augmented view; some of those of generated images are strongly degraded.

    Every third view or so is as the matched protocol has it, and nothing else happened to it.

    Args:
        pixels: from :func:`stored`.

    Returns:
        uint8 RGB (S, S, 3), S being the recipe's ``input_size``.
    """
    size, semantic = recipe.input_size, recipe.kind == "semantic"
    matched_size = recipe.matched_size
    if rng.random() < _AS_MATCHED:
        if semantic:
            whole = perturbations.jpeg(pixels, perturbations.MATCHED_QUALITY)
            return augment.cut(augment.whole_view(whole, size, rng), size, rng)
        return augment.cut(augment.matched_view(pixels, size, rng, matched_size), size, rng)
    share = 0.0 if real else recipe.degraded_share
    if semantic:  # at the picture's own scale, where one degrades: scaling down hides some of it
        if share and rng.random() < share:
            pixels = _degraded(pixels, recipe, rng)
        view = augment.semantic_view(pixels, _side(recipe), rng)
    else:
        view = augment.trace_view(pixels, size, rng, matched_size)
        if share and rng.random() < share:
            view = _degraded(view, recipe, rng)
    return _cut(augment.shared_processing(view, rng), recipe, rng)


def degraded_view(pixels: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Return a view of a generated picture with noise or less detail, and what else may happen.

    Args:
        pixels: from :func:`stored`.

    Returns:
        uint8 RGB (S, S, 3), S being the recipe's ``input_size``.
    """
    strengths = (recipe.weakest_noise, recipe.strongest_noise)
    if rng.random() < _NOISY:
        pixels = augment.noisy(pixels, 1.0, strengths, rng)
    else:
        pixels = augment.coarser(pixels, (1.3, 3.0), rng)
    if recipe.kind == "semantic":
        view = augment.semantic_view(pixels, _side(recipe), rng)
    else:
        view = augment.trace_view(pixels, recipe.input_size, rng, recipe.matched_size)
    return _cut(augment.shared_processing(view, rng), recipe, rng)


def _degraded(pixels: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    return augment.degrade(pixels, 1.0, recipe.strongest_noise, rng, recipe.weakest_noise)


def nothing(recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Return a picture of nothing, processed as views are: uint8 RGB (S, S, 3)."""
    side = _side(recipe)
    picture = augment.synthetic(side if recipe.kind == "semantic" else side + 16, rng)
    return _cut(augment.shared_processing(picture, rng), recipe, rng)


def _side(recipe: Recipe) -> int:
    """Return the side at which a view is processed: pictures below the input are enlarged last."""
    smaller = recipe.kind == "semantic" and recipe.matched_size < recipe.input_size
    return recipe.matched_size if smaller else recipe.input_size


def _cut(view: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    size = recipe.input_size
    if _side(recipe) < size:
        view = augment.whole_view(view, size, rng)
    return augment.cut(view, size, rng)


def render(recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Return a computer-generated scene, as :func:`stored` returns an image.

    Plain renders are unlike anything that generators make, and as little like photographs.
    """
    scene = (rendering.spheres, rendering.mountains)[rng.integers(2)]
    # At least about twice the size at which it is judged, so that scaling smooths its edges.
    largest = min(1.0, 2 * recipe.matched_size / MATCHED_SIZE)
    size = round(int(rng.integers(400, 900)) * largest)
    return stored(scene(size, int(rng.integers(1000, 2**31))), recipe)
