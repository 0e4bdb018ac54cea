"""Trains the last blocks of a recipe's transformer to tell photographs from generated images.

Deterministic: every view depends on the recipe's seed, the step and its place in the batch alone,
so a training that was killed goes on from its checkpoint to the very same weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.families.patch_statistics import PatchStatistics
from realbench.detection.training import views
from realbench.detection.training.data import TrainingImage
from realbench.detection.training.fit import view_weights
from realbench.detection.training.recipe import Recipe, Tuning
from realbench.files import write_whole
from realbench.images import read_image

_CHECKPOINT_SECONDS = 120.0
_BATCHES_AHEAD = 3
_GREATEST_NORM = 1.0  # of a step's gradient


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is, as its progress file says.

    Attributes:
        step, steps: done, and in all.
        loss: mean of the last steps' cross-entropy, in nats.
    """

    step: int
    steps: int
    loss: float

    @classmethod
    def read(cls, path: Path) -> Progress | None:
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def progress_file(checkpoint: Path) -> Path:
    """Return the file beside a checkpoint that tells how far the training is."""
    return checkpoint.with_suffix(".progress.json")


def tune(
    network: PatchStatistics,
    images: Sequence[TrainingImage],
    recipe: Recipe,
    fold: int | None,
    pixels: Squares,
    checkpoint: Path,
) -> None:
    """Train the tuned blocks of ``network`` and the layer above them, in place.

    Args:
        network: of the recipe, with its pretrained transformer.
        images: those that ``fold`` may not learn from are left out, and round trips.
        fold: None for the final training, on all of them.
        pixels: of ``images``, in their order.
        checkpoint: written every two minutes; a training goes on from there.
    """
    tuning = recipe.tuned
    assert tuning is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    network.to(device).requires_grad_(False)
    if tuning.lora_rank:
        _add_lora(network.tail, tuning.lora_rank)
    else:
        network.tail.requires_grad_(True)
    network.tuned.requires_grad_(True)
    layer: Any = network.tuned[1]
    nn.init.zeros_(layer.weight)  # so that the blocks start from what they are
    nn.init.zeros_(layer.bias)
    blocks = [p for p in network.tail.parameters() if p.requires_grad]
    head = list(network.tuned.parameters())
    rate = tuning.learning_rate
    optimizer = torch.optim.AdamW(
        [
            {"params": blocks, "lr": rate, "weight_decay": 0.05},
            {"params": head, "lr": rate * tuning.head_factor, "weight_decay": 0.01},
        ]
    )
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, tuning.steps))
    trained = [*blocks, *head]
    mean = [p.detach().clone() for p in trained]
    start = _load(checkpoint, trained, mean, optimizer, rates)
    saved = time.monotonic()
    losses: list[float] = []
    for step, (batch, real) in enumerate(_batches(images, recipe, fold, pixels, start), start):
        loss = _loss(network, batch.to(device), real.to(device), tuning)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, _GREATEST_NORM)
        optimizer.step()
        rates.step()
        kept = min(tuning.running_mean, (1 + step) / (10 + step))  # short at first
        for average, value in zip(mean, trained, strict=True):
            average.lerp_(value.detach(), 1 - kept)
        losses = [*losses[-19:], float(loss.detach())]
        _tell(progress_file(checkpoint), step + 1, tuning.steps, losses)
        if time.monotonic() - saved > _CHECKPOINT_SECONDS or step + 1 == tuning.steps:
            _save(checkpoint, step + 1, trained, mean, optimizer, rates)
            saved = time.monotonic()
    with torch.no_grad():
        for average, value in zip(mean, trained, strict=True):
            value.copy_(average)
        layer.weight.mul_(tuning.weight)
        layer.bias.mul_(tuning.weight)
    if tuning.lora_rank:
        _merge_lora(network.tail)
    network.to("cpu").requires_grad_(False)


def _loss(network: PatchStatistics, batch: Tensor, real: Tensor, tuning: Tuning) -> Tensor:
    """Return the cross-entropy with smoothed labels (Szegedy et al. 2016, section 7)."""
    with torch.no_grad():
        tokens = network.tokens(batch.permute(0, 3, 1, 2).float())
    logits = network.tuned_logits(tokens)
    smooth = tuning.label_smoothing
    return functional.binary_cross_entropy_with_logits(logits, real * (1 - 2 * smooth) + smooth)


