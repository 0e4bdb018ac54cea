"""Community Forensics, DDA, B-Free and RINE, each against its paper's network made another way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision import transforms

import realbench
from realbench.detection.registry import find_card
from realbench.errors import RealBenchError
from realbench.files import file_sha256
from tests.detection.families.published_cards import changed_card, logits, pictures

IMAGENET = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CLIP = transforms.Normalize(
    [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
)
TINY = "embed_dim = 64, depth = 2, num_heads = 2"


def tiny(architecture: str, side: int) -> Any:
    """A small network of timm's architecture whose output follows the picture."""
    torch.manual_seed(0)
    network = timm.create_model(
        architecture, num_classes=1, img_size=side, embed_dim=64, depth=2, num_heads=2
    )
    for name, weight in network.named_parameters():
        weight.data.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.15)
    return network.eval()


def card_for(folder: Path, name: str, file: Path, *changes: tuple[str, str]) -> Path:
    """The project's card with the hash of a file made in the test."""
    pinned = find_card(name).weights.sha256
    assert pinned is not None
    return changed_card(folder / "cards", name, (pinned, file_sha256(file)), *changes)


def scores(card: Path | str, images: list[np.ndarray], weights: Any) -> np.ndarray:
    return logits(realbench.load_detector(card, weights=weights), images)


# --- Community Forensics ---


def test_community_forensics_gives_the_papers_number(tmp_path: Path) -> None:
    """In full size, under the names of the published file."""
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch16_384", num_classes=1).eval()
    nn.init.normal_(network.head.weight, std=0.3)
    file = tmp_path / "model.safetensors"
    save_file({f"vit.{name}": value for name, value in network.state_dict().items()}, file)
    assert file.stat().st_size == pytest.approx(87_262_324, rel=1e-3)  # as on the hub
    prepare = transforms.Compose(
        [transforms.Resize(440), transforms.CenterCrop(384), transforms.ToTensor(), IMAGENET]
    )
    images = pictures((500, 700), (90, 60))
    with torch.no_grad():
        fake = network(torch.stack([prepare(Image.fromarray(image)) for image in images]))
    assert abs(float(fake[0] - fake[1])) > 0.01
    found = scores(card_for(tmp_path, "community-forensics", file), images, file)
    np.testing.assert_allclose(found, -fake.squeeze(1).numpy(), atol=1e-4)


# --- DDA ---

RANK = 4


