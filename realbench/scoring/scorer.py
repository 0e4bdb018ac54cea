"""Scores images that are in memory: for notebooks, and as a reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realbench.allocator import keep_freed_memory
from realbench.detection.cards import Card
from realbench.detection.ensemble import combine, disagreement, fused_terms, probability
from realbench.detection.ensembles import choose_cards
from realbench.detection.preparation import prepare_for
from realbench.detection.registry import DEFAULT_DETECTORS, check_names, load_detector
from realbench.detection.specs import Precision, Term
from realbench.detection.verdict import check_bound, find_sample
from realbench.errors import UsageError
from realbench.scoring.layout import choose_layout, use_threads

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from realbench.detection.detector import Detector
    from realbench.stats import VerdictRule


@dataclass(frozen=True)
class Scores:
    """What the detectors say of n images; higher is more real, everywhere.

    Attributes:
        realism: float32 (n,), the ensemble's P(real) in [0, 1].
        detectors: each detector's P(real), float32 (n,), in [0, 1].
        logits: each detector's calibrated logit of P(real), float32 (n,).
        disagreement: float32 (n,), the largest minus the smallest P(real) of the detectors.
        verdict: text (n,), ``"photograph"``, ``"generated"`` or ``"unsure"``; None where there are
            no held-out scores of these detectors (see :mod:`realbench.stats.conformal`).
    """

    realism: np.ndarray
    detectors: dict[str, np.ndarray]
    logits: dict[str, np.ndarray]
    disagreement: np.ndarray
    verdict: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.realism)

    @classmethod
    def from_logits(
        cls,
        logits: Mapping[str, np.ndarray],
        levels: Mapping[str, str],
        fused: Mapping[str, Term] | None = None,
        rule: VerdictRule | None = None,
    ) -> Scores:
        """Combine calibrated logits (n,) by detector into scores; see :func:`combine`."""
        values = {name: np.asarray(value, np.float32) for name, value in logits.items()}
        detectors = {name: probability(value) for name, value in values.items()}
        spread = disagreement(np.stack(list(detectors.values()), axis=1))
        realism = combine(values, levels, fused)
        verdict = None if rule is None else rule.verdicts(realism)
        return cls(realism, detectors, values, spread, verdict)


def choose_device(device: str) -> str:
    """Return ``device``, with ``"auto"`` resolved to CUDA, Apple's MPS or the CPU.

    Raises:
        UsageError: torch does not know the device or the machine does not have it.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"device {device!r} cannot be used here: {first}") from error
    return device


