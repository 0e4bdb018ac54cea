"""Small networks that look at nothing but the traces of up-sampling between neighbouring pixels.

NPR (Tan et al., CVPR 2024, arXiv:2312.10461) and SAFE (Li et al., KDD 2025, arXiv:2408.06741)
share a ResNet-50 that ends after its second stage, of 1.4 M parameters; they differ in the map
that it sees.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet

from realbench.detection.cards import Card
from realbench.detection.families.published import published
from realbench.detection.families.views import ViewsDetector
from realbench.detection.weights import load_weights
from realbench.errors import UsageError


def neighbouring_pixel_relations(x: Tensor) -> Tensor:
    """Return how pixels differ from the first one of their cell of 2 x 2, times two thirds.

    Equation 3 of NPR; the factor is of the authors' network.

    Args:
        x: (n, 3, S, S), S even.

    Returns:
        the same shape.
    """
    halved = functional.interpolate(x, scale_factor=0.5, mode="nearest")
    return (x - functional.interpolate(halved, scale_factor=2.0, mode="nearest")) * (2 / 3)


def diagonal_details(x: Tensor) -> Tensor:
    """Return the diagonal details of one wavelet level, scaled back to the picture's size.

    SAFE takes the HH band of the biorthogonal wavelet 1.3 with symmetric borders. The high-pass
    filter of this wavelet is Haar's, (1, -1) / √2 at an even offset, so the band is half the
    second difference of cells of 2 x 2, one cell more at each border than the picture has.

    Args:
        x: (n, 3, S, S), S even.

    Returns:
        the same shape.
    """
    for side in (-1, -2):  # two pixels are mirrored at each border
        first, last = (
            x.narrow(side, 0, 2).flip(side),
            x.narrow(side, x.shape[side] - 2, 2).flip(side),
        )
        x = torch.cat([first, x, last], dim=side)
    across = x[..., 0::2] - x[..., 1::2]
    details = (across[..., 0::2, :] - across[..., 1::2, :]) / 2
    size = (x.shape[-2] - 4, x.shape[-1] - 4)
    return functional.interpolate(details, size=size, mode="bilinear", antialias=True)


_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "npr": neighbouring_pixel_relations,
    "safe": diagonal_details,
}


class TraceCNN(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to (n, outputs); tensors are named as published.

    Args:
        traces: what the convolutions see of a picture.
        outputs: 1 for NPR, 2 for SAFE.
    """

    def __init__(self, traces: Callable[[Tensor], Tensor], outputs: int) -> None:
        super().__init__()
        whole = ResNet(Bottleneck, [3, 4, 1, 1])
        self.traces = traces
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn1, self.layer1, self.layer2 = whole.bn1, whole.layer1, whole.layer2
        self.fc1 = nn.Linear(512, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(self.traces(x))))
        x = functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        return self.fc1(self.layer2(self.layer1(x)).mean(dim=(2, 3)))


def build_trace_cnn(card: Card) -> ViewsDetector:
    """Build the detector of a ``trace-cnn`` card: its ``architecture`` is ``npr`` or ``safe``."""
    name = card.model.architecture
    if name not in _MAPS:
        raise UsageError(f"{card.path}: model.architecture {name!r} is none of {', '.join(_MAPS)}")
    if card.input.size % 2:
        raise UsageError(f"{card.path}: input.size must be even")
    outputs = 1 if card.output.real is None else 2
    network = TraceCNN(_MAPS[name], outputs)
    load_weights(network, card)
    return published(card, network, outputs)
