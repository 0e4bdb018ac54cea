"""Effort and OmniAID against transformers' CLIP and their papers' equations."""

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
from tests.detection.families.published_cards import changed_card, logits, pictures

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
SIZES = ((300, 420), (640, 512), (90, 120), (1, 1))
WIDTH, PATCH = 128, 56  # two heads, so that their order matters


def tiny_clip(side: int) -> Any:
    """A random vision tower of transformers whose pooled output follows the picture."""
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=side,
        patch_size=PATCH,
    )
    torch.manual_seed(0)
    model = transformers.CLIPVisionModel(config).eval()
    for name, weight in model.named_parameters():
        weight.data.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.15)
    return getattr(model, "vision_model", model)


def prepared(images: list[np.ndarray], side: int, *, first: int | None = None) -> Tensor:
    steps = [] if first is None else [transforms.Resize((first, first))]
    prepare = transforms.Compose(
        [
            *steps,
            transforms.Resize((side, side)),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return torch.stack([prepare(Image.fromarray(image)) for image in images])


# --- Effort ---


def split(weight: Tensor, rank: int) -> dict[str, Tensor]:
    """Split a matrix as Effort does; the residual is changed, as training would."""
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    main = u[:, :-rank] @ torch.diag(s[:-rank]) @ v[:-rank]
    noise = torch.randn(s[-rank:].shape, generator=torch.Generator().manual_seed(1))
    return {
        "weight_main": main,
        "U_residual": u[:, -rank:],
        "S_residual": s[-rank:] + 2 * noise,
        "V_residual": v[-rank:],
    }


def effort_checkpoint(tower: Any) -> dict[str, Tensor]:
    state = {}
    for name, value in tower.state_dict().items():
        stem, _, last = name.rpartition(".")
        if stem.rpartition(".")[2] in PROJECTIONS and last == "weight":
            state |= {f"backbone.{stem}.{n}": one for n, one in split(value, 1).items()}
        else:
            state[f"backbone.{name}"] = value
    torch.manual_seed(2)
    head = torch.nn.Linear(WIDTH, 2)
    return state | {f"head.{name}": value for name, value in head.state_dict().items()}


def test_effort_gives_the_papers_number(tmp_path: Path) -> None:
    tower = tiny_clip(224)
    state = effort_checkpoint(tower)
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "effort.pth")
    for name, module in tower.named_modules():
        if name.rpartition(".")[2] in PROJECTIONS:
            of = {n: state[f"backbone.{name}.{n}"] for n in split(module.weight.data, 1)}
            residual = of["U_residual"] @ torch.diag(of["S_residual"]) @ of["V_residual"]
            module.weight.data = of["weight_main"] + residual
    images = pictures(*SIZES)
    x = torch.stack([opencv_like(image, 224) for image in images])
    x = transforms.Normalize(MEAN, STD)(x)
    with torch.no_grad():
        pooled = tower(pixel_values=x).pooler_output
        outputs = pooled @ state["head.weight"].T + state["head.bias"]
        expected = outputs.softmax(dim=1)[:, 0].numpy()
    assert np.ptp(expected) > 0.01
    detector = realbench.load_detector("effort", weights=tmp_path / "effort.pth")
    found = torch.from_numpy(logits(detector, images)).sigmoid().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def opencv_like(image: np.ndarray, size: int) -> Tensor:
    """Scale as ``cv2.resize`` with ``INTER_LINEAR``: between the four nearest pixels alone."""

    def along(values: np.ndarray, axis: int) -> np.ndarray:
        length = values.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, length - 1)
        share = (place - low).reshape([-1 if n == axis else 1 for n in range(3)])
        return values.take(low, axis) * (1 - share) + values.take(high, axis) * share

    scaled = along(along(image.astype(np.float64), 0), 1)
    return torch.from_numpy(np.round(scaled) / 255).permute(2, 0, 1).float()


def test_the_published_checkpoints_have_this_many_tensors() -> None:
    """681 tensors of 303,378,530 numbers, by the names that this family reads."""
    with torch.device("meta"):
        model = transformers.CLIPVisionModel(
            transformers.CLIPVisionConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=24,
                num_attention_heads=16,
                patch_size=14,
            )
        )
    tower = getattr(model, "vision_model", model)
    shapes: dict[str, tuple[int, ...]] = {"head.weight": (2, 1024), "head.bias": (2,)}
    for name, value in tower.state_dict().items():
        stem, _, last = name.rpartition(".")
        if stem.rpartition(".")[2] in PROJECTIONS and last == "weight":
            residual = {"weight_main": (1024, 1024), "U_residual": (1024, 1)}
            residual |= {"S_residual": (1,), "V_residual": (1, 1024)}
            shapes |= {f"backbone.{stem}.{one}": shape for one, shape in residual.items()}
        else:
            shapes[f"backbone.{name}"] = tuple(value.shape)
    assert len(shapes) == 681
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 303_378_530


# --- OmniAID ---