def _rate(step: int, steps: int) -> float:
    rising = min(1.0, (step + 1) / max(1, steps // 10))
    return rising * 0.5 * (1 + math.cos(math.pi * step / steps))


def _batches(
    images: Sequence[TrainingImage], recipe: Recipe, fold: int | None, pixels: Squares, start: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield views, uint8 (n, S, S, 3), and whether they are of photographs, float32 (n,)."""
    tuning = recipe.tuned
    assert tuning is not None
    usable = np.array(
        [
            n
            for n, image in enumerate(images)
            if image.trains(fold)
            and not image.round_trip
            and image.source not in recipe.never_train
        ]
    )
    weights = view_weights(usable, images, recipe)
    is_real = np.array([images[n].real for n in usable])
    half = tuning.batch_size // 2
    classes = [(usable[c], weights[c] / weights[c].sum()) for c in (is_real, ~is_real)]

    def view(step: int, slot: int, index: int) -> np.ndarray:
        rng = np.random.default_rng([recipe.seed, 3, step, slot])
        return views.tuning_view(pixels[index], images[index].real, recipe, rng)

    def begin(step: int) -> tuple[list[Future[np.ndarray]], Tensor]:
        rng = np.random.default_rng([recipe.seed, 4, step])
        drawn = np.concatenate([rng.choice(own, half, p=p) for own, p in classes])
        made = [pool.submit(view, step, slot, int(n)) for slot, n in enumerate(drawn)]
        return made, torch.tensor([images[n].real for n in drawn], dtype=torch.float32)

    with ThreadPoolExecutor(2) as pool:
        waiting = [begin(step) for step in range(start, min(start + _BATCHES_AHEAD, tuning.steps))]
        for step in range(start, tuning.steps):
            made, real = waiting.pop(0)
            if step + _BATCHES_AHEAD < tuning.steps:
                waiting.append(begin(step + _BATCHES_AHEAD))
            yield torch.from_numpy(np.stack([one.result() for one in made])), real


def _tell(path: Path, step: int, steps: int, losses: Sequence[float]) -> None:
    said = json.dumps({"step": step, "steps": steps, "loss": round(sum(losses) / len(losses), 4)})
    write_whole(path, lambda partial: partial.write_text(said, encoding="utf-8"))


def _save(
    path: Path,
    step: int,
    trained: Sequence[Tensor],
    mean: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    rates: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    state: dict[str, Any] = {
        "step": step,
        "trained": [value.detach() for value in trained],
        "mean": list(mean),
        "optimizer": optimizer.state_dict(),
        "rates": rates.state_dict(),
    }
    write_whole(path, lambda partial: torch.save(state, partial))


def _load(
    path: Path,
    trained: Sequence[Tensor],
    mean: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    rates: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    """Restore a checkpoint, if there is one, and return the number of steps that were done."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    with torch.no_grad():
        for own, kept in ((trained, state["trained"]), (mean, state["mean"])):
            for value, saved in zip(own, kept, strict=True):
                value.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    rates.load_state_dict(state["rates"])
    return int(state["step"])


def _add_lora(blocks: nn.Module, rank: int) -> None:
    """Put low-rank changes beside the blocks' matrices, which stay as they are until merged."""
    from peft import LoraConfig, inject_adapter_in_model

    names = [name for name, layer in blocks.named_modules() if isinstance(layer, nn.Linear)]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
    inject_adapter_in_model(config, blocks)


def _merge_lora(blocks: nn.Module) -> None:
    from peft.tuners.lora import LoraLayer

    for name, layer in list(blocks.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            blocks.set_submodule(name, layer.get_base_layer())


class Squares:
    """The centred squares of images, uint8 RGB, in a file that is mapped into memory.

    Worker processes share it, so that a picture is decoded once, not once a fold.
    """

    def __init__(self, folder: Path) -> None:
        self._pixels = np.memmap(folder / "squares.raw", np.uint8, "r")
        self._sides = np.load(folder / "sides.npy")
        self._ends = np.cumsum(3 * np.square(self._sides, dtype=np.int64))

    def __getitem__(self, index: int) -> np.ndarray:
        side, end = int(self._sides[index]), int(self._ends[index])
        return np.array(self._pixels[end - 3 * side * side : end]).reshape(side, side, 3)

    @classmethod
    def write(cls, folder: Path, images: Sequence[TrainingImage], side: int) -> None:
        """Write the squares of ``images``, at most ``side`` pixels wide, where they are not yet."""
        if (folder / "sides.npy").exists():  # written last
            return
        folder.mkdir(parents=True, exist_ok=True)
        sides = []
        with ThreadPoolExecutor(2) as pool, (folder / "squares.raw").open("wb") as file:
            for some in batched(images, 64):
                for one in pool.map(lambda image: views.square(read_image(image.path), side), some):
                    sides.append(len(one))
                    file.write(one.tobytes())
        np.save(folder / "sides.npy", np.array(sides))


def batched(images: Sequence[TrainingImage], size: int) -> Iterator[Sequence[TrainingImage]]:
    """Yield runs of at most ``size`` images (``itertools.batched`` comes with Python 3.12)."""
    for start in range(0, len(images), size):
        yield images[start : start + size]
