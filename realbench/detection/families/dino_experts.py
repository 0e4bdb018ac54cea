"""DINOv3 with a mixture of low-rank experts: the second backbone of OmniAID (Guo et al., 2025).

The experts, their router and the way they count are those of ``clip_experts``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.cards import Card
from realbench.detection.checkpoints import read_checkpoint
from realbench.detection.families.clip import fitting
from realbench.detection.families.clip_experts import ExpertLinear, layer_norm
from realbench.detection.families.clip_vision import (
    HEAD_WIDTH,
    gates_of,
    layer_count,
    linear,
    part,
)
from realbench.detection.families.published import published
from realbench.detection.families.views import ViewsDetector
from realbench.errors import RealBenchError

_ROPE_BASE = 100.0
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class Projection(nn.Module):
    """A linear layer, of experts where the checkpoint has some."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.experts = ExpertLinear(state) if "weight_main" in state else None
        if self.experts is None:
            self.weight = nn.Parameter(state["weight"])
            self.bias = nn.Parameter(state["bias"]) if "bias" in state else None

    def forward(self, x: Tensor, gates: Tensor | None) -> Tensor:
        if self.experts is None or gates is None:
            return functional.linear(x, self.weight, self.bias)
        mapped: Tensor = self.experts(x, gates)
        return mapped


class Layer(nn.Module):
    """One layer of the transformer; positions turn queries and keys of the patches."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.projections = nn.ModuleDict(
            {name: Projection(part(state, f"attention.{name}.")) for name in _PROJECTIONS}
        )
        self.norm1 = layer_norm(part(state, "norm1."))
        self.norm2 = layer_norm(part(state, "norm2."))
        self.scale1 = nn.Parameter(state["layer_scale1.lambda1"])
        self.scale2 = nn.Parameter(state["layer_scale2.lambda1"])
        self.up = linear(part(state, "mlp.up_proj."))
        self.down = linear(part(state, "mlp.down_proj."))

    def forward(self, x: Tensor, gates: Tensor | None, rope: tuple[Tensor, Tensor]) -> Tensor:
        n, tokens, width = x.shape
        normed = self.norm1(x)
        q, k, v = (
            self.projections[name](normed, gates).view(n, tokens, -1, HEAD_WIDTH).transpose(1, 2)
            for name in _PROJECTIONS[:3]
        )
        attended = functional.scaled_dot_product_attention(turned(q, *rope), turned(k, *rope), v)
        attended = attended.transpose(1, 2).reshape(n, tokens, width)
        x = x + self.scale1 * self.projections["o_proj"](attended, gates)
        return x + self.scale2 * self.down(functional.gelu(self.up(self.norm2(x))))


def rotations(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of DINOv3's two-dimensional rotary positions, (patches, 64) each.

    The centres of the patches lie in [-1, 1]; half of a head's angles are of the height, half of
    the width, with 16 frequencies each.
    """
    steps = torch.arange(0, 1, 4 / HEAD_WIDTH, device=device)
    frequencies = 2 * math.pi / _ROPE_BASE**steps
    centres = [(torch.arange(count, device=device) + 0.5) / count for count in (rows, columns)]
    places = torch.cartesian_prod(*centres) * 2 - 1
    angles = (places[:, :, None] * frequencies).flatten(1).tile(2)
    return angles.cos(), angles.sin()


def turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the patches' part of queries or keys (n, heads, tokens, 64); the first tokens stay."""
    first = x.shape[-2] - len(cosines)
    patches = x[:, :, first:]
    one, other = patches.chunk(2, dim=-1)
    patches = patches * cosines + torch.cat([-other, one], dim=-1) * sines
    return torch.cat([x[:, :, :first], patches], dim=2)


class Transformer(nn.Module):
    """DINOv3: maps normalised pictures (n, 3, S, S) to the class token's output (n, D)."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.first = nn.Parameter(
            torch.cat([state["embeddings.cls_token"], state["embeddings.register_tokens"]], dim=1)
        )
        self.patches = nn.Parameter(state["embeddings.patch_embeddings.weight"])
        self.patches_bias = nn.Parameter(state["embeddings.patch_embeddings.bias"])
        self.layers = nn.ModuleList(
            Layer(part(state, f"layer.{n}.")) for n in range(layer_count(state, "layer."))
        )
        self.norm = layer_norm(part(state, "norm."))

    def forward(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        grid = functional.conv2d(x, self.patches, self.patches_bias, self.patches.shape[-1])
        tokens = grid.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], dim=1)
        rope = rotations(grid.shape[-2], grid.shape[-1], x.device)
        for layer in self.layers:
            tokens = layer(tokens, gates, rope)
        return self.norm(tokens[:, 0])


class MixtureOfExperts(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to (n, outputs).

    Args:
        state: tensors by their published names.
        active: how many experts for content count.
    """

    def __init__(self, state: Mapping[str, Tensor], active: int) -> None:
        super().__init__()
        self.active = active
        # Versions of transformers differ in what they call the list of layers.
        frozen = part(state, "feature_extractor.")
        self.frozen = Transformer({name.removeprefix("model."): v for name, v in frozen.items()})
        self.tuned = Transformer(part(state, ""))
        self.gating = nn.Sequential(
            linear(part(state, "gating_network.network.0.")),
            nn.ReLU(),
            linear(part(state, "gating_network.network.2.")),
        )
        self.head = linear(part(state, "head."))

    def forward(self, x: Tensor) -> Tensor:
        content = gates_of(self.gating(self.frozen(x)), self.active)
        gates = torch.cat([content, torch.ones_like(content[:, :1])], dim=1)
        return self.head(self.tuned(x, gates))


def build(card: Card) -> ViewsDetector:
    """Build the detector of a ``dino-experts`` card.

    ``model.options`` may have ``active``, how many experts for content count (2).
    """
    card.check_weights()
    path, spec = card.weights_path, card.weights
    state = read_checkpoint(path, key=spec.key, strip_prefix=spec.strip_prefix)
    try:
        with fitting(card):
            network = MixtureOfExperts(state, **({"active": 2} | card.model.options))
    except KeyError as error:
        raise RealBenchError(
            f"{path} does not fit family {card.family!r} of its card: it has no tensor {error}"
        ) from error
    return published(card, network, network.head.out_features)