def omniaid_checkpoint(tower: Any, *, experts: int = 4, rank: int = 3) -> dict[str, Tensor]:
    """A checkpoint with the published names; experts differ, and their gates do too."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int, scale: float = 0.2) -> Tensor:
        return torch.randn(shape, generator=generator) * scale

    state: dict[str, Tensor] = {}
    for name, live in tower.state_dict().items():
        value = live.clone()
        state[f"feature_extractor.{name}"] = value
        top, _, rest = name.partition(".")
        if top == "embeddings":
            state[name] = value + random(*value.shape, scale=0.02)
        elif top in ("pre_layrnorm", "post_layernorm"):
            state[f"{'ln_pre' if top == 'pre_layrnorm' else 'ln_post'}.{rest}"] = value * 1.1
        else:
            name = name.replace("encoder.layers", "encoder_layers")
            stem, _, last = name.rpartition(".")
            if stem.rpartition(".")[2] in PROJECTIONS and last == "weight":
                state[f"{stem}.weight_main"] = value
                state[f"{stem}.U_r"] = random(WIDTH, WIDTH - rank)
                state[f"{stem}.V_r"] = random(WIDTH - rank, WIDTH)
                state[f"{stem}.weight_original_fnorm"] = value.norm()
                for n in range(experts):
                    state[f"{stem}.U_experts.{n}"] = random(WIDTH, rank)
                    state[f"{stem}.S_experts.{n}"] = random(rank, scale=1.0)
                    state[f"{stem}.V_experts.{n}"] = random(rank, WIDTH)
            else:
                state[name] = value
    for layer, (rows, columns) in {"0": (16, WIDTH), "2": (experts - 1, 16)}.items():
        state[f"gating_network.network.{layer}.weight"] = random(rows, columns, scale=0.5)
        state[f"gating_network.network.{layer}.bias"] = random(rows)
    return state | {"head.weight": random(2, WIDTH), "head.bias": random(2)}


def omniaid_by_hand(tower: Any, state: Mapping[str, Tensor], x: Tensor, router: str) -> Tensor:
    """One picture at a time: gates first, then transformers' CLIP with the matrices they make."""
    outputs = []
    for picture in x.split(1):
        tower.load_state_dict(
            {n.removeprefix("feature_extractor."): v for n, v in state.items() if "extractor" in n}
        )
        seen = tower(pixel_values=picture).pooler_output
        plain = {n: v for n, v in state.items() if n.startswith("embeddings.")}
        tower.load_state_dict(plain, strict=False)
        if router == "patches":
            seen = tower.embeddings(picture)[:, 1:].mean(dim=1)
        gate = {n: state[f"gating_network.network.{n}"] for n in ("0.weight", "0.bias")}
        hidden = (seen @ gate["0.weight"].T + gate["0.bias"]).relu()
        scores = (
            hidden @ state["gating_network.network.2.weight"].T
            + state["gating_network.network.2.bias"]
        )[0]
        best = scores.argsort(descending=True)[:2]
        gates = dict(zip(best.tolist(), scores[best].softmax(0).tolist(), strict=True))
        gates[len(scores)] = 1.0  # the last expert, always
        for n, layer in enumerate(tower.encoder.layers):
            for name in PROJECTIONS:
                stem = f"encoder_layers.{n}.self_attn.{name}"
                weight = state[f"{stem}.weight_main"].clone()
                for expert, share in gates.items():
                    u, s, v = (state[f"{stem}.{letter}_experts.{expert}"] for letter in "USV")
                    weight += share * u @ torch.diag(s) @ v
                getattr(layer.self_attn, name).weight.data = weight
        tower.pre_layrnorm.load_state_dict({n: state[f"ln_pre.{n}"] for n in ("weight", "bias")})
        tower.post_layernorm.load_state_dict({n: state[f"ln_post.{n}"] for n in ("weight", "bias")})
        pooled = tower(pixel_values=picture).pooler_output
        outputs.append(pooled @ state["head.weight"].T + state["head.bias"])
    return torch.cat(outputs)


@pytest.mark.parametrize(("name", "router"), [("omniaid", "clip"), ("omniaid-realgen", "patches")])
def test_omniaid_gives_the_papers_number(tmp_path: Path, name: str, router: str) -> None:
    tower = tiny_clip(336)
    state = omniaid_checkpoint(tower)
    torch.save({"model": state, "epoch": 0}, tmp_path / "checkpoint.pth")
    images = pictures(*SIZES)
    x = prepared(images, 336, first=512 if router == "patches" else None)
    with torch.no_grad():
        expected = omniaid_by_hand(tower, state, x, router).softmax(dim=1)[:, 0].numpy()
    assert np.ptp(expected) > 0.01
    detector = realbench.load_detector(name, weights=tmp_path / "checkpoint.pth")
    found = torch.from_numpy(logits(detector, images)).sigmoid().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_checkpoints_of_other_networks_are_refused(tmp_path: Path) -> None:
    tower = tiny_clip(336)
    state = omniaid_checkpoint(tower)
    path = tmp_path / "checkpoint.pth"
    for drop in ("gating_network.network.0.weight", "feature_extractor.embeddings.patch_embedding"):
        kept = {n: v for n, v in state.items() if not n.startswith(drop)}
        torch.save({"model": kept}, path)
        with pytest.raises(RealBenchError, match="has no tensor") as caught:
            realbench.load_detector("omniaid", weights=path)
        assert "\n" not in str(caught.value)
    torch.save(state, path)
    with pytest.raises(RealBenchError, match="has no tensor"):
        realbench.load_detector("effort", weights=path)
    torch.save({"model": state}, path)
    card = changed_card(tmp_path, "omniaid", ("size = 336", "size = 224"))
    with pytest.raises(RealBenchError, match="for pictures of 336 px, its card for 224"):
        realbench.load_detector(card, weights=path)
    card = changed_card(tmp_path, "omniaid", ('router = "clip"', 'router = "text"'))
    with pytest.raises(RealBenchError, match="router must be one of clip, patches"):
        realbench.load_detector(card, weights=path)
