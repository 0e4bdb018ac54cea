"""Human preference by a CLIP model of transformers, as in PickScore (Kirstain et al., 2023)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from realbench.detection.families.transformers_classifier import loaded
from realbench.errors import RealBenchError, UsageError
from realbench.quality.cards import MeasureCard


class Preference:
    """The cosine of the embeddings of an image and of its prompt, times the model's own scale.

    Args:
        model: a CLIPModel of transformers.
        processor: prepares images.
        tokenizer: turns prompts into tokens.
    """

    def __init__(self, model: Any, processor: Any, tokenizer: Any) -> None:
        self._model = model
        self._processor = processor
        self._tokenizer = tokenizer
        self._tokenizing = threading.Lock()  # its settings of truncation are the tokenizer's own
        self._device = torch.device("cpu")

    @property
    def context(self) -> int:
        """See :class:`~realbench.quality.measure.Network`."""
        return int(self._model.config.text_config.max_position_embeddings)

    def length(self, prompt: str) -> int:
        """See :class:`~realbench.quality.measure.Network`."""
        with self._tokenizing:
            return len(self._tokenizer(prompt, truncation=False, verbose=False)["input_ids"])

    def prepare(self, image: np.ndarray) -> Tensor:
        """See :class:`~realbench.quality.measure.Network`."""
        batch = self._processor(images=Image.fromarray(image), return_tensors="pt")
        pixels: Tensor = batch["pixel_values"][0]
        return pixels

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """See :class:`~realbench.quality.measure.Network`."""
        each = list(dict.fromkeys(prompts))
        with self._tokenizing:
            tokens = self._tokenizer(
                each, padding=True, truncation=True, max_length=self.context, return_tensors="pt"
            )
        tokens = tokens.to(self._device)
        texts = self._model.text_projection(self._model.text_model(**tokens).pooler_output)
        pictures = self._model.visual_projection(
            self._model.vision_model(pixel_values=pixels).pooler_output
        )
        own = functional.normalize(texts, dim=1)[[each.index(prompt) for prompt in prompts]]
        cosine = (functional.normalize(pictures, dim=1) * own).sum(dim=1)
        return self._model.logit_scale.exp() * cosine

    def to(self, device: str) -> None:
        """See :class:`~realbench.quality.measure.Network`."""
        self._device = torch.device(device)
        self._model.to(self._device)


def build(card: MeasureCard) -> Preference:
    """Build the network of a ``clip-preference`` card: its ``weights`` are a model's folder."""
    folder = card.weights_path
    if not folder.is_dir():
        raise UsageError(f"{folder} is no model folder, which measure {card.name!r} needs")
    kind = loaded("AutoConfig", folder).model_type
    if kind != "clip":
        raise RealBenchError(f"{folder} holds a model of type {kind!r}, not of CLIP")
    model, info = loaded("CLIPModel", folder, dtype=torch.float32, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if missing:
        raise RealBenchError(
            f"in the weights of {folder}, {len(missing)} tensors are missing, such as "
            f"{missing[0]}; fetch it again"
        )
    processor, tokenizer = (loaded(one, folder) for one in ("AutoImageProcessor", "AutoTokenizer"))
    return Preference(model.eval(), processor, tokenizer)
