"""The plain loop of papers' scripts, on detectors of published shapes and random weights.

Written in the terms of torchvision, open_clip and transformers, without this project: what
benchmarks/detection.py compares the pipeline with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


# --- Random weights of the published shapes ------------------------------------------------------


def random_state(network: nn.Module) -> dict[str, Tensor]:
    """Return half-precision tensors for a network on the meta device."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            state[name] = torch.arange(value.numel()).view(value.shape)
            continue
        scale = torch.randn(value.shape, generator=generator, dtype=torch.float32) * 0.02
        is_norm = ("ln_" in name or "norm" in name) and name.endswith("weight")
        state[name] = (scale + is_norm).half()
    return state


def write_weights(detector: str, folder: Path) -> dict[str, str]:
    """Write the files of a detector; returns their paths by part."""
    from safetensors.torch import save_file

    if detector == "univfd":
        tower = {f"visual.{name}": value for name, value in random_state(openai_tower()).items()}
        save_file(tower, folder / "open_clip_model.safetensors")
        torch.save(nn.Linear(768, 1).state_dict(), folder / "fc_weights.pth")
        return {
            "weights": str(folder / "fc_weights.pth"),
            "backbone": str(folder / "open_clip_model.safetensors"),
        }
    state: dict[str, Tensor] = {}
    for name, value in random_state(transformers_tower()).items():
        stem, _, last = name.rpartition(".")
        if "self_attn" in name and last == "weight":
            rows, columns = value.shape
            state |= {
                f"module.backbone.{stem}.weight_main": value,
                f"module.backbone.{stem}.U_residual": torch.randn(rows, 1).half(),
                f"module.backbone.{stem}.S_residual": torch.full((1,), 1e-3).half(),
                f"module.backbone.{stem}.V_residual": torch.randn(1, columns).half(),
            }
        else:
            state[f"module.backbone.{name}"] = value
    head = nn.Linear(1024, 2).state_dict()
    torch.save(state | {f"module.head.{k}": v for k, v in head.items()}, folder / "effort.pth")
    return {"weights": str(folder / "effort.pth")}


def openai_tower(device: str = "meta") -> nn.Module:
    import logging

    import open_clip

    logging.disable(logging.WARNING)  # on random weights
    model = open_clip.create_model("ViT-L-14-quickgelu", load_weights=False, device=device)
    tower: nn.Module = model.visual
    return tower


def transformers_tower(device: str = "meta") -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
    )
    with torch.device(device):
        model = CLIPVisionModel(config)
    tower: nn.Module = getattr(model, "vision_model", model)
    return tower


# --- The plain loop, in torchvision's and the authors' terms, without this project ---------------


class ResidualLinear(nn.Module):
    """A layer of Effort as its script runs it: the matrix is put together in every pass."""

    def __init__(self, parts: Mapping[str, Tensor], bias: Tensor) -> None:
        super().__init__()
        for name, value in {**parts, "bias": bias}.items():
            self.register_buffer(name, value.float())

    def forward(self, x: Tensor) -> Tensor:
        residual = self.U_residual @ torch.diag(self.S_residual) @ self.V_residual
        return nn.functional.linear(x, self.weight_main + residual, self.bias)


class PooledHead(nn.Module):
    """The tower of transformers and Effort's layer of two classes."""

    def __init__(self, tower: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.tower, self.head = tower, head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.tower(pixel_values=x).pooler_output)
        return logits


def plain_network(detector: str, weights: Mapping[str, str]) -> tuple[nn.Module, Any]:
    """Return a network and torchvision transforms that make its input from a PIL image."""
    normalize = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    if detector == "univfd":
        from safetensors.torch import load_file

        tower = openai_tower()
        state = load_file(weights["backbone"])
        floats = {name.removeprefix("visual."): value.float() for name, value in state.items()}
        tower.load_state_dict(floats, assign=True)
        head = nn.Linear(768, 1)
        head.load_state_dict(torch.load(weights["weights"], weights_only=True))
        return nn.Sequential(tower, head), transforms.Compose(
            [transforms.CenterCrop(224), *normalize]
        )
    state = torch.load(weights["weights"], weights_only=True)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    tower = transformers_tower("cpu")  # it counts its positions itself, in a buffer of no file
    whole = {
        name.removeprefix("backbone."): value.float()
        for name, value in state.items()
        if name.startswith("backbone.") and not name.endswith(("_main", "_residual"))
    }
    tower.load_state_dict(whole, strict=False, assign=True)
    for name, module in list(tower.named_modules()):
        if f"backbone.{name}.weight_main" in state:
            parent, _, own = name.rpartition(".")
            parts = ("weight_main", "U_residual", "S_residual", "V_residual")
            layer = ResidualLinear(
                {part: state[f"backbone.{name}.{part}"] for part in parts}, module.bias.data
            )
            setattr(tower.get_submodule(parent), own, layer)
    head = nn.Linear(1024, 2)
    head.load_state_dict({part: state[f"head.{part}"].float() for part in ("weight", "bias")})
    to_tensor, normalized = normalize
    # As OpenCV, which its script resizes with: no smoothing.
    resize = transforms.Resize((224, 224), antialias=False)
    return PooledHead(tower, head), transforms.Compose([to_tensor, resize, normalized])


def plain_loop(
    detector: str, weights: Mapping[str, str], device: str, paths: Sequence[Path]
) -> Callable[[], list[float]]:
    network, transform = plain_network(detector, weights)
    network = network.eval().requires_grad_(False).to(device)

    def score() -> list[float]:
        scores = []
        for path in paths:
            with torch.no_grad():
                x = transform(Image.open(path).convert("RGB"))[None].to(device)
                output = network(x)
                fake = output.sigmoid() if output.shape[1] == 1 else output.softmax(dim=1)[:, 1]
                scores.append(1 - fake.item())
        return scores

    return score
