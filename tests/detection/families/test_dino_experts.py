"""OmniAID on DINOv3 against transformers' DINOv3 with the matrices that the gates make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor
from torchvision import transforms

import realbench
from realbench.errors import RealBenchError
from tests.detection.families.published_cards import logits, pictures

WIDTH = 128  # two heads, so that their order matters
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def tiny_dino() -> Any:
    config = transformers.DINOv3ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=64,
        num_register_tokens=4,
    )
    torch.manual_seed(0)
    model = transformers.DINOv3ViTModel(config).eval()
    for name, weight in model.named_parameters():
        weight.data.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.15)
    return model


def checkpoint(model: Any, *, experts: int = 4, rank: int = 2) -> dict[str, Tensor]:
    """A checkpoint with the published names: layers are called ``layer``."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int, scale: float = 0.2) -> Tensor:
        return torch.randn(shape, generator=generator) * scale

    state: dict[str, Tensor] = {}
    for live_name, live in model.state_dict().items():
        name, value = live_name.removeprefix("model."), live.clone()
        state[f"feature_extractor.{name}"] = value
        stem, _, last = name.rpartition(".")
        if stem.rpartition(".")[2] in PROJECTIONS and last == "weight":
            state[f"{stem}.weight_main"] = value
            for n in range(experts):
                state[f"{stem}.U_experts.{n}"] = random(WIDTH, rank)
                state[f"{stem}.S_experts.{n}"] = random(rank, scale=1.0)
                state[f"{stem}.V_experts.{n}"] = random(rank, WIDTH)
        else:
            state[name] = value + random(*value.shape, scale=0.02)
    for layer, (rows, columns) in {"0": (16, WIDTH), "2": (experts - 1, 16)}.items():
        state[f"gating_network.network.{layer}.weight"] = random(rows, columns, scale=0.5)
        state[f"gating_network.network.{layer}.bias"] = random(rows)
    return state | {"head.weight": random(2, WIDTH), "head.bias": random(2)}


def by_hand(model: Any, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """One picture at a time: gates first, then transformers' model with what they make."""
    live = {name: name.removeprefix("model.") for name in model.state_dict()}
    outputs = []
    for picture in x.split(1):
        model.load_state_dict({n: state[f"feature_extractor.{old}"] for n, old in live.items()})
        seen = model(picture).pooler_output
        gate = {n: state[f"gating_network.network.{n}"] for n in ("0.weight", "0.bias")}
        hidden = (seen @ gate["0.weight"].T + gate["0.bias"]).relu()
        last = {n: state[f"gating_network.network.2.{n}"] for n in ("weight", "bias")}
        scores = (hidden @ last["weight"].T + last["bias"])[0]
        best = scores.argsort(descending=True)[:2]
        gates = dict(zip(best.tolist(), scores[best].softmax(0).tolist(), strict=True))
        gates[len(scores)] = 1.0  # the last expert, always
        tuned = {}
        for name, old in live.items():
            stem, _, kind = old.rpartition(".")
            if f"{stem}.weight_main" in state and kind == "weight":
                weight = state[f"{stem}.weight_main"].clone()
                for expert, share in gates.items():
                    u, s, v = (state[f"{stem}.{letter}_experts.{expert}"] for letter in "USV")
                    weight += share * u @ torch.diag(s) @ v
                tuned[name] = weight
            else:
                tuned[name] = state[old]
        model.load_state_dict(tuned)
        pooled = model(picture).pooler_output
        outputs.append(pooled @ state["head.weight"].T + state["head.bias"])
    return torch.cat(outputs)


@pytest.mark.parametrize("layers", ["layer.", "model.layer."])
def test_omniaid_dino_gives_the_papers_number(tmp_path: Path, layers: str) -> None:
    model = tiny_dino()
    state = checkpoint(model)
    saved = {n.replace("extractor.layer.", f"extractor.{layers}"): v for n, v in state.items()}
    torch.save({"model": saved, "epoch": 0}, tmp_path / "checkpoint.pth")
    prepare = transforms.Compose(
        [
            transforms.Resize((448, 448)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    images = pictures((300, 420), (640, 512), (90, 120), (1, 1))
    x = torch.stack([prepare(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        expected = by_hand(model, state, x).softmax(dim=1)[:, 0].numpy()
    assert np.ptp(expected) > 0.01
    detector = realbench.load_detector("omniaid-dino", weights=tmp_path / "checkpoint.pth")
    found = torch.from_numpy(logits(detector, images)).sigmoid().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"head.weight": torch.ones(2, 3)}}, tmp_path / "checkpoint.pth")
    with pytest.raises(RealBenchError, match="has no tensor") as caught:
        realbench.load_detector("omniaid-dino", weights=tmp_path / "checkpoint.pth")
    assert "\n" not in str(caught.value)
