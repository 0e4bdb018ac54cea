"""What families of published networks share: their preprocessing, and a logit from classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

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
from realbench.detection.weights import card_tensors, fitting, load_weights, unpack
from realbench.errors import UsageError

_POINT = "bilinear-point"
_CELL = 14  # pixels a side of what DINOv2 calls a patch
_FILTERS = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
    "lanczos": InterpolationMode.LANCZOS,
}


def view(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Return what a published network sees of uint8 RGB (H, W, 3): uint8 (views, S, S, 3).

    The picture is scaled by Pillow and cut by torchvision, as the authors' scripts do; what is
    smaller than a crop is padded with black.
    """
    picture, size = Image.fromarray(image), spec.size
    if spec.fit == "letterbox":
        whole = letterbox(image, size).round().byte()
        return whole.permute(1, 2, 0).contiguous().numpy()[None]
    if spec.fit == "five-crops":
        return five_crops(image, size)
    if spec.squash_first:
        picture = _scaled(picture, [spec.squash_first, spec.squash_first], spec)
    if spec.fit == "squash":
        picture = _scaled(picture, [size, size], spec)
    elif spec.fit == "short-side":
        picture = _scaled(picture, [spec.short_side or size], spec)
    return np.array(transforms.center_crop(picture, [size, size]))[None]


def five_crops(image: np.ndarray, size: int) -> np.ndarray:
    """Return the middle and the four corners of a picture as B-Free takes them: uint8 (5, S, S, 3).

    They lie on the cells of 14 px that its network sees, counted from the top left corner. Where a
    side is shorter than ``size``, the picture's cells are repeated, and all five are alike.

    Args:
        image: uint8 RGB (H, W, 3).
        size: of the square, a multiple of 14.
    """
    small = min(image.shape[:2])
    if small < _CELL:
        image = np.tile(image, (math.ceil(_CELL / small), math.ceil(_CELL / small), 1))
    height, width = (side // _CELL * _CELL for side in image.shape[:2])
    image = image[:height, :width]
    if min(height, width) < size:
        repeats = (math.ceil(size / height), math.ceil(size / width), 1)
        return np.stack([np.tile(image, repeats)[:size, :size]] * 5)
    bottom, right = height - size, width - size
    middle = (bottom // _CELL // 2 * _CELL, right // _CELL // 2 * _CELL)
    places = (middle, (0, 0), (bottom, 0), (bottom, right), (0, right))
    return np.stack([image[y : y + size, x : x + size] for y, x in places])


def letterbox(image: np.ndarray, size: int) -> Tensor:
    """Return the whole picture, uint8 (H, W, 3), in a black square, as HPS v2 prepares it.

    Bicubic on numbers between the levels of a pixel: float32 (3, size, size), about [0, 255].
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
    count = 5 if spec.fit == "five-crops" else 1
    if spec.views != count:
        raise UsageError(
            f"{card.path}: a card of family {card.family!r} with this fit has input.views = {count}"
        )
    if spec.fit == "five-crops" and spec.size % _CELL:
        raise UsageError(f'{card.path}: fit = "five-crops" goes with a size that 14 divides')
    if spec.short_side and (spec.fit != "short-side" or spec.short_side < spec.size):
        raise UsageError(
            f'{card.path}: input.short_side goes with fit = "short-side" and is at least size'
        )
    if spec.fit == "letterbox" and (spec.resize != "bicubic" or spec.squash_first):
        raise UsageError(f'{card.path}: fit = "letterbox" goes with resize = "bicubic" alone')
    if spec.resize == _POINT and spec.fit != "squash":
        raise UsageError(f'{card.path}: resize "{_POINT}" goes with fit = "squash"')
    never_scaled = spec.fit in ("center-crop", "five-crops") and not spec.squash_first
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
    """Return the logit of P(real), (n,), where P is the softmax of logits (n, classes).

    It is the real class's logit (of index ``real``) minus the log-sum-exp of the others'.
    """
    others = torch.cat([outputs[:, :real], outputs[:, real + 1 :]], dim=1)
    return outputs[:, real] - others.logsumexp(dim=1)


def published(card: Card, network: nn.Module, outputs: int) -> ViewsDetector:
    """Return the detector of a network and the card that says what it sees and means.

    Args:
        network: maps normalised pictures (n, 3, S, S) to (n, outputs).

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
    seen = ("published", spec.size, spec.fit, spec.resize, spec.squash_first, spec.short_side)
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


def build_dino_lora(card: Card) -> ViewsDetector:
    """Build the detector of a ``dino-lora`` card: DINOv2 with adapters, as DDA published it.

    Its weights are ``base_model.model.*``, DINOv2 whose matrices have low-rank adapters, and
    ``base_model.fc.*``, a linear layer on the normalised class token (Chen et al., NeurIPS 2025).
    ``model.options`` may have ``alpha`` (1): an adapter counts alpha / rank times.
    """
    cells = card.input.size // _CELL
    options = {"alpha": 1.0, "num_classes": 1, "img_size": cells * _CELL} | card.model.options
    alpha, outputs = float(options.pop("alpha")), int(options["num_classes"])
    with torch.device("meta"):  # random numbers for a large network take seconds
        network = timm.create_model(card.model.architecture, pretrained=False, **options)
    state = {
        name.replace("base_model.model.", "", 1).replace("base_model.fc.", "head.", 1): value
        for name, value in unpack(card_tensors(card)).items()
        if not name.endswith(".mask_token")  # of the pretraining
    }
    with fitting(card):
        state = with_adapters(state, alpha)
        state["pos_embed"] = positions(state["pos_embed"], cells)
        network.load_state_dict(state, assign=True)
    return published(card, network, outputs)


def with_adapters(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Add low-rank adapters to their matrices (Hu et al., ICLR 2022, section 4.1).

    Args:
        state: for each matrix ``NAME.original_layer.weight`` (out, in), ``NAME.lora.lora_A``
            (rank, in) and ``NAME.lora.lora_B`` (out, rank).
        alpha: of the scale alpha / rank.
    """
    whole = {}
    for name, value in state.items():
        stem, adapted, last = name.partition(".original_layer.")
        if adapted and last == "weight":
            down, up = state[f"{stem}.lora.lora_A"], state[f"{stem}.lora.lora_B"]
            value = value + alpha / len(down) * up @ down
        if ".lora." not in name:
            whole[f"{stem}.{last}" if adapted else name] = value
    return whole


def positions(table: Tensor, cells: int) -> Tensor:
    """Bring a table of positions to another grid, as DINOv2 itself does.

    Its interpolation is bicubic without antialiasing, and by the ratio of ``cells`` + 0.1 to the
    table's side rather than by ``cells``, which its networks have been trained with.

    Args:
        table: (1, 1 + side², D), the class token's position first.
        cells: of a side of the new grid.

    Returns:
        (1, 1 + cells², D).
    """
    side = math.isqrt(table.shape[1] - 1)
    if side == cells:
        return table
    grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = (cells + 0.1) / side
    grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
