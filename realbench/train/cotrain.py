"""Adversarial co-training: the reward's detectors learn while the generator does.

A fixed detector is an examination whose questions the generator comes to know: its images score
ever higher and no longer look more real. RealGen's second version (arXiv 2512.00473 is the first;
its script ``train_flux_fast_guard_realgen.py`` is what is followed) therefore trains them in turn:
all of them after the first iteration, and then each whose own mean P(real) of an iteration's images
passes a threshold, on photographs versus what the generator now makes, and made before, until it
tells the two apart; then the generator goes on against the new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from realbench.errors import UsageError
from realbench.scoring.scorer import Scorer
from realbench.train.config import CotrainingConfig
from realbench.train.paired import PairedImages, match_compression
from realbench.train.trainable_detector import (
    TrainableDetector,
    can_be_exported,
    can_be_trained,
    export_detector,
)

if TYPE_CHECKING:
    from realbench.reward.reward import SplitReward

Pair = tuple[np.ndarray, np.ndarray]
"""A photograph and the generated image beside it."""


class PastPairs:
    """Photographs and generated images of past updates: a uniform sample of all pairs there were.

    Each pair that was ever added is equally likely to be among those that are kept (reservoir
    sampling; Vitter 1985, ACM Trans. Math. Softw. 11(1), algorithm R).

    Args:
        capacity: how many are kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.seen = 0
        self.pairs: list[Pair] = []

    def __len__(self) -> int:
        return len(self.pairs)

    def add(self, pairs: Iterable[Pair], rng: np.random.Generator) -> None:
        """Add photographs and generated images, uint8 (H, W, 3) each."""
        for pair in pairs:
            self.seen += 1
            if len(self) < self.capacity:
                self.pairs.append(pair)
                continue
            place = int(rng.integers(self.seen))
            if place < self.capacity:
                self.pairs[place] = pair

    def draw(self, n: int, rng: np.random.Generator) -> list[Pair]:
        """Return up to n of the pairs, each at most once."""
        return [self.pairs[place] for place in rng.permutation(len(self))[:n].tolist()]