class Scorer:
    """Detectors, loaded once, that score batches of images.

    >>> scorer = Scorer()
    >>> scorer([Image.open("a.png"), Image.open("b.jpg")]).realism

    Args:
        detectors: names, ensembles (``"ensemble:NAME"``), card folders or loaded detectors.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"`` and so on.
        batch_size: images a forward pass; by default one that suits the device.
        precision: of published networks that are given by name or folder; ``"bfloat16"`` is
            meant for GPUs, and moves their scores a little.
        max_false_alarm: as for :func:`realbench.score`.
    """

    def __init__(
        self,
        detectors: Sequence[str | Path | Detector] = DEFAULT_DETECTORS,
        *,
        device: str = "auto",
        batch_size: int | None = None,
        precision: Precision = "float32",
        max_false_alarm: float = 0.05,
    ) -> None:
        check_bound(max_false_alarm)
        if isinstance(detectors, str | Path):
            detectors = [detectors]
        named = _named(detectors)
        chosen = [one.with_precision(precision) if isinstance(one, Card) else one for one in named]
        keep_freed_memory()
        self.device = choose_device(device)
        self.detectors = load_detectors(chosen, self.device)
        self.levels = {name: one.level for name, one in self.detectors.items()}
        self._fused = fused_terms(one for one in chosen if isinstance(one, Card))
        cards = [one if isinstance(one, Card) else one.card for one in chosen]
        held_out = find_sample(cards)
        self.rule = None if held_out is None else held_out.rule(cards, max_false_alarm)
        self._layout = choose_layout(self.device, batch_size)

    def __repr__(self) -> str:
        return f"Scorer({', '.join(self.detectors)}; {self.device})"

    def __call__(self, images: Sequence[Image.Image | np.ndarray] | torch.Tensor) -> Scores:
        """Score images.

        Args:
            images: PIL images of any mode, uint8 RGB arrays of shape (H, W, 3), both of any
                size, or one uint8 tensor of shape (n, 3, H, W).

        Raises:
            UsageError: an array or tensor of another shape or type.
        """
        arrays = rgb_arrays(images)
        layout = self._layout
        share = -(-len(arrays) // layout.forwards)  # so that every thread has work
        size = max(1, min(layout.batch_size, share))
        batches = [arrays[start : start + size] for start in range(0, len(arrays), size)]
        logits: dict[str, list[float]] = {name: [] for name in self.detectors}
        if len(batches) < 2:
            parts = [self._score(batch) for batch in batches]
        else:
            with ThreadPoolExecutor(
                layout.forwards, initializer=use_threads, initargs=(layout.threads_per_forward,)
            ) as pool:
                parts = list(pool.map(self._score, batches))
        for part in parts:
            for name, values in part.items():
                logits[name] += values
        arrays_of = {name: np.array(values) for name, values in logits.items()}
        return Scores.from_logits(arrays_of, self.levels, self._fused, self.rule)

    def reward(
        self,
        images: Sequence[Image.Image | np.ndarray] | torch.Tensor,
        prompts: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Return the realism of ``images`` as a reward, float32 (n,), in [0, 1].

        Args:
            images: as for calling the scorer.
            prompts: taken so that every reward has one signature; realism does not need them.
        """
        return self(images).realism

    def _score(self, arrays: Sequence[np.ndarray]) -> dict[str, list[float]]:
        import torch

        prepared = [prepare_for(self.detectors, self.detectors, array) for array in arrays]
        return {
            name: one.logits(torch.stack([own[name] for own in prepared])).tolist()
            for name, one in self.detectors.items()
        }


def _named(detectors: Sequence[str | Path | Detector]) -> list[Card | Detector]:
    """Return cards for what is named; what is loaded stays."""
    found: list[Card | Detector] = []
    for one in detectors:
        if isinstance(one, str | Path):
            found += choose_cards([one])
        else:
            found.append(one)
    if len(detectors) > 1 and any(isinstance(one, Card) and one.fused for one in found):
        raise UsageError("an ensemble with fitted weights is given alone, without other detectors")
    return found


def load_detectors(
    detectors: Sequence[str | Path | Card | Detector], device: str
) -> dict[str, Detector]:
    """Load what is not loaded yet; names must differ.

    Raises:
        UsageError: none, an unknown one, or two of one name.
    """
    loaded = [
        load_detector(one, device) if isinstance(one, str | Path | Card) else one
        for one in detectors
    ]
    check_names([detector.name for detector in loaded])
    return {detector.name: detector for detector in loaded}


def rgb_arrays(images: Sequence[Image.Image | np.ndarray] | torch.Tensor) -> list[np.ndarray]:
    """Return images in memory, as :class:`Scorer` takes them, as uint8 RGB arrays (H, W, 3).

    Raises:
        UsageError: an array or tensor of another shape or type.
    """
    return [_as_array(image, n) for n, image in enumerate(_each(images))]


def _each(images: Any) -> Sequence[Any]:
    if hasattr(images, "detach"):  # a tensor
        if images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(f"a tensor must have shape (n, 3, H, W), not {tuple(images.shape)}")
        return list(images.detach().cpu().permute(0, 2, 3, 1).numpy())
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise UsageError(f"give a list of images, not one array of shape {images.shape}")
    return images


def _as_array(image: Image.Image | np.ndarray, position: int) -> np.ndarray:
    from PIL import Image

    if isinstance(image, Image.Image):
        from realbench.color import to_srgb

        return np.asarray(to_srgb(image))
    if not isinstance(image, np.ndarray):
        kind = type(image).__name__
        raise UsageError(f"image {position} is a {kind}: give PIL images or uint8 arrays")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UsageError(
            f"image {position} has shape {image.shape} and type {image.dtype}: "
            "give uint8 RGB of shape (H, W, 3)"
        )
    return image
