"""CLIP's vision tower as transformers has it, built to fit the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# Every published CLIP transformer has heads of this width.
HEAD_WIDTH = 64

_EMBEDDED_POSITIONS = "embeddings.position_ids"  # saved by older versions, computed by newer ones


class PooledVision(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to CLIP's pooled output (n, D), before its projection.

    Args:
        state: tensors of the tower by transformers' names; their shapes say how large it is.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModel

        width, _, patch, _ = state["embeddings.patch_embedding.weight"].shape
        patches = len(state["embeddings.position_embedding.weight"]) - 1
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=len(state["encoder.layers.0.mlp.fc1.weight"]),
            num_hidden_layers=layer_count(state, "encoder.layers."),
            num_attention_heads=max(1, width // HEAD_WIDTH),
            image_size=patch * round(patches**0.5),
            patch_size=patch,
        )
        model = CLIPVisionModel(config)
        self.tower: nn.Module = getattr(model, "vision_model", model)
        kept = {name: v for name, v in state.items() if name != _EMBEDDED_POSITIONS}
        self.tower.load_state_dict(kept)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.tower(pixel_values=x).pooler_output
        return pooled


def layer_count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Return how many layers a checkpoint has, named ``prefix`` and a number from 0."""
    numbers = {
        int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix)
    }
    return max(numbers, default=-1) + 1


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it, in float32."""
    return {
        name.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for name, value in state.items()
        if name.startswith(prefix)
    }


def linear(state: Mapping[str, Tensor]) -> nn.Linear:
    """Return the linear layer of ``weight`` and ``bias``."""
    outputs, width = state["weight"].shape
    layer = nn.Linear(width, outputs)
    layer.load_state_dict(dict(state))
    return layer


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put matrices that were split by their singular values together again.

    A matrix is ``weight_main`` + ``U_residual`` diag(``S_residual``) ``V_residual``; what else a
    training script keeps of it (``U_r`` and the like) is left out.
    """
    whole = {}
    for name, value in state.items():
        stem, _, last = name.rpartition(".")
        if last == "weight_main":
            residual = (f"{stem}.{letter}_residual" for letter in "USV")
            u, s, v = (state[one] for one in residual)
            whole[f"{stem}.weight"] = value + (u * s) @ v
        elif not last.endswith(("_residual", "_r", "_fnorm")):
            whole[name] = value
    return whole


class Head(nn.Module):
    """A tower and the layer that judges its pooled output: maps pictures to (n, outputs)."""

    def __init__(self, tower: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.tower = tower
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tower(x))


def gates_of(logits: Tensor, active: int) -> Tensor:
    """Return the weights of experts: a softmax over the ``active`` largest, 0 for the others.

    Args:
        logits: of shape (n, experts).
    """
    largest, indices = logits.topk(active, dim=-1)
    return torch.zeros_like(logits).scatter(-1, indices, largest.softmax(dim=-1))