class Cotraining:
    """Watches a training's iterations and trains the reward's detectors when it is time.

    It is deterministic: every random choice is a function of the seed and the iteration, so that
    processes that see the same images stay alike, and a run that is resumed goes on as before.

    Args:
        detectors: of the reward, by name; they are trained in place.
        alone: components of the reward that are one of the detectors alone, by its name: what they
            say need not be computed again.
    """

    def __init__(
        self,
        config: CotrainingConfig,
        detectors: Mapping[str, TrainableDetector],
        paired: PairedImages,
        *,
        alone: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        self.config = config
        self.detectors = dict(detectors)
        self.paired = paired
        self.alone = dict(alone or {})
        self.seed = seed
        self.past = PastPairs(config.buffer)
        self.updates = 0
        self._sizes: dict[tuple[int, int], PairedImages] = {}

    def after_iteration(
        self,
        iteration: int,
        images: Tensor,
        prompts: Sequence[str],
        rewards: Mapping[str, np.ndarray],
    ) -> dict[str, float]:
        """Train each detector that the generator has become good enough at passing.

        Args:
            images: all that it made, uint8 (n, 3, H, W).
            rewards: of them, by the reward's component, float32 (n,) each.

        Returns:
            What to record, by name; nothing where all detectors were left alone.

        Raises:
            UsageError: no photograph is as large as the images.
        """
        rng = np.random.default_rng([self.seed, iteration])
        arrays = list(images.permute(0, 2, 3, 1).contiguous().cpu().numpy())
        paired = self._paired(*arrays[0].shape[:2])
        passed = []
        for name, detector in self.detectors.items():
            component = self.alone.get(name)
            given = None if component is None else float(rewards[component].mean(dtype=np.float64))
            mean = detector.realism(arrays) if given is None else given
            if not self.updates or mean > self.config.threshold:
                passed.append(name)
        return self._update(passed, arrays, prompts, paired, rng) if passed else {}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes: tensors, numbers and texts."""
        pairs = self.past.pairs
        return {
            "updates": self.updates,
            "seen": self.past.seen,
            "pairs": torch.from_numpy(np.stack([np.stack(pair) for pair in pairs]))
            if pairs
            else torch.empty(0),
            "detectors": {name: one.state_dict() for name, one in self.detectors.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.updates = int(state["updates"])
        self.past = PastPairs(self.config.buffer)
        self.past.seen = int(state["seen"])
        self.past.pairs = [(real, made) for real, made in state["pairs"].numpy()]
        for name, one in self.detectors.items():
            one.load_state_dict(state["detectors"][name])

    def save_detectors(self, folder: str | Path) -> list[Path]:
        """Write each detector as it now is into a folder that ``--detector`` takes.

        Only detectors of the families ``whole-image`` and ``native-crops`` are written: what a
        published detector's file looks like is its authors' affair.

        Returns:
            The detectors' folders.
        """
        found = [one.detector for one in self.detectors.values() if can_be_exported(one.detector)]
        return [export_detector(one, Path(folder)) for one in found]

    def _update(
        self,
        passed: Sequence[str],
        images: Sequence[np.ndarray],
        prompts: Sequence[str],
        paired: PairedImages,
        rng: np.random.Generator,
    ) -> dict[str, float]:
        share = self.config.past
        height, width = images[0].shape[:2]
        partners = paired.partners(prompts, height, width, rng)
        new = list(zip(partners, images, strict=True))
        pairs = new + self.past.draw(round(len(images) * share / (1 - share)), rng)
        pairs = match_compression(pairs, self.config.jpeg, rng)
        self.updates += 1
        figures = {"updates": float(self.updates), "images": float(2 * len(pairs))}
        for name in passed:
            fit = self.detectors[name].fit([r for r, _ in pairs], [g for _, g in pairs], rng)
            figures |= {
                f"{name}/epochs": float(fit.epochs),
                f"{name}/accuracy_before": fit.accuracy_before,
                f"{name}/accuracy": fit.accuracy,
                f"{name}/loss": fit.loss,
            }
        self.past.add(new, rng)
        return figures

    def _paired(self, height: int, width: int) -> PairedImages:
        size = (height, width)
        if size not in self._sizes:
            self._sizes[size] = self.paired.at_least(height, width)
        return self._sizes[size]


def build_cotraining(config: CotrainingConfig, *, reward: SplitReward, seed: int = 0) -> Cotraining:
    """Return the co-training of a reward's detectors, which stay where they are.

    Args:
        config: ``[cotraining]``, with ``paired``.
        reward: its components of kind ``"detectors"`` are looked through.

    Raises:
        UsageError: there are no photographs with captions, or no such detector can be trained.
    """
    if config.paired is None:
        raise UsageError("co-training needs photographs with captions: give them with --paired")
    found: dict[str, Any] = {}
    alone: dict[str, str] = {}
    for component in getattr(reward, "components", ()):
        scorer = getattr(component, "scorer", None)
        if isinstance(scorer, Scorer):
            found |= scorer.detectors
            if len(scorer.detectors) == 1:
                alone[next(iter(scorer.detectors))] = component.name
    trainable = [name for name, one in found.items() if can_be_trained(one)]
    for name in config.detectors:
        if name not in trainable:
            what = "cannot be trained" if name in found else "takes no part in the reward"
            raise UsageError(
                f"detector {name!r} {what}; those that can be co-trained: "
                f"{', '.join(trainable) or 'none'}"
            )
    names = config.detectors or trainable
    if not names:
        raise UsageError("co-training needs a detector with weights in the reward, and it has none")
    detectors = {name: TrainableDetector(found[name], config) for name in names}
    return Cotraining(config, detectors, PairedImages(config.paired), alone=alone, seed=seed)
