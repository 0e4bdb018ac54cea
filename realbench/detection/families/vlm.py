"""A vision-language model that is asked whether a picture is real, by its first answer's logits."""

from __future__ import annotations

import threading
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from realbench.detection.cards import Card
from realbench.detection.specs import Level
from realbench.detection.vlm import Chat, VisionLanguageModel, answer_logits
from realbench.errors import UsageError

# Questions in one pass on a CPU; a GPU takes a batch and halves it where memory is short.
_CHATS_A_PASS = 4
# Processors refuse pictures with fewer pixels on a side than a patch of theirs.
_LEAST_SIDE = 28


class AskedDetector:
    """Asks a model about each picture; P(real) is a softmax over the two answers.

    The logit of an answer is the mean over its spellings of their logits at the position of the
    answer's first token, as in RealGen (Ye et al., 2025, arXiv:2512.00473).

    Args:
        model: as it is loaded for the CPU; its weights follow with the first picture.
    """

    def __init__(self, card: Card, model: VisionLanguageModel) -> None:
        if card.question is None or card.answers is None:
            raise UsageError(f"{card.path}: a vlm card has a question, and [answers]")
        self.card = card
        self.name = card.name
        self.level: Level = card.level
        self.fingerprint = card.fingerprint
        self.model = model
        self.question = card.question
        self.tokens = {
            name: _tokens(model, words) for name, words in card.answers.model_dump().items()
        }
        self.side = card.input.size
        self._loading = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, level={self.level!r}, {self.model.device})"

    def prepare(self, image: np.ndarray) -> Tensor:
        """See :meth:`realbench.detection.detector.Detector.prepare`.

        The model sees the picture in its own shape, so it is framed: see :func:`frame`.
        """
        return torch.from_numpy(frame(image, self.side)).permute(2, 0, 1)[None]

    def logits(self, batch: Tensor) -> Tensor:
        """See :meth:`realbench.detection.detector.Detector.logits`."""
        pictures = [unframe(one.permute(1, 2, 0).cpu().numpy()) for one in batch[:, 0]]
        with self._loading:  # several forward threads may come first
            self.model.load()
        chats = [Chat("", (Image.fromarray(picture), self.question)) for picture in pictures]
        at_once = _CHATS_A_PASS if self.model.device == "cpu" else len(chats)
        parts = [chats[n : n + at_once] for n in range(0, len(chats), at_once)]
        vocabulary = torch.cat([self.model.first_logits(self.model.prepare(p)) for p in parts])
        real, generated = answer_logits(vocabulary, self.tokens, pool="mean").unbind(dim=1)
        calibration = self.card.calibration
        return (real - generated + calibration.bias) / calibration.temperature

    def to(self, device: str) -> Self:
        """See :meth:`realbench.detection.detector.Detector.to`."""
        self.model.to(device)
        return self


def frame(image: np.ndarray, side: int) -> np.ndarray:
    """Put a picture of any shape into an array of one shape, with its size in the last row.

    Args:
        image: uint8 RGB (H, W, 3); scaled down, in its shape, if a side is longer than ``side``.
            A side of fewer than 28 pixels is stretched to that.

    Returns:
        uint8 (side + 1, side, 3).
    """
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = tuple(max(_LEAST_SIDE, round(length * scale)) for length in (width, height))
    if size != (width, height):
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        height, width = image.shape[:2]
    framed = np.zeros((side + 1, side, 3), np.uint8)
    framed[:height, :width] = image
    framed[side, :2] = [(length >> 8, length & 255, 0) for length in (height, width)]
    return framed


def unframe(framed: np.ndarray) -> np.ndarray:
    """Return the picture that :func:`frame` was given, if it was not scaled."""
    height, width = (int(high) << 8 | int(low) for high, low, _ in framed[-1, :2])
    return np.ascontiguousarray(framed[:height, :width])


def _tokens(model: VisionLanguageModel, words: tuple[str, ...]) -> tuple[int, ...]:
    """Return the token of each word, as it begins an answer (without a space before it)."""
    tokenizer = model.processor.tokenizer
    found = []
    for word in words:
        ids = tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            raise UsageError(
                f"{model.name}: the answer {word!r} is not one token of its tokenizer, so its "
                "logit cannot be read; choose other [answers]"
            )
        found += ids
    return tuple(found)


def build_vlm(card: Card) -> AskedDetector:
    """Build the detector of a ``vlm`` card: its ``weights`` are a model's folder.

    ``model.options`` may have ``dtype``, what the network computes in.
    """
    return AskedDetector(card, VisionLanguageModel(str(card.model_folder), **card.model.options))
