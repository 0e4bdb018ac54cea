"""Any image classifier of transformers, whose labels the card maps to real and generated."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from realbench.detection.cards import Card
from realbench.detection.families.views import ViewsDetector
from realbench.detection.model_files import check_complete
from realbench.detection.vlm import quiet
from realbench.errors import RealBenchError, UsageError
from realbench.hub_errors import NEEDS_ITS_OWN_CODE
from realbench.text import first_line


class LabelledClassifier(nn.Module):
    """Maps uint8-valued float RGB (n, 3, H, W) to logits of P(real), of shape (n,).

    P is the softmax over the labels; labels of one class add up.

    Args:
        scale: what pixel values are multiplied with before they are normalised.
        mean, std: of the normalisation, one value a channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        scale: float,
        mean: Sequence[float],
        std: Sequence[float],
        real: Sequence[int],
        generated: Sequence[int],
    ) -> None:
        super().__init__()
        self.model = model
        self.scale = scale
        self.real, self.generated = list(real), list(generated)
        for name, triple in (("mean", mean), ("std", std)):
            value = torch.tensor(list(triple), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def normalized(self, x: Tensor) -> Tensor:
        return (x * self.scale - self.mean) / self.std

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(pixel_values=self.normalized(x)).logits
        return logits[:, self.real].logsumexp(dim=1) - logits[:, self.generated].logsumexp(dim=1)


def build_transformers_classifier(card: Card) -> ViewsDetector:
    """Build the detector of a ``transformers-classifier`` card.

    Its ``weights`` are a model's folder, the hub's or the user's; the folder says how pictures
    are prepared, the card's ``labels`` which of its labels mean real and which generated.
    """
    folder = card.model_folder
    config = loaded("AutoConfig", folder)
    real, generated = _indices(card, config.id2label)
    processor = loaded("AutoImageProcessor", folder)
    scale, mean, std = _normalization(processor)
    model = loaded_network("AutoModelForImageClassification", folder)
    network = LabelledClassifier(model, scale, mean, std, real, generated)
    _check_preparation(processor, network, folder)

    def prepare(image: np.ndarray) -> np.ndarray:
        return _pixels(processor, image).permute(1, 2, 0)[None].to(torch.uint8).numpy()

    return ViewsDetector(card, network, prepare, embedded=False)


def _indices(card: Card, names: dict[int, str]) -> tuple[list[int], list[int]]:
    known = ", ".join(repr(name) for name in names.values())
    if card.labels is None:
        raise UsageError(
            f"{card.path}: say in [labels] which of the model's labels ({known}) are real and "
            "which generated; they are never guessed"
        )
    mapped = dict.fromkeys(card.labels.real, "real")
    mapped |= dict.fromkeys(card.labels.generated, "generated")
    for name in mapped:
        if name not in names.values():
            raise UsageError(
                f"{card.path}: [labels] has {name!r}, but the model's labels are {known}"
            )
    found: dict[str, list[int]] = {"real": [], "generated": []}
    for index, name in names.items():
        if name not in mapped:
            raise UsageError(
                f"{card.path}: [labels] does not say whether {name!r} of the model's labels "
                f"({known}) is real or generated"
            )
        found[mapped[name]].append(int(index))
    return found["real"], found["generated"]


def loaded(kind: str, folder: Path, **options: Any) -> Any:
    """Load something from a model's folder, without the network and without code of its own."""
    import transformers
    from safetensors import SafetensorError

    try:
        with quiet():
            return getattr(transformers, kind).from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **options
            )
    except pickle.UnpicklingError as error:
        raise RealBenchError(
            f"{folder} cannot be loaded: its weights hold more than tensors, which would run code; "
            "get the authors' files, or convert them where you trust them"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise RealBenchError(f"{folder} cannot be loaded: {NEEDS_ITS_OWN_CODE}") from error
        raise RealBenchError(
            f"{folder} cannot be loaded by transformers' {kind} ({first_line(error)}); fetch it "
            "again, or check that it is a model of this kind"
        ) from error


def loaded_network(kind: str, folder: Path) -> nn.Module:
    """Load a model from its folder, in float32 on the CPU, with all of its weights."""
    model, info = loaded(
        kind,
        folder,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # told of below, in one line
        output_loading_info=True,
    )
    check_complete(info, str(folder), "fetch it again")
    network: nn.Module = model.eval()
    return network


def _normalization(processor: Any) -> tuple[float, Sequence[float], Sequence[float]]:
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    if not processor.do_normalize:
        return scale, (0.0,) * 3, (1.0,) * 3
    return scale, processor.image_mean, processor.image_std


def _pixels(processor: Any, image: np.ndarray) -> Tensor:
    """Return what the processor makes of an image before its values are scaled: (3, H, W)."""
    batch = processor(
        images=Image.fromarray(image), do_rescale=False, do_normalize=False, return_tensors="pt"
    )
    pixels: Tensor = batch["pixel_values"][0]
    return pixels


def _check_preparation(processor: Any, network: LabelledClassifier, folder: Path) -> None:
    """Refuse a processor that does something else than scale, cut and normalise."""
    rng = np.random.default_rng(0)
    shapes = set()
    for height, width in ((300, 420), (420, 300)):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        pixels = _pixels(processor, image).float()
        whole = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
        shapes.add(tuple(pixels.shape))
        kept = torch.equal(pixels, pixels.round()) and pixels.min() >= 0 and pixels.max() <= 255
        if not kept or not torch.allclose(network.normalized(pixels)[0], whole, atol=1e-4):
            raise RealBenchError(
                f"{folder}: its image processor is of a kind that is not supported"
            )
    if len(shapes) > 1:
        raise RealBenchError(f"{folder}: its image processor makes pictures of different shapes")
