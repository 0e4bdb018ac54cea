"""Loaded quality measures, the networks of their families, and how one is loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.families import building
from realbench.detection.families.clip import clip_model, encoder_below, linear
from realbench.detection.families.published import letterbox, view
from realbench.detection.families.transformers_classifier import loaded, loaded_network
from realbench.detection.specs import InputSpec
from realbench.detection.weights import card_tensors
from realbench.errors import RealBenchError, UsageError
from realbench.quality.cards import MeasureCard


class Network(Protocol):
    """What a family builds of a card."""

    def prepare(self, image: np.ndarray) -> Tensor:
        """Turn uint8 RGB (H, W, 3) into normalised float32 (3, S, S)."""

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the unscaled scores (n,) of pixels (n, 3, S, S); prompts may be empty texts."""

    def length(self, prompt: str) -> int:
        """Return the number of tokens that the network would need for ``prompt``."""

    @property
    def context(self) -> int:
        """Return the number of tokens that it reads; 0 where it reads none."""

    def to(self, device: str) -> Any:
        """Move it to ``device``."""


class Measure:
    """A loaded measure: scores images, with their prompts where it needs them."""

    def __init__(self, card: MeasureCard, network: Network) -> None:
        self.card = card
        self.name = card.name
        self._network = network
        self._device = torch.device("cpu")

    def prepare(self, image: np.ndarray) -> Tensor:
        """Return what the network sees of uint8 RGB (H, W, 3): float32 (3, S, S), on the CPU."""
        return self._network.prepare(image)

    @torch.inference_mode()
    def scores(self, pixels: Tensor, prompts: Sequence[str]) -> np.ndarray:
        """Score a batch; higher is better, on the measure's own scale.

        Args:
            pixels: float32 (n, 3, S, S), of :meth:`prepare`.
            prompts: n of them; empty texts where the measure needs none.

        Returns:
            float64 of shape (n,).
        """
        raw = self._network.score(pixels.to(self._device), prompts)
        scores = raw.double().cpu().numpy() * self.card.scale
        return scores if self.card.floor is None else np.maximum(scores, self.card.floor)

    def cuts(self, prompt: str) -> bool:
        """Whether the network reads the beginning of ``prompt`` alone, since it is too long."""
        return 0 < self._network.context < self._network.length(prompt)

    def to(self, device: str) -> Self:
        """Move the network to ``device`` and return the measure."""
        self._device = torch.device(device)
        self._network.to(device)
        return self


def normalized(image: np.ndarray, spec: InputSpec) -> Tensor:
    """Return the view that a published network sees of an image, normalised: float32 (3, S, S).

    Raises:
        UsageError: the card does not say how.
    """
    if spec.fit is None:
        raise UsageError("the card does not say how a picture becomes a view: give input.fit")
    if spec.fit == "letterbox":  # padded and scaled between levels, as its authors do
        pixels = letterbox(image, spec.size)
    else:
        pixels = torch.from_numpy(view(image, spec)[0]).permute(2, 0, 1).float()
    mean, std = (torch.tensor(triple).view(3, 1, 1) for triple in (spec.mean, spec.std))
    return (pixels / 255 - mean) / std


class Similarity:
    """The cosine of an image's and its prompt's embeddings in a CLIP of open_clip, in [-1, 1].

    CLIP score (Hessel et al., EMNLP 2021), Long-CLIP (Zhang et al., ECCV 2024) and HPS v2 (Wu et
    al., 2023) are this cosine; they differ in the model, the preprocessing and the scale.
    """

    def __init__(self, card: MeasureCard, model: Any) -> None:
        import open_clip

        self._card = card
        self._model = model
        self._tokenizer = open_clip.get_tokenizer(
            card.model.architecture, context_length=model.context_length
        )
        self._device = torch.device("cpu")

    @property
    def context(self) -> int:
        return int(self._model.context_length)

    def length(self, prompt: str) -> int:
        return len(self._tokenizer.encode(prompt)) + 2  # start and end

    def prepare(self, image: np.ndarray) -> Tensor:
        return normalized(image, self._card.input)

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        each = list(dict.fromkeys(prompts))  # images of one prompt share its embedding
        texts = self._model.encode_text(self._tokenizer(each).to(self._device), normalize=True)
        own = texts[[each.index(prompt) for prompt in prompts]]
        return (self._model.encode_image(pixels, normalize=True) * own).sum(dim=1)

    def to(self, device: str) -> None:
        self._device = torch.device(device)
        self._model.to(self._device)


