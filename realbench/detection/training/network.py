"""The network of a recipe: pretrained, cut, and rounded as it will be shipped."""

from __future__ import annotations

from realbench.detection.cards import Card
from realbench.detection.families.patch_statistics import PatchStatistics
from realbench.detection.training.pretrained import load_pretrained, load_tail
from realbench.detection.training.recipe import Recipe
from realbench.detection.weights import load_weights, pack, unpack
from realbench.errors import UsageError


def build_network(recipe: Recipe) -> PatchStatistics:
    """Build the recipe's network with random weights, in evaluation mode."""
    network = PatchStatistics(
        recipe.architecture,
        recipe.input_size,
        recipe.blocks,
        class_token=recipe.class_token,
        tuned=recipe.tuned.blocks if recipe.tuned else None,
        **recipe.options,
    )
    return network.eval().requires_grad_(False)


def pretrained_network(recipe: Recipe, start: Card | None = None) -> PatchStatistics:
    """Build the recipe's network with its pretrained transformer; what is above it is unfitted.

    The weights are rounded as their file rounds them, so that what is fitted above learns from
    what the shipped network computes.

    Args:
        start: a trained detector whose whole network is taken instead.

    Raises:
        UsageError: the pretrained weights are not to be had, or ``start`` has another network.
    """
    network = build_network(recipe)
    if start is not None:
        check_start(start, recipe)
        load_weights(network, start)
        return network
    load_pretrained(network.backbone, recipe.architecture)
    if recipe.tuned is not None:
        load_tail(network.tail, recipe.architecture)
    network.load_state_dict(unpack(pack(network.state_dict(), recipe.bits)))
    return network


def check_start(start: Card, recipe: Recipe) -> None:
    """Refuse a detector to start from that has not the recipe's network.

    Raises:
        UsageError: that.
    """
    tuned = recipe.tuned.blocks if recipe.tuned else None
    wanted = (recipe.architecture, recipe.input_size, sorted(recipe.blocks), tuned)
    model = start.model
    if wanted != (model.architecture, start.input.size, sorted(model.blocks), model.tuned):
        raise UsageError(
            f"{start.name} has another network than the recipe: name the recipe that it was "
            "trained by, or give --from-scratch"
        )
