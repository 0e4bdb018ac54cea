"""What families of published networks share: their preprocessing, and a logit from classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from realbench.detection.cards import Card
from realbench.detection.families.views import ViewsDetector
from realbench.detection.specs import InputSpec
from realbench.detection.weights import load_weights
from realbench.errors import UsageError

_POINT = "bilinear-point"
_FILTERS = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
    "lanczos": InterpolationMode.LANCZOS,
}


def view(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Return the one view that a published network sees: uint8 (1, S, S, 3).

    The picture is scaled by Pillow and cut by torchvision, as the authors' scripts do; what is
    smaller than a crop is padded with black.

    Args:
        image: uint8 RGB (H, W, 3).
        spec: its ``fit`` says how.
    """
    picture, size = Image.fromarray(image), spec.size
    if spec.fit == "letterbox":
        whole = letterbox(image, size).round().byte()
        return whole.permute(1, 2, 0).contiguous().numpy()[None]
    if spec.squash_first:
        picture = _scaled(picture, [spec.squash_first, spec.squash_first], spec)
    if spec.fit == "squash":
        picture = _scaled(picture, [size, size], spec)
    elif spec.fit == "short-side":
        picture = _scaled(picture, [size], spec)
    return np.array(transforms.center_crop(picture, [size, size]))[None]


def letterbox(image: np.ndarray, size: int) -> Tensor:
    """Return the whole picture in the middle of a black square, as HPS v2 prepares it.

    Bicubic on numbers between the levels of a pixel: float32 (3, size, size), about [0, 255].

    Args:
        image: uint8 RGB (H, W, 3).
        size: of the square.
    """
    height, width = image.shape[:2]
    scale = size / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1).float()
    scaled = functional.interpolate(
        pixels[None], size=(rows, columns), mode="bicubic", antialias=True, align_corners=False
    )[0]
    top, left = (size - rows) // 2, (size - columns) // 2
    return functional.pad(scaled, (left, size - columns - left, top, size - rows - top))


def _scaled(picture: Image.Image, size: list[int], spec: InputSpec) -> Image.Image:
    if spec.resize == _POINT:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        between = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        return Image.fromarray(between[0].round().byte().permute(1, 2, 0).numpy())
    scaled: Image.Image = transforms.resize(picture, size, _FILTERS[spec.resize])
    return scaled


def views(card: Card) -> Callable[[np.ndarray], np.ndarray]:
    """Return the preprocessing of a card.

    Raises:
        UsageError: the card does not say how a picture becomes a view.
    """
    spec = card.input
    if spec.fit is None:
        raise UsageError(f"{card.path}: say how a picture becomes a view with input.fit")
    if spec.views != 1:
        raise UsageError(f"{card.path}: a card of family {card.family!r} has input.views = 1")
    if spec.fit == "letterbox" and (spec.resize != "bicubic" or spec.squash_first):
        raise UsageError(f'{card.path}: fit = "letterbox" goes with resize = "bicubic" alone')
    if spec.resize == _POINT and spec.fit != "squash":
        raise UsageError(f'{card.path}: resize "{_POINT}" goes with fit = "squash"')
    never_scaled = spec.fit == "center-crop" and not spec.squash_first
    if spec.resize == "none" and not never_scaled:
        raise UsageError(f"{card.path}: say how the picture is scaled with input.resize")
    return lambda image: view(image, spec)


class Normalized(nn.Module):
    """A network behind the normalisation of its input, whose outputs become one logit.

    Input: uint8-valued float RGB of shape (n, 3, S, S); output: logits of shape (n,), of P(real)
    or, where the card's output is ``logit-fake``, of P(fake).

    Args:
        network: maps normalised pictures to (n, outputs).
        card: says mean, deviation and what the outputs mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, card: Card) -> None:
        super().__init__()
        self.network = network
        self.real = card.output.real
        for name, triple in (("mean", card.input.mean), ("std", card.input.std)):
            self.register_buffer(name, torch.tensor(triple).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.network((x / 255 - self.mean) / self.std)
        if outputs.ndim == 1:
            return outputs
        return outputs.squeeze(1) if self.real is None else class_logit(outputs, self.real)


def class_logit(outputs: Tensor, real: int) -> Tensor:
    """Return the logit of P(real), where P is the softmax over classes.

    Args:
        outputs: logits of shape (n, classes).
        real: index of the real class.

    Returns:
        shape (n,): the real class's logit minus the log-sum-exp of the others'.
    """
    others = torch.cat([outputs[:, :real], outputs[:, real + 1 :]], dim=1)
    return outputs[:, real] - others.logsumexp(dim=1)


def published(card: Card, network: nn.Module, outputs: int) -> ViewsDetector:
    """Return the detector of a network and the card that says what it sees and means.

    Args:
        card: as read.
        network: maps normalised pictures (n, 3, S, S) to (n, outputs).
        outputs: their number.

    Raises:
        UsageError: the card's output does not go with that number, or its input is incomplete.
    """
    real = card.output.real
    if outputs == 1 and real is not None:
        raise UsageError(
            f"{card.path}: the network has one output: say logit-real or logit-fake in [output]"
        )
    if outputs > 1 and (real is None or real >= outputs):
        raise UsageError(
            f"{card.path}: the network has {outputs} outputs: say in [output] that they are "
            'classes and which is real (kind = "classes", real = 0)'
        )
    spec = card.input
    seen = ("published", spec.size, spec.fit, spec.resize, spec.squash_first)
    return ViewsDetector(
        card, Normalized(network, card), views(card), embedded=False, preparation=seen
    )


def build_timm_classifier(card: Card) -> ViewsDetector:
    """Build the detector of a ``timm-classifier`` card.

    The head has ``num_classes`` outputs, of ``model.options``: by default one where the card's
    output is a logit, and two where it is classes.
    """
    options = {"num_classes": 1 if card.output.real is None else 2} | card.model.options
    network = timm.create_model(card.model.architecture, pretrained=False, **options)
    load_weights(network, card)
    return published(card, network, int(options["num_classes"]))
