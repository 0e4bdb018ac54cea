"""CLIP's vision tower and DINOv3 with low-rank experts, as in OmniAID (Guo et al., 2025).

Each projection of the self-attention is a frozen matrix plus low-rank experts (arXiv:2511.08423).
A router weighs the experts for kinds of content and keeps the best two; the last expert, for the
traces of generators, always counts in full. Either backbone has them alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.cards import Card
from realbench.detection.families.clip import (
    HEAD_WIDTH,
    PooledVision,
    layer_count,
    linear,
    part,
)
from realbench.detection.families.published import published
from realbench.detection.families.views import ViewsDetector
from realbench.detection.weights import card_tensors, fitting
from realbench.errors import RealBenchError, UsageError

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
_ROUTERS = ("clip", "patches")


class ExpertLinear(nn.Module):
    """x W + Σ gate U diag(S) V + bias, the sum over experts.

    Args:
        state: ``weight_main`` (O, I), ``bias`` (O,) or none, and of each expert
            ``U_experts.n`` (O, r), ``S_experts.n`` (r,) and ``V_experts.n`` (r, I).
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        count = layer_count(state, "S_experts.")
        self.main = nn.Parameter(state["weight_main"])
        self.bias = nn.Parameter(state["bias"]) if "bias" in state else None
        self.u, self.s, self.v = (
            nn.Parameter(torch.stack([state[f"{letter}_experts.{n}"] for n in range(count)]))
            for letter in "USV"
        )

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Map tokens (n, t, I) with gates (n, experts) to (n, t, O)."""
        inner = torch.einsum("nti,eri->nter", x, self.v)
        inner = inner * (gates[:, :, None] * self.s)[:, None]
        added = torch.einsum("nter,eor->nto", inner, self.u)
        return functional.linear(x, self.main, self.bias) + added


def gating_network(state: Mapping[str, Tensor]) -> nn.Sequential:
    """Return the router: it maps what it sees to a logit for each expert for content."""
    first, last = (linear(part(state, f"gating_network.network.{n}.")) for n in (0, 2))
    return nn.Sequential(first, nn.ReLU(), last)


def gates_of(logits: Tensor, active: int) -> Tensor:
    """Return the experts' weights (n, experts + 1): of the last one, which always counts, it is 1.

    Of those for content (``logits`` are (n, experts)) it is a softmax over the ``active`` largest.
    """
    largest, indices = logits.topk(active, dim=-1)
    content = torch.zeros_like(logits).scatter(-1, indices, largest.softmax(dim=-1))
    return torch.cat([content, torch.ones_like(content[:, :1])], dim=1)


class ExpertLayer(nn.Module):
    """One layer of the transformer; its attention is made of experts."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.projections = nn.ModuleDict(
            {name: ExpertLinear(part(state, f"self_attn.{name}.")) for name in _PROJECTIONS}
        )
        self.norm1 = layer_norm(part(state, "layer_norm1."))
        self.norm2 = layer_norm(part(state, "layer_norm2."))
        self.fc1 = linear(part(state, "mlp.fc1."))
        self.fc2 = linear(part(state, "mlp.fc2."))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        n, tokens, width = x.shape
        heads = max(1, width // HEAD_WIDTH)
        normed = self.norm1(x)
        q, k, v = (
            self.projections[name](normed, gates).view(n, tokens, heads, -1).transpose(1, 2)
            for name in _PROJECTIONS[:3]
        )
        attended = functional.scaled_dot_product_attention(q, k, v)
        attended = attended.transpose(1, 2).reshape(n, tokens, width)
        x = x + self.projections["out_proj"](attended, gates)
        hidden = self.fc1(self.norm2(x))
        return x + self.fc2(hidden * torch.sigmoid(1.702 * hidden))  # CLIP's quick GELU


class ClipExperts(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to (n, outputs).

    Args:
        router: what the router sees: ``"clip"``, the pooled output of an unchanged CLIP, or
            ``"patches"``, the mean of the embedded patches.
        active: how many experts for content count.
    """

    def __init__(self, state: Mapping[str, Tensor], router: str, active: int) -> None:
        super().__init__()
        self.active = active
        self.clip = PooledVision(part(state, "feature_extractor.")) if router == "clip" else None
        embeddings = part(state, "embeddings.")
        self.class_token = nn.Parameter(embeddings["class_embedding"])
        self.patches = nn.Parameter(embeddings["patch_embedding.weight"])
        self.positions = nn.Parameter(embeddings["position_embedding.weight"])
        self.norm_before = layer_norm(part(state, "ln_pre."))
        self.norm_after = layer_norm(part(state, "ln_post."))
        self.layers = nn.ModuleList(
            ExpertLayer(part(state, f"encoder_layers.{n}."))
            for n in range(layer_count(state, "encoder_layers."))
        )
        self.gating = gating_network(state)
        self.head = linear(part(state, "head."))

    def forward(self, x: Tensor) -> Tensor:
        tokens = functional.conv2d(x, self.patches, stride=self.patches.shape[-1])
        tokens = tokens.flatten(2).transpose(1, 2)
        first = self.class_token.expand(len(x), 1, -1)
        tokens = torch.cat([first, tokens], dim=1) + self.positions
        seen = tokens[:, 1:].mean(dim=1) if self.clip is None else self.clip(x)
        gates = gates_of(self.gating(seen), self.active)
        tokens = self.norm_before(tokens)
        for layer in self.layers:
            tokens = layer(tokens, gates)
        return self.head(self.norm_after(tokens[:, 0]))


def layer_norm(state: Mapping[str, Tensor]) -> nn.LayerNorm:
    """Return the layer normalisation of ``weight`` and ``bias``, with the usual ε of 1e-5."""
    norm = nn.LayerNorm(len(state["weight"]), eps=1e-5)
    norm.load_state_dict(dict(state))
    return norm


def build_clip_experts(card: Card) -> ViewsDetector:
    """Build the detector of a ``clip-experts`` card.

    ``model.options`` may have ``router`` (``"clip"`` or ``"patches"``) and ``active``, how many
    experts for content count (2).
    """
    options: dict[str, Any] = {"router": "clip", "active": 2} | card.model.options
    if options["router"] not in _ROUTERS:
        raise UsageError(f"{card.path}: router must be one of {', '.join(_ROUTERS)}")
    state = card_tensors(card)
    with fitting(card):
        network = ClipExperts(state, **options)
    side = round((len(network.positions) - 1) ** 0.5) * network.patches.shape[-1]
    if side != card.input.size:
        raise RealBenchError(
            f"{card.weights_path} is for pictures of {side} px, its card for {card.input.size}"
        )
    return published(card, network, network.head.out_features)


_ROPE_BASE = 100.0
_DINO_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


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
            {name: Projection(part(state, f"attention.{name}.")) for name in _DINO_PROJECTIONS}
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
            for name in _DINO_PROJECTIONS[:3]
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


class DinoExperts(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to (n, outputs).

    Args:
        active: how many experts for content count.
    """

    def __init__(self, state: Mapping[str, Tensor], active: int) -> None:
        super().__init__()
        self.active = active
        # Versions of transformers differ in what they call the list of layers.
        frozen = part(state, "feature_extractor.")
        self.frozen = Transformer({name.removeprefix("model."): v for name, v in frozen.items()})
        self.tuned = Transformer(part(state, ""))
        self.gating = gating_network(state)
        self.head = linear(part(state, "head."))

    def forward(self, x: Tensor) -> Tensor:
        gates = gates_of(self.gating(self.frozen(x)), self.active)
        return self.head(self.tuned(x, gates))


def build_dino_experts(card: Card) -> ViewsDetector:
    """Build the detector of a ``dino-experts`` card.

    ``model.options`` may have ``active``, how many experts for content count (2).
    """
    state = card_tensors(card)
    with fitting(card):
        network = DinoExperts(state, **({"active": 2} | card.model.options))
    return published(card, network, network.head.out_features)
