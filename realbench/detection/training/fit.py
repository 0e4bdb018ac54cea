"""Fits one network: sampling, optimisation, averaged weights; the same result for a seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from realbench.detection import perturbations
from realbench.detection.families.network import TimmNetwork
from realbench.detection.training import augment
from realbench.detection.training.data import TrainingImage
from realbench.detection.training.pretrained import imagenet_weights
from realbench.detection.training.recipe import Recipe
from realbench.errors import UsageError
from realbench.images import read_image

SEMANTIC_STORE = 256  # the largest picture that the semantic level may see

Progress = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class _Kind:
    images: list[TrainingImage]
    weights: np.ndarray
    share: float


class Sampler:
    """Draws augmented views with their labels, by the recipe's shares.

    Inside a kind, a source counts with the square root of its size, so that large sources do
    not drown small ones.
    """

    def __init__(self, images: Sequence[TrainingImage], recipe: Recipe, seed: int) -> None:
        self.recipe = recipe
        self.rng = np.random.default_rng(seed)
        usable = [i for i in images if i.source not in recipe.never_train]
        self._kinds = _kinds(usable, recipe)
        shares = [kind.share for kind in self._kinds] + [recipe.shares.synthetic]
        self._shares = np.array(shares) / sum(shares)
        self._pixels = {i.path: stored(i, recipe) for i in usable}

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return uint8 views (n, 3, S, S) and float labels (n,), 1 for real."""
        views, labels = zip(*(self._one() for _ in range(self.recipe.batch_size)), strict=True)
        stacked = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
        return stacked, torch.tensor(labels, dtype=torch.float32)

    def _one(self) -> tuple[np.ndarray, float]:
        recipe, rng, size = self.recipe, self.rng, self.recipe.train_size
        semantic = recipe.kind == "semantic"
        index = rng.choice(len(self._shares), p=self._shares)
        real = False
        if index == len(self._kinds):
            view = augment.synthetic(size if semantic else size + 16, rng)
        else:
            kind = self._kinds[index]
            image = kind.images[rng.choice(len(kind.images), p=kind.weights)]
            real = image.real
            cut = augment.semantic_view if semantic else augment.trace_view
            view = cut(self._pixels[image.path], size, rng)
        if not real and rng.random() < recipe.degraded_share:
            reduction = perturbations.MATCHED_SIZE / recipe.input_size if semantic else 1.0
            view = augment.degrade(view, reduction, rng)
        return augment.cut(augment.shared_processing(view, rng), size, rng), float(real)


def stored(image: TrainingImage, recipe: Recipe) -> np.ndarray:
    """Return the pixels that training keeps of an image: uint8 RGB (H, W, 3)."""
    pixels = read_image(image.path)
    if recipe.kind != "semantic":
        return pixels
    square = Image.fromarray(np.ascontiguousarray(perturbations.center_square(pixels)))
    return np.array(square.resize((SEMANTIC_STORE, SEMANTIC_STORE), Image.Resampling.LANCZOS))


def _kinds(images: Sequence[TrainingImage], recipe: Recipe) -> list[_Kind]:
    shares = recipe.shares
    generated = {name: share for name, share in shares.generated.items() if share > 0}
    groups: list[tuple[list[TrainingImage], float]] = [
        ([i for i in images if i.round_trip], shares.round_trip)
    ]
    for name, share in generated.items():
        chosen = [i for i in images if not i.real and not i.round_trip and name in ("*", i.subset)]
        groups.append((chosen, share))
    rest = 1 - shares.round_trip - shares.synthetic - sum(generated.values())
    groups.append(([i for i in images if i.real], rest))
    if not groups[-1][0] or not any(chosen for chosen, _ in groups[1:-1]):
        raise UsageError("training needs photographs and generated images, and one is missing")
    return [_Kind(chosen, _weights(chosen), share) for chosen, share in groups if chosen]


def _weights(images: Sequence[TrainingImage]) -> np.ndarray:
    sizes = Counter((i.subset, i.source) for i in images)
    weights = np.array([sizes[i.subset, i.source] ** -0.5 for i in images])
    return weights / weights.sum()


def build_network(recipe: Recipe, *, train: bool = False) -> nn.Module:
    """Build the recipe's network with random weights."""
    options = dict(recipe.options)
    if train:
        options |= {"drop_rate": recipe.dropout, "drop_path_rate": 0.1}
    return TimmNetwork(recipe.architecture, **options)


def fit(
    images: Sequence[TrainingImage], recipe: Recipe, seed: int, progress: Progress | None = None
) -> nn.Module:
    """Fine-tune an ImageNet network to tell photographs from generated images.

    The loss is binary cross-entropy with smoothed labels; the returned weights are an
    exponential moving average over the steps. Deterministic for a seed on one thread.

    Args:
        images: what may be learned from.
        progress: called every 25 steps with the step and the mean loss since the last call.

    Returns:
        the network in eval mode.
    """
    torch.manual_seed(seed)
    sampler = Sampler(images, recipe, seed)
    network = build_network(recipe, train=True)
    backbone: nn.Module = network.backbone  # type: ignore[assignment]
    imagenet_weights(backbone, recipe.architecture)
    network.to(memory_format=torch.channels_last)
    optimizer = _optimizer(network, backbone, recipe)
    peaks = [group["lr"] for group in optimizer.param_groups]
    average = {name: value.clone() for name, value in network.state_dict().items()}
    losses: list[float] = []
    _train_mode(network, recipe)
    for step in range(recipe.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * _schedule(step, recipe.steps)
        views, labels = sampler.batch()
        smoothed = labels * (1 - recipe.label_smoothing) + recipe.label_smoothing / 2
        loss = functional.binary_cross_entropy_with_logits(network(views.float()), smoothed)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        _update_average(average, network, step)
        losses.append(loss.item())
        if progress and (step + 1) % 25 == 0:
            progress(step + 1, float(np.mean(losses[-25:])))
    network.load_state_dict(average)
    return network.eval()


def _optimizer(network: nn.Module, backbone: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    head = list(backbone.get_classifier().parameters())  # type: ignore[operator]
    for parameter in head:
        nn.init.zeros_(parameter)
    if recipe.frozen_stages:
        frozen = [backbone.conv_stem, backbone.bn1, *backbone.blocks[: recipe.frozen_stages]]  # type: ignore[index]
        for module in frozen:
            module.requires_grad_(False)
    known = {id(parameter) for parameter in head}
    body = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    rate = recipe.learning_rate
    groups = [
        {"params": body, "lr": rate},
        {"params": head, "lr": rate * recipe.head_multiplier},
    ]
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)


def _train_mode(network: nn.Module, recipe: Recipe) -> None:
    network.train()
    if recipe.frozen_batch_norm:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / 30)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-3


def _update_average(average: dict[str, torch.Tensor], network: nn.Module, step: int) -> None:
    decay = min(0.99, (2 + step) / (11 + step))
    for name, value in network.state_dict().items():
        if value.dtype.is_floating_point:
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
