"""CLIP's vision tower with a mixture of low-rank experts, as in OmniAID (Guo et al., 2025).

Each projection of the self-attention is a frozen matrix plus low-rank experts (arXiv:2511.08423).
A router weighs the experts for kinds of content and keeps the best two; the last expert, for the
traces of generators, always counts in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.cards import Card
from realbench.detection.checkpoints import read_checkpoint
from realbench.detection.families.clip import fitting
from realbench.detection.families.clip_vision import (
    HEAD_WIDTH,
    PooledVision,
    gates_of,
    layer_count,
    linear,
    part,
)
from realbench.detection.families.published import published
from realbench.detection.families.views import ViewsDetector
from realbench.errors import RealBenchError, UsageError

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
_ROUTERS = ("clip", "patches")


class ExpertLinear(nn.Module):
    """x W + Σ gate U diag(S) V + bias, the sum over experts.

    Args:
        state: ``weight_main`` (O, I), ``bias`` (O,) or none, and of each expert
            ``U_experts.n`` (O, r),
            ``S_experts.n`` (r,) and ``V_experts.n`` (r, I).
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


class MixtureOfExperts(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to (n, outputs).

    Args:
        state: tensors by their published names.
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
        self.gating = nn.Sequential(
            linear(part(state, "gating_network.network.0.")),
            nn.ReLU(),
            linear(part(state, "gating_network.network.2.")),
        )
        self.head = linear(part(state, "head."))

    def forward(self, x: Tensor) -> Tensor:
        tokens = functional.conv2d(x, self.patches, stride=self.patches.shape[-1])
        tokens = tokens.flatten(2).transpose(1, 2)
        first = self.class_token.expand(len(x), 1, -1)
        tokens = torch.cat([first, tokens], dim=1) + self.positions
        seen = tokens[:, 1:].mean(dim=1) if self.clip is None else self.clip(x)
        content = gates_of(self.gating(seen), self.active)
        gates = torch.cat([content, torch.ones_like(content[:, :1])], dim=1)
        tokens = self.norm_before(tokens)
        for layer in self.layers:
            tokens = layer(tokens, gates)
        return self.head(self.norm_after(tokens[:, 0]))


def layer_norm(state: Mapping[str, Tensor]) -> nn.LayerNorm:
    """Return the layer normalisation of ``weight`` and ``bias``, with the usual ε of 1e-5."""
    norm = nn.LayerNorm(len(state["weight"]), eps=1e-5)
    norm.load_state_dict(dict(state))
    return norm


def build(card: Card) -> ViewsDetector:
    """Build the detector of a ``clip-experts`` card.

    ``model.options`` may have ``router`` (``"clip"`` or ``"patches"``) and ``active``, how many
    experts for content count (2).
    """
    options: dict[str, Any] = {"router": "clip", "active": 2} | card.model.options
    if options["router"] not in _ROUTERS:
        raise UsageError(f"{card.path}: router must be one of {', '.join(_ROUTERS)}")
    card.check_weights()
    path, spec = card.weights_path, card.weights
    state = read_checkpoint(path, key=spec.key, strip_prefix=spec.strip_prefix)
    try:
        with fitting(card):
            network = MixtureOfExperts(state, **options)
    except KeyError as error:
        raise RealBenchError(
            f"{path} does not fit family {card.family!r} of its card: it has no tensor {error}"
        ) from error
    side = round((len(network.positions) - 1) ** 0.5) * network.patches.shape[-1]
    if side != card.input.size:
        raise RealBenchError(f"{path} is for pictures of {side} px, its card for {card.input.size}")
    return published(card, network, network.head.out_features)
