"""Tiny CLIP models with random weights, as files and folders of the published kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch

ARCHITECTURE = "realbench-tiny-quality"
_CONFIG = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def register(folder: Path) -> None:
    """Tell open_clip of the architecture; its file is put into ``folder``."""
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(folder)


def make_clip(**options: Any) -> Any:
    """Return an open_clip model whose pictures and texts differ; ``register`` it before."""
    torch.manual_seed(0)
    model = open_clip.create_model(ARCHITECTURE, pretrained=None, load_weights=False, **options)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight *= 2
    return model.eval()


def save_transformers_clip(folder: Path) -> Any:
    """Save a CLIPModel of transformers with its processor and tokenizer; returns the model."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder.mkdir()
    letters = [chr(code) for code in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    torch.manual_seed(0)
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "vocab_size": len(words)}
    model = CLIPModel(
        CLIPConfig(
            text_config={**small, **ends, "intermediate_size": 64},
            vision_config={**small, "intermediate_size": 64, "patch_size": 32},
            projection_dim=24,
        )
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight *= 8
    model.save_pretrained(folder)
    return model
