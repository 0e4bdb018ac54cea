"""A linear layer on the image features of a CLIP model, as in UnivFD (Ojha et al., CVPR 2023)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.cards import Card
from realbench.detection.checkpoints import read_checkpoint
from realbench.detection.families.clip import image_encoder
from realbench.detection.families.published import published
from realbench.detection.families.views import ViewsDetector
from realbench.errors import RealBenchError, UsageError


class LinearProbe(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to (n, outputs).

    Args:
        encoder: maps them to features (n, D).
        head: maps features to outputs.
        unit_length: whether features are scaled to length 1 before.
    """

    def __init__(self, encoder: nn.Module, head: nn.Linear, *, unit_length: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.unit_length = unit_length

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        return self.head(functional.normalize(features, dim=1) if self.unit_length else features)


def build(card: Card) -> ViewsDetector:
    """Build the detector of a ``clip-linear`` card.

    Its ``backbone`` is the CLIP model, its ``weights`` the linear layer, ``weight`` (outputs, D)
    and ``bias`` (outputs,). With ``unit_length = true`` in ``model.options`` the features are
    scaled to length 1.
    """
    if card.backbone is None:
        raise UsageError(
            f"{card.path}: a clip-linear card says where the CLIP model is: [backbone]"
        )
    options = dict(card.model.options)
    unit_length = bool(options.pop("unit_length", False))
    head = _head(card)  # before the large file, so that a wrong small one shows at once
    model = card.model.model_copy(update={"options": options})
    encoder = image_encoder(card.changed(model=model), "backbone")
    width = getattr(encoder, "output_dim", head.in_features)
    if width != head.in_features:
        raise RealBenchError(
            f"{card.weights_path} takes {head.in_features} features, but "
            f"{card.model.architecture!r} of its card gives {width}"
        )
    probe = LinearProbe(encoder, head, unit_length=unit_length)
    return published(card, probe, head.out_features)


def _head(card: Card) -> nn.Linear:
    card.check_weights()
    path = card.weights_path
    state = read_checkpoint(path, key=card.weights.key, strip_prefix=card.weights.strip_prefix)
    if set(state) != {"weight", "bias"} or state["weight"].ndim != 2:
        raise RealBenchError(
            f"{path} is no linear layer: it should hold weight and bias, but holds "
            f"{', '.join(list(state)[:5])}"
        )
    outputs, width = state["weight"].shape
    head = nn.Linear(width, outputs)
    head.load_state_dict({name: value.float() for name, value in state.items()})
    return head
