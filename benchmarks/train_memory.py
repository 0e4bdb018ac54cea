"""An estimate of the GPU memory that training Stable Diffusion 3.5 medium takes.

    python benchmarks/train_memory.py
    python benchmarks/train_memory.py --set sampling.height=512 --set sampling.width=512

Nothing is downloaded and no GPU is needed. The transformer is built from its published
configuration on PyTorch's meta device, which knows shapes and types but holds no numbers; LoRA is
put on as the trainer does it; and one training pass is made with the config's batch, guidance and
gradient checkpointing while every tensor that autograd keeps is counted. The sizes of the text
encoders and the VAE are their published numbers of parameters. What it cannot know is said beside
each figure: fragmentation, cuDNN's workspaces and the CUDA context are an allowance, not a
measurement.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

# https://huggingface.co/stabilityai/stable-diffusion-3.5-medium, transformer/config.json
TRANSFORMER = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
TEXT_ENCODERS = 123_650_304 + 694_659_840 + 4_762_310_656  # CLIP L, CLIP bigG, T5 XXL
VAE = 83_819_683
REWARD = {"omniaid-realgen": 1.3, "alignment": 1.7, "held-out pair": 0.2}  # GiB, float32 weights
ALLOWANCE = 1.5  # GiB: CUDA context, workspaces, fragmentation
TOKENS = 77 + 256  # of the text encoders
GIB = 2**30


def main() -> None:
    from realbench.train.config import load_config

    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    config = load_config("sd35-medium", parser.parse_args().set)
    transformer, trained = transformer_on_meta(config)
    weights = [*transformer.parameters(), *transformer.buffers()]
    base = sum(one.numel() for one in weights) - trained
    kept, largest = activations(transformer, config)
    sampling = config.sampling
    latent = 16 * (sampling.height // 8) * (sampling.width // 8) * 4
    images = config.training.images
    steps = images * sampling.window * latent * 4  # x, x', mean and the base model's
    rows = images * TOKENS * 4096 * 2 * 2  # text and empty text, bfloat16
    parts = {
        f"transformer, {base / 1e9:.2f} G weights in bfloat16": 2 * base,
        f"LoRA, {trained / 1e6:.1f} M weights: float32, gradient, AdamW, EMA": 5 * 4 * trained,
        "VAE, bfloat16": 2 * VAE,
        "kept steps of an iteration": steps,
        "text embeddings of an iteration": rows,
        "activations kept for the backward pass": kept,
        "activations of the block that is computed again": largest,
    }
    if not config.memory.offload_text_encoders:
        parts["text encoders, 5.6 G weights in bfloat16"] = 2 * TEXT_ENCODERS
    parts |= {f"reward: {name}": size * GIB for name, size in REWARD.items()}
    parts["CUDA context, workspaces, fragmentation (an allowance)"] = ALLOWANCE * GIB
    print(
        f"sd35-medium, {sampling.width} x {sampling.height}, training batch "
        f"{config.training.batch_size} with guidance {sampling.guidance}, gradient checkpointing "
        f"{'on' if config.memory.gradient_checkpointing else 'off'}"
    )
    for name, size in parts.items():
        print(f"  {size / GIB:6.2f} GiB  {name}")
    print(f"  {sum(parts.values()) / GIB:6.2f} GiB  in the update, all of it at once")
    if config.memory.offload_text_encoders:
        encoding = sum(parts.values()) - kept - largest + 2 * TEXT_ENCODERS
        print(f"  {encoding / GIB:6.2f} GiB  while prompts are encoded")


def transformer_on_meta(config: Any) -> tuple[Any, int]:
    """Return the transformer with LoRA, without numbers, and how many weights are trained."""
    from types import SimpleNamespace

    from diffusers import SD3Transformer2DModel

    from realbench.train.flow_models.sd3 import StableDiffusion3
    from realbench.train.lora import add_lora

    with torch.device("meta"):
        transformer = SD3Transformer2DModel(**TRANSFORMER).to(torch.bfloat16)
        model: Any = SimpleNamespace(
            transformer=transformer, lora_targets=StableDiffusion3.lora_targets
        )
        trained = add_lora(model, config.lora)
    if config.memory.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    return transformer, sum(one.numel() for one in trained.values())


def activations(transformer: Any, config: Any) -> tuple[int, int]:
    """Return the bytes that autograd keeps over a pass, and those of one block without
    checkpointing, which its backward pass needs again."""
    sampling = config.sampling
    n = config.training.batch_size * (2 if sampling.guidance > 1 else 1)
    arguments = {
        "hidden_states": torch.empty(
            n, 16, sampling.height // 8, sampling.width // 8, dtype=torch.bfloat16, device="meta"
        ),
        "timestep": torch.empty(n, device="meta"),
        "encoder_hidden_states": torch.empty(n, TOKENS, 4096, dtype=torch.bfloat16, device="meta"),
        "pooled_projections": torch.empty(n, 2048, dtype=torch.bfloat16, device="meta"),
    }
    kept = counted(transformer, arguments)
    if not transformer.gradient_checkpointing:
        return kept, 0
    transformer.disable_gradient_checkpointing()
    whole = counted(transformer, arguments)
    transformer.enable_gradient_checkpointing()
    return kept, whole // TRANSFORMER["num_layers"]  # type: ignore[operator]


def counted(transformer: Any, arguments: dict[str, Any]) -> int:
    """Return the bytes of the different tensors that autograd keeps.

    Weights are not counted, nor matrices of tokens by tokens: without numbers PyTorch takes the
    attention apart, whereas the fused kernels of a GPU keep none of them.
    """
    weights = {id(one) for one in transformer.parameters()}
    found: dict[int, tuple[torch.Tensor, int]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        square = tensor.ndim >= 3 and tensor.shape[-1] == tensor.shape[-2] > 1000
        if id(tensor) not in weights and not square:
            storage = tensor.untyped_storage()
            found[storage._cdata] = (tensor, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = transformer(**arguments, return_dict=False)[0]
    del output
    return sum(size for _, size in found.values())


if __name__ == "__main__":
    main()
