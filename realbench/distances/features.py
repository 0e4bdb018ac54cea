"""The networks that turn pictures into features, and their cards.

``score_files`` asks them beside the detectors and keeps their features as it keeps scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import Field

from realbench.content import content_path
from realbench.detection.cards import NetworkCard, read_toml_card
from realbench.errors import UsageError
from realbench.runs.folder import install_command

if TYPE_CHECKING:
    from torch import Tensor

FEATURES_FILE = "features.toml"
_VERSION = "features 1"  # raise it when the code changes the features of an unchanged card


class FeatureCard(NetworkCard):
    """One network of ``features/``, as read from its ``features.toml``."""

    title: str = Field(description="what a report calls it")

    def _code(self) -> dict[str, str]:
        return {"features": _VERSION}


def find_features(given: Mapping[str, Mapping[str, str | Path]]) -> list[FeatureCard]:
    """Return the cards of the networks whose weights are on this machine; no hub is asked.

    Args:
        given: the user's own files, by name and part; other names than the networks' are ignored.

    Raises:
        UsageError: a card has no such part, or a network needs a package that is not installed.
    """
    folder = content_path("features")
    cards = [
        read_toml_card(one / FEATURES_FILE, FeatureCard, "features")
        for one in sorted(folder.iterdir())
        if (one / FEATURES_FILE).is_file()
    ]
    named = [card.with_weights(given[card.name]) if card.name in given else card for card in cards]
    found = [card for card in named if not card.whats_missing()]
    for card in found:
        if card.family == "inception-features" and find_spec("torch_fidelity") is None:
            raise UsageError(f"{card.title} needs torch-fidelity: {install_command('distances')}")
    return found


class Network(Protocol):
    """A loaded network."""

    def prepare(self, image: np.ndarray) -> Tensor:
        """Turn uint8 RGB (H, W, 3) into what the network sees, on the CPU."""

    def features(self, batch: Sequence[Tensor]) -> np.ndarray:
        """Return the features, float32 (n, d), of prepared pictures."""


class DinoFeatures:
    """Class tokens of a vision transformer: the last one's, and one after a middle block.

    Both pass the transformer's last normalisation: float32 (n, 2 d). The last block tells what a
    picture shows, which the published distances compare; middle ones tell how it is rendered.
    """

    def __init__(self, card: FeatureCard, device: str) -> None:
        import timm

        from realbench.detection.weights import load_weights

        self.card, self.device = card, device
        self.network: Any = timm.create_model(
            card.model.architecture, num_classes=0, img_size=card.input.size
        )
        load_weights(self.network, card)
        self.network.eval().requires_grad_(False).to(device)

    def prepare(self, image: np.ndarray) -> Tensor:
        from realbench.quality.measure import normalized

        return normalized(image, self.card.input)

    def features(self, batch: Sequence[Tensor]) -> np.ndarray:
        import torch

        from realbench.detection.families.views import reduced_precision

        with torch.inference_mode(), reduced_precision(self.device.split(":")[0]):
            blocks = self.network.forward_intermediates(
                torch.stack(list(batch)).to(self.device),
                indices=sorted(self.card.model.blocks),
                norm=True,
                output_fmt="NLC",
                intermediates_only=True,
                return_prefix_tokens=True,
            )
            tokens = torch.cat([prefix[:, 0].float() for _, prefix in reversed(blocks)], dim=1)
        return tokens.cpu().numpy()


class ClipFeatures(DinoFeatures):
    """The image embedding of a CLIP of open_clip."""

    def __init__(self, card: FeatureCard, device: str) -> None:
        from realbench.detection.families.clip import image_encoder

        self.card, self.device = card, device
        self.network = image_encoder(card, "weights").to(device)

    def features(self, batch: Sequence[Tensor]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self.network(torch.stack(list(batch)).to(self.device)).float().cpu().numpy()


class InceptionFeatures:
    """The pooled features (2,048) of FID's Inception network, as torch-fidelity computes them."""

    def __init__(self, card: FeatureCard, device: str) -> None:
        import tempfile

        import torch
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        from realbench.detection.families.clip import fitting
        from realbench.detection.weights import card_tensors

        self.device = device
        # It would unpickle whatever the file holds, so it gets one that holds tensors alone.
        with tempfile.TemporaryDirectory() as folder, fitting(card):
            safe = Path(folder) / "weights.pth"
            torch.save(card_tensors(card), safe)
            self.network = FeatureExtractorInceptionV3("inception", ["2048"], str(safe)).to(device)

    def prepare(self, image: np.ndarray) -> Tensor:
        import torch

        return torch.from_numpy(image).permute(2, 0, 1)

    def features(self, batch: Sequence[Tensor]) -> np.ndarray:
        import torch

        with torch.inference_mode():  # of sizes of their own, so one by one
            parts = [self.network(one[None].to(self.device))[0].cpu() for one in batch]
        return torch.cat(parts).numpy()


FAMILIES: dict[str, Callable[[FeatureCard, str], Network]] = {
    "dino-features": DinoFeatures,
    "clip-features": ClipFeatures,
    "inception-features": InceptionFeatures,
}


def load_features(card: FeatureCard, device: str) -> Network:
    """Load the network of a card.

    Raises:
        RealBenchError: the weights are missing, altered or do not fit.
    """
    return FAMILIES[card.family](card, device)