def adapted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint with the published names: every matrix of a block has an adapter."""
    made = {"mask_token": torch.ones(1, 64)}
    for name, value in state.items():
        stem, _, last = name.rpartition(".")
        if stem.endswith((".qkv", ".proj", ".fc1", ".fc2")) and "blocks" in stem:
            made[f"{stem}.original_layer.{last}"] = value
            if last == "weight":
                made[f"{stem}.lora.lora_A"] = torch.randn(RANK, value.shape[1]) * 0.3
                made[f"{stem}.lora.lora_B"] = torch.randn(len(value), RANK) * 0.3
        else:
            made[name] = value
    head = {f"base_model.fc.{n}": made.pop(f"head.{n}") for n in ("weight", "bias")}
    return {f"base_model.model.{name}": value for name, value in made.items()} | head


def bicubic(grid: np.ndarray, cells: int) -> np.ndarray:
    """Interpolate (side, side, D) by cubic convolution (a = -0.75), at the ratio of DINOv2."""

    def along(values: np.ndarray) -> np.ndarray:
        place = (np.arange(cells) + 0.5) * len(values) / (cells + 0.1) - 0.5
        first = np.floor(place).astype(int)
        total = np.zeros((cells, *values.shape[1:]))
        for step in (-1, 0, 1, 2):
            d, a = np.abs(place - first - step), -0.75
            near = ((a + 2) * d - (a + 3)) * d * d + 1
            weight = np.where(d <= 1, near, a * (((d - 5) * d + 8) * d - 4))
            total += weight[:, None, None] * values[np.clip(first + step, 0, len(values) - 1)]
        return total

    return along(along(grid).swapaxes(0, 1)).swapaxes(0, 1)


def dda_by_hand(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The logits of P(fake), (n, 1), by the equations; adapters run beside their matrices."""
    s = {name.removeprefix("base_model.model."): value for name, value in state.items()}

    def normed(values: Tensor, name: str) -> Tensor:
        weight, bias = s[f"{name}.weight"], s[f"{name}.bias"]
        return functional.layer_norm(values, (64,), weight, bias, eps=1e-6)

    def matrix(values: Tensor, name: str) -> Tensor:
        plain = values @ s[f"{name}.original_layer.weight"].T + s[f"{name}.original_layer.bias"]
        return plain + values @ s[f"{name}.lora.lora_A"].T @ s[f"{name}.lora.lora_B"].T / RANK

    def heads(values: Tensor) -> Tensor:
        return values.unflatten(-1, (2, 32)).transpose(1, 2)

    table = s["pos_embed"][0]
    grid = bicubic(table[1:].reshape(37, 37, -1).double().numpy(), 24).reshape(576, -1)
    cells = functional.conv2d(x, s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], 14)
    cells = cells.flatten(2).transpose(1, 2) + torch.from_numpy(grid).float()
    tokens = torch.cat([(s["cls_token"] + table[0]).expand(len(x), -1, -1), cells], dim=1)
    for block in ("blocks.0", "blocks.1"):
        q, k, v = matrix(normed(tokens, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=-1)
        attention = (heads(q) @ heads(k).transpose(2, 3) / 32**0.5).softmax(dim=-1)
        seen = (attention @ heads(v)).transpose(1, 2).flatten(2)
        tokens = tokens + s[f"{block}.ls1.gamma"] * matrix(seen, f"{block}.attn.proj")
        hidden = matrix(normed(tokens, f"{block}.norm2"), f"{block}.mlp.fc1")
        hidden = matrix(functional.gelu(hidden), f"{block}.mlp.fc2")
        tokens = tokens + s[f"{block}.ls2.gamma"] * hidden
    token = normed(tokens, "norm")[:, 0]
    return token @ s["base_model.fc.weight"].T + s["base_model.fc.bias"]


def test_dda_gives_the_papers_number(tmp_path: Path) -> None:
    state = adapted(tiny("vit_large_patch14_dinov2", 518).state_dict())
    file = tmp_path / "DDA_ckpt.pth"
    torch.save({"model": state, "total_steps": 3}, file)
    prepare = transforms.Compose([transforms.CenterCrop(336), transforms.ToTensor(), CLIP])
    images = pictures((400, 500), (337, 336), (20, 30))
    x = torch.stack([prepare(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        fake = dda_by_hand(state, x)
    assert np.ptp(fake.numpy()) > 0.01
    architecture = 'architecture = "vit_large_patch14_dinov2"'
    small = (architecture, f"{architecture}\noptions = {{ {TINY} }}")
    found = scores(card_for(tmp_path, "dda", file, small), images, file)
    np.testing.assert_allclose(found, -fake.squeeze(1).numpy(), atol=1e-4)
    del state["base_model.model.blocks.1.mlp.fc1.lora.lora_A"]
    torch.save({"model": state}, file)
    with pytest.raises(RealBenchError, match=r"has no tensor 'blocks\.1\.mlp\.fc1\.lora\.lora_A'"):
        realbench.load_detector(card_for(tmp_path, "dda", file, small), weights=file)


# --- B-Free ---


def on_cells(network: Any, image: np.ndarray) -> float:
    """B-Free's logit of P(fake): the whole picture through the first layer, then five crops."""
    x = IMAGENET(transforms.ToTensor()(image))[None]
    cells = network.patch_embed.proj(x)[0]
    tall, wide = cells.shape[1:]
    if tall < 36 or wide < 36:
        rows, columns = torch.arange(36) % tall, torch.arange(36) % wide
        cells, tall, wide = cells[:, rows][:, :, columns], 36, 36
    top, left = tall - 36, wide - 36
    starts = [(top // 2, left // 2), (0, 0), (0, left), (top, 0), (top, left)]
    crops = torch.stack([cells[:, y : y + 36, z : z + 36] for y, z in starts])
    first, network.patch_embed = network.patch_embed, nn.Identity()
    with torch.no_grad():
        found = network(crops.flatten(2).transpose(1, 2)).mean()
    network.patch_embed = first
    return float(found)


def test_b_free_gives_the_papers_number(tmp_path: Path) -> None:
    network = tiny("vit_base_patch14_reg4_dinov2", 504)
    file = tmp_path / "model_epoch_best.pth"
    torch.save({"model": network.state_dict()}, file)
    card = card_for(tmp_path, "b-free", file, ("img_size = 504", f"img_size = 504, {TINY}"))
    images = pictures((600, 705), (560, 1031), (300, 620), (700, 100), (504, 504), (14, 20))
    fake = np.array([on_cells(network, image) for image in images])
    assert np.ptp(fake) > 0.01
    np.testing.assert_allclose(scores(card, images, file), -fake, atol=1e-4)
    tiny_one = realbench.load_detector(card, weights=file).prepare(np.full((3, 1, 3), 7, np.uint8))
    assert tiny_one.shape == (5, 3, 504, 504)  # which the authors' network does not take
    assert (tiny_one == 7).all()


def test_b_frees_card_builds_what_was_published() -> None:
    """177 tensors of 86,526,721 numbers."""
    spec = find_card("b-free").model
    with torch.device("meta"):
        network = timm.create_model(spec.architecture, num_classes=1, **spec.options)
    state = network.state_dict()
    assert len(state) == 177
    assert sum(value.numel() for value in state.values()) == 86_526_721


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("views = 5", "views = 1"), "input.views = 5"),
        (("size = 504\nviews", "size = 500\nviews"), "14 divides"),
        (('resize = "none"', 'resize = "none"\nshort_side = 600'), 'goes with fit = "short-side"'),
    ],
)
def test_crops_that_the_network_cannot_take_are_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    file = tmp_path / "model_epoch_best.pth"
    torch.save({"model": tiny("vit_base_patch14_reg4_dinov2", 504).state_dict()}, file)
    small = ("img_size = 504", f"img_size = 504, {TINY}")
    card = card_for(tmp_path, "b-free", file, small, change)
    with pytest.raises(RealBenchError, match=message):
        realbench.load_detector(card, weights=file)


# --- RINE ---

WIDTH, BLOCKS, PROJECTED = 64, 3, 16
SMALL_CLIP = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 224,
        "layers": BLOCKS,
        "width": WIDTH,
        "head_width": 32,
        "patch_size": 56,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 99, "width": 32, "heads": 1, "layers": 1},
}


def rine_checkpoint() -> dict[str, Tensor]:
    """A checkpoint with the names of the authors' file of two classes, but two layers each."""
    generator = torch.Generator().manual_seed(5)

    def layer(name: str, rows: int, columns: int) -> dict[str, Tensor]:
        return {
            f"{name}.weight": torch.randn(rows, columns, generator=generator) * 0.3,
            f"{name}.bias": torch.randn(rows, generator=generator) * 0.3,
        }

    state = {"alpha": torch.randn(1, BLOCKS, PROJECTED, generator=generator)}
    for name in ("proj1.1", "proj1.4", "proj2.1", "proj2.4", "head.0", "head.3"):
        state |= layer(name, PROJECTED, WIDTH if name == "proj1.1" else PROJECTED)
    return state | layer("head.6", 1, PROJECTED)


def rine_by_hand(visual: Any, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    def through(values: Tensor, *names: str) -> Tensor:
        for name in names:
            values = values @ state[f"{name}.weight"].T + state[f"{name}.bias"]
            values = values if name == "head.6" else values.relu()
        return values

    cells = visual.conv1(x).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(x), 1, -1)
    tokens = visual.ln_pre(torch.cat([first, cells], dim=1) + visual.positional_embedding)
    seen = []
    for block in visual.transformer.resblocks:
        normed = block.ln_1(tokens)
        tokens = tokens + block.attn(normed, normed, normed, need_weights=False)[0]
        seen.append(through(block.ln_2(tokens)[:, 0], "proj1.1", "proj1.4"))
        tokens = tokens + block.mlp(block.ln_2(tokens))
    shares = state["alpha"][0].exp() / state["alpha"][0].exp().sum(dim=0)
    whole = sum(share * one for share, one in zip(shares, seen, strict=True))
    return through(whole, "proj2.1", "proj2.4", "head.0", "head.3", "head.6").squeeze(1)


def test_rine_gives_the_papers_number(tmp_path: Path) -> None:
    (tmp_path / "realbench-rine.json").write_text(json.dumps(SMALL_CLIP))
    open_clip.add_model_config(tmp_path / "realbench-rine.json")
    torch.manual_seed(0)
    model = open_clip.create_model("realbench-rine", pretrained=None, load_weights=False).eval()
    for name, weight in model.visual.named_parameters():
        weight.data.normal_(1.0 if "ln_" in name and "weight" in name else 0.0, 0.15)
    files = {"backbone": tmp_path / "clip.safetensors", "weights": tmp_path / "rine.pth"}
    save_file({n: v.contiguous() for n, v in model.state_dict().items()}, files["backbone"])
    state = rine_checkpoint()
    torch.save(state, files["weights"])
    prepare = transforms.Compose([transforms.CenterCrop(224), transforms.ToTensor(), CLIP])
    images = pictures((300, 420), (250, 224), (33, 20))
    with torch.no_grad():
        x = torch.stack([prepare(Image.fromarray(image)) for image in images])
        fake = rine_by_hand(model.visual, state, x).numpy()
    assert np.ptp(fake) > 0.01
    card = changed_card(tmp_path / "cards", "rine", ("ViT-L-14-quickgelu", "realbench-rine"))
    np.testing.assert_allclose(scores(card, images, files), -fake, atol=1e-4)
    torch.save({"alpha": state["alpha"]}, files["weights"])
    with pytest.raises(RealBenchError, match=r"it has no tensor 'proj1\.\*") as caught:
        realbench.load_detector(card, weights=files)
    assert "\n" not in str(caught.value)
