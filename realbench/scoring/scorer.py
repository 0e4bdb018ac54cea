"""Scores images that are in memory: for notebooks, and as a reward."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from realbench.config.settings import checked_settings
from realbench.detection.cards import Card, fetch_weights
from realbench.detection.detector import Detector, keep_freed_memory, prepare_for
from realbench.detection.ensemble import combine, disagreement, fused_terms, probability
from realbench.detection.ensemble import weights as weights_of
from realbench.detection.ensembles import choose_cards, find_cards
from realbench.detection.registry import DEFAULT_DETECTORS, check_names, load_detector
from realbench.detection.specs import Precision, Term
from realbench.detection.verdict import check_bound, find_sample
from realbench.errors import UsageError
from realbench.scoring.layout import choose_layout, use_threads
from realbench.text import first_line

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from realbench.stats import VerdictRule

    Images: TypeAlias = (
        Image.Image | Iterable[Image.Image | np.ndarray | torch.Tensor] | np.ndarray | torch.Tensor
    )

# Floats may be outside of [0, 1] by as much as rounding to bytes takes away.
_HALF_A_STEP = 0.5 / 255


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


def choose_device(device: str | torch.device) -> str:
    """Return ``device``, with ``"auto"`` resolved to CUDA, Apple's MPS or the CPU.

    Raises:
        UsageError: torch does not know the device or the machine does not have it.
    """
    import torch

    device = str(device)
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.device(device)
    except RuntimeError as error:  # it lists all kinds that it knows
        raise UsageError(f"no device {device!r}: give auto, cpu, cuda, cuda:1 or mps") from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {device!r} cannot be used here: {first_line(error)}") from error
    return device


class Scorer:
    """Detectors, loaded once, that score batches of images.

    >>> scorer = Scorer()
    >>> scorer([Image.open("a.png"), Image.open("b.jpg")]).realism

    Args:
        detectors: names, ensembles (``"ensemble:NAME"``), card folders or loaded detectors.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"`` and so on, or a ``torch.device``.
        batch_size: images a forward pass; by default one that suits the device.
        weights: the user's own files of detectors that are given by name or folder, by detector
            and part, as for :func:`realbench.score`.
        precision: of published networks that are given by name or folder; ``"bfloat16"`` is
            meant for GPUs, and moves their scores a little.
        max_false_alarm: as for :func:`realbench.score`.

    Attributes:
        shares: each detector's weight in the mean of logits.

    It can be pickled, so that worker processes have one: each loads the detectors anew.
    """

    @checked_settings
    def __init__(
        self,
        detectors: str | Path | Sequence[str | Path | Card | Detector] = DEFAULT_DETECTORS,
        *,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
        weights: Mapping[str, Mapping[str, str | Path]] | None = None,
        precision: Precision = "float32",
        max_false_alarm: float = 0.05,
    ) -> None:
        check_bound(max_false_alarm)
        if batch_size is not None and batch_size < 1:
            raise UsageError("batch_size must be at least 1")
        if isinstance(detectors, str | Path):
            detectors = [detectors]
        chosen = _chosen(detectors, weights, precision)
        keep_freed_memory()
        self.device = choose_device(device)
        self.detectors = load_detectors(chosen, self.device)
        self.levels = {name: one.level for name, one in self.detectors.items()}
        self._fused = fused_terms(one for one in chosen if isinstance(one, Card))
        fitted = {name: term.weight for name, term in self._fused.items()}
        self.shares = fitted or weights_of(self.levels)
        cards = [one if isinstance(one, Card) else one.card for one in chosen]
        held_out = find_sample(cards)
        self.rule = None if held_out is None else held_out.rule(cards, max_false_alarm)
        self._layout = choose_layout(self.device, batch_size)
        self._made_of = {
            "detectors": chosen,
            "device": device,
            "batch_size": batch_size,
            "precision": precision,
            "max_false_alarm": max_false_alarm,
        }

    def __getstate__(self) -> dict[str, Any]:
        return self._made_of

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Scorer({', '.join(self.detectors)}; {self.device})"

    def __call__(self, images: Images) -> Scores:
        """Score images.

        Args:
            images: one PIL image, or several images of any size: PIL images of any mode, arrays
                and tensors of RGB, of shape (3, H, W) or (H, W, 3) (of shape (3, H, 3) tensors
                are the former, arrays the latter); or one tensor or array of shape (n, 3, H, W).
                Integers are in [0, 255], floats in [0, 1].

        Raises:
            UsageError: something else; the message says which image, and what to do.
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

    def reward(self, images: Images, prompts: Sequence[str] | None = None) -> np.ndarray:
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


