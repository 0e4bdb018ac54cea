"""The network of a recipe: pretrained, cut, and rounded as it will be shipped."""

from __future__ import annotations

from realbench.detection.families.patch_statistics import PatchStatistics
from realbench.detection.training.pretrained import load_pretrained
from realbench.detection.training.recipe import Recipe
from realbench.detection.weights import pack, unpack


def build_network(recipe: Recipe) -> PatchStatistics:
    """Build the recipe's network with random weights, in evaluation mode."""
    network = PatchStatistics(
        recipe.architecture, recipe.input_size, recipe.blocks, **recipe.options
    )
    return network.eval().requires_grad_(False)


def pretrained_network(recipe: Recipe) -> PatchStatistics:
    """Build the recipe's network with its pretrained transformer; what is above it is unfitted.

    The weights are rounded as their file rounds them, so that what is fitted above learns from
    what the shipped network computes.

    Raises:
        UsageError: the pretrained weights are not to be had.
    """
    network = build_network(recipe)
    load_pretrained(network.backbone, recipe.architecture)
    network.load_state_dict(unpack(pack(network.state_dict())))
    return network