class Preference:
    """The cosine of an image's and its prompt's embeddings, times the model's own scale.

    Human preference by a CLIPModel of transformers, as in PickScore (Kirstain et al., 2023).
    """

    def __init__(self, model: Any, processor: Any, tokenizer: Any) -> None:
        self._model = model
        self._processor = processor
        self._tokenizer = tokenizer
        self._tokenizing = threading.Lock()  # its settings of truncation are the tokenizer's own
        self._device = torch.device("cpu")

    @property
    def context(self) -> int:
        return int(self._model.config.text_config.max_position_embeddings)

    def length(self, prompt: str) -> int:
        with self._tokenizing:
            return len(self._tokenizer(prompt, truncation=False, verbose=False)["input_ids"])

    def prepare(self, image: np.ndarray) -> Tensor:
        batch = self._processor(images=Image.fromarray(image), return_tensors="pt")
        pixels: Tensor = batch["pixel_values"][0]
        return pixels

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
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
        self._device = torch.device(device)
        self._model.to(self._device)


def build_preference(card: MeasureCard) -> Preference:
    """Build the network of a ``clip-preference`` card: its ``weights`` are a model's folder."""
    folder = card.model_folder
    kind = loaded("AutoConfig", folder).model_type
    if kind != "clip":
        raise RealBenchError(f"{folder} holds a model of type {kind!r}, not of CLIP")
    model = loaded_network("CLIPModel", folder)
    processor, tokenizer = (loaded(one, folder) for one in ("AutoImageProcessor", "AutoTokenizer"))
    return Preference(model, processor, tokenizer)


class Aesthetic:
    """Linear layers, one after the other, on image features of length 1; no prompt is read.

    Aesthetic predictors, such as LAION's (Schuhmann, 2022), are such layers on CLIP's features.
    """

    context = 0

    def __init__(self, card: MeasureCard, encoder: nn.Module, layers: nn.Sequential) -> None:
        self._card = card
        self._encoder = encoder
        self._layers = layers

    def length(self, prompt: str) -> int:
        return 0

    def prepare(self, image: np.ndarray) -> Tensor:
        return normalized(image, self._card.input)

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        features = functional.normalize(self._encoder(pixels), dim=1)
        scores: Tensor = self._layers(features).squeeze(1)
        return scores

    def to(self, device: str) -> None:
        self._encoder.to(device)
        self._layers.to(device)


def build_aesthetic(card: MeasureCard) -> Aesthetic:
    """Build the network of a ``clip-aesthetic`` card.

    Its ``backbone`` is the CLIP model, its ``weights`` the layers: one linear layer, or several
    whose names hold their numbers (``layers.0.weight``, ``layers.2.weight``, ...) with nothing
    but dropout between them.
    """
    if card.backbone is None:
        raise UsageError(f"{card.path}: a clip-aesthetic card says where CLIP is: [backbone]")
    layers = _layers(card)  # before the large file, so that a wrong small one shows at once
    encoder = encoder_below(card, layers[0])
    return Aesthetic(card, encoder, nn.Sequential(*layers).eval().requires_grad_(False))


def _layers(card: MeasureCard) -> list[nn.Linear]:
    state = card_tensors(card)
    stems = {name.rpartition(".")[0] for name in state}
    numbers = {stem: [int(part) for part in stem.split(".") if part.isdigit()] for stem in stems}
    layers: list[nn.Linear] = []
    for stem in sorted(stems, key=lambda stem: numbers[stem]):
        parts = {
            name.rpartition(".")[2]: value.float()
            for name, value in state.items()
            if name.rpartition(".")[0] == stem
        }
        if set(parts) != {"weight", "bias"} or parts["weight"].ndim != 2:
            raise RealBenchError(f"{card.weights_path}: {stem or 'it'} is no linear layer")
        inputs = parts["weight"].shape[1]
        if layers and layers[-1].out_features != inputs:
            raise RealBenchError(
                f"{card.weights_path}: {stem} takes {inputs} values, but the layer before it "
                f"gives {layers[-1].out_features}"
            )
        layers.append(linear(parts))
    if layers[-1].out_features != 1:
        raise RealBenchError(f"{card.weights_path}: its last layer must give one score")
    return layers


FAMILIES: dict[str, Callable[[MeasureCard], Network]] = {
    "clip-similarity": lambda card: Similarity(card, clip_model(card, "weights")),
    "clip-preference": build_preference,
    "clip-aesthetic": build_aesthetic,
}


def load_measure(card: MeasureCard, device: str = "cpu") -> Measure:
    """Build and load the measure that ``card`` describes.

    Raises:
        UsageError: the card names an unknown family, or a network that cannot be built.
        RealBenchError: the weights are missing, altered or do not fit.
    """
    if card.family not in FAMILIES:
        raise UsageError(
            f"{card.path}: unknown family {card.family!r} (known: {', '.join(sorted(FAMILIES))})"
        )
    with building(card):
        return Measure(card, FAMILIES[card.family](card)).to(device)