def _chosen(
    detectors: Sequence[str | Path | Card | Detector],
    weights: Mapping[str, Mapping[str, str | Path]] | None,
    precision: Precision,
) -> list[Card | Detector]:
    """Return cards for what is named; what is loaded, or a card already, stays."""
    named = [one for one in detectors if isinstance(one, str | Path)]
    cards = {}
    if named or weights:
        cards = {card.name: card for card in find_cards(named, weights, precision)}
    found: list[Card | Detector] = []
    for one in detectors:
        if isinstance(one, str | Path):
            found += [cards[card.name] for card in choose_cards([one])]
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
        RealBenchError: weights are neither here nor to be had.
    """
    fetch_weights(one for one in detectors if isinstance(one, Card))
    loaded = [
        load_detector(one, device) if isinstance(one, str | Path | Card) else one
        for one in detectors
    ]
    check_names([detector.name for detector in loaded])
    return {detector.name: detector for detector in loaded}


def rgb_arrays(images: Images) -> list[np.ndarray]:
    """Return images in memory, as :class:`Scorer` takes them, as uint8 RGB arrays (H, W, 3).

    Raises:
        UsageError: something else; the message says which image, and what to do.
    """
    return [_as_array(image, n) for n, image in enumerate(_each(images))]


def _each(images: Any) -> Iterable[Any]:
    from PIL import Image

    if isinstance(images, Image.Image):
        return [images]
    if _is_tensor(images) or isinstance(images, np.ndarray):
        shape, kind = tuple(images.shape), "tensor" if _is_tensor(images) else "array"
        if len(shape) == 3:
            raise UsageError(f"give a list of images, not one {kind} of shape {shape}: [image]")
        if len(shape) != 4 or (kind == "tensor" and shape[1] != 3):
            hint = ": permute(0, 3, 1, 2)" if len(shape) == 4 and shape[3] == 3 else ""
            raise UsageError(f"{kind}s of images must have shape (n, 3, H, W), not {shape}{hint}")
        return list(images)
    if isinstance(images, str | bytes | os.PathLike | Mapping):
        raise UsageError(
            f"images are a {type(images).__name__}: give a list of PIL images, arrays or tensors "
            "(realbench.score takes folders)"
        )
    try:
        return iter(images)
    except TypeError as error:
        raise UsageError(
            f"images are a {type(images).__name__}: give a PIL image, or a list of PIL images, "
            "arrays or tensors"
        ) from error


def _as_array(image: Any, position: int) -> np.ndarray:
    from PIL import Image

    if isinstance(image, Image.Image):
        from realbench.color import srgb_pixels

        try:
            return srgb_pixels(image)
        except (OSError, SyntaxError, ValueError) as error:  # a file that is read only now
            raise UsageError(
                f"image {position} cannot be decoded ({error}): open it anew, or leave it out"
            ) from error
    if _is_tensor(image):
        array, planes_first = _numpy_of(image, position), True
    elif isinstance(image, np.ndarray) or hasattr(image, "__array__"):
        array, planes_first = np.asarray(image), False
    else:
        raise UsageError(
            f"image {position} is a {type(image).__name__}: give PIL images, arrays or tensors "
            "(a file: PIL.Image.open)"
        )
    return _as_bytes(_planes_last(array, position, planes_first), position)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "cpu")  # without an import of torch


def _numpy_of(tensor: torch.Tensor, position: int) -> np.ndarray:
    try:
        own = tensor.detach()
        if own.is_floating_point():
            own = own.float()  # NumPy has no bfloat16
        return own.cpu().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise UsageError(
            f"image {position} is a tensor that cannot be read ({first_line(error)}): give a dense "
            "one"
        ) from error


def _planes_last(array: np.ndarray, position: int, planes_first: bool) -> np.ndarray:
    """Return an image as (H, W, 3); (3, H, 3) is (3, H, W) where ``planes_first``."""
    shape = array.shape
    if array.ndim == 3 and array.size:
        first, last = shape[0] == 3, shape[2] == 3
        if first and (planes_first or not last):
            return array.transpose(1, 2, 0)
        if last:
            return array
    hint = "repeat gray three times, and put transparency on white, or give a PIL image"
    raise UsageError(
        f"image {position} has shape {shape}: give RGB of shape (3, H, W) or (H, W, 3); {hint}"
    )


def _as_bytes(array: np.ndarray, position: int) -> np.ndarray:
    """Return an image's values as uint8: integers from 0 to 255, floats from 0 to 1."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    what = f"image {position} has {array.dtype} values"
    if array.dtype.kind not in "iufb":
        raise UsageError(f"{what}: give integers in [0, 255] or floats in [0, 1]")
    if array.dtype.kind == "b":
        array = array.astype(np.float32)
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise UsageError(f"{what} from {low:g} to {high:g}: give [0, 255] (of 16 bits: // 257)")
        return np.ascontiguousarray(array, np.uint8)
    if not (low >= -_HALF_A_STEP and high <= 1 + _HALF_A_STEP):  # nor NaN
        raise UsageError(
            f"{what} from {low:g} to {high:g}: give floats in [0, 1] (of [-1, 1]: x / 2 + 0.5; of "
            "[0, 255]: x / 255)"
        )
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
