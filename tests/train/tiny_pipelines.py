"""Tiny pipelines with random weights of the classes that can be trained: no hub, no files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from tests.arena.tiny_vlm import make_tokenizer

PROMPTS = ["a red bird on a branch", "an old man"]


def clip_tokenizer(length: int = 16) -> CLIPTokenizer:
    """Make a tokenizer whose tokens are single characters."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocabulary.write_text(json.dumps({word: n for n, word in enumerate(words)}))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=length)


def clip_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """Make the configuration of an encoder of 16 channels."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
        hidden_size=16,
        intermediate_size=16,
        projection_dim=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        max_position_embeddings=tokenizer.model_max_length,
    )


def autoencoder(channels: int) -> Any:
    """Make a VAE of factor 2."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=channels,
        scaling_factor=1.5,
        shift_factor=0.06,
    ).eval()


def t5_encoder(words: int, width: int) -> Any:
    """Make an encoder of one layer."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=words, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def tiny_sd3() -> Any:
    """Make a Stable Diffusion 3 pipeline: two CLIPs, T5, VAE of factor 2."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    torch.manual_seed(0)
    tokenizer, words = clip_tokenizer(), make_tokenizer()
    encoders = [CLIPTextModelWithProjection(clip_config(tokenizer)).eval() for _ in range(2)]
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    return _silent(
        StableDiffusion3Pipeline(
            transformer=_spread(transformer),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=autoencoder(4),
            text_encoder=encoders[0],
            tokenizer=tokenizer,
            text_encoder_2=encoders[1],
            tokenizer_2=tokenizer,
            text_encoder_3=t5_encoder(len(words), 32),
            tokenizer_3=words,
        )
    )


def tiny_flux(*, guidance_embeds: bool = True) -> Any:
    """Make a FLUX pipeline: CLIP, T5, VAE of factor 2, a double and a single block."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    torch.manual_seed(1)
    tokenizer, words = clip_tokenizer(), make_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    return _silent(
        FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=3.0, use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=256
            ),
            vae=autoencoder(4),
            text_encoder=CLIPTextModel(clip_config(tokenizer)).eval(),
            tokenizer=tokenizer,
            text_encoder_2=t5_encoder(len(words), 16),
            tokenizer_2=words,
            transformer=_spread(transformer),
        )
    )


def tiny_qwen_image() -> Any:
    """Make a Qwen-Image pipeline: a Qwen2.5-VL of two layers, VAE of factor 2."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(2)
    tokenizer = make_tokenizer()
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[-0.5, 0.2, 0.0, 0.1],
        latents_std=[1.5, 2.0, 0.8, 1.1],
    )
    return _silent(
        QwenImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, shift_terminal=0.02, base_shift=0.5, max_shift=0.9
            ),
            vae=vae.eval(),
            text_encoder=Qwen2_5_VLForConditionalGeneration(qwen_config(tokenizer)).eval(),
            tokenizer=tokenizer,
            transformer=_spread(transformer),
        )
    )


def tiny_z_image() -> Any:
    """Make a Z-Image pipeline: a Qwen3 of two layers, VAE of factor 2."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(3)
    tokenizer = make_tokenizer()
    language = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    return _silent(
        ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
            vae=autoencoder(4),
            text_encoder=Qwen3Model(language).eval(),
            tokenizer=tokenizer,
            transformer=_spread(transformer),
        )
    )


def tiny_aura_flow() -> Any:
    """Make an AuraFlow pipeline, for which there is no adapter: UMT5, VAE of factor 2."""
    from diffusers import (
        AuraFlowPipeline,
        AuraFlowTransformer2DModel,
        FlowMatchEulerDiscreteScheduler,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(4)
    tokenizer = make_tokenizer()
    language = UMT5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    transformer = AuraFlowTransformer2DModel(
        sample_size=16,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pos_embed_max_size=64,
    )
    vae = autoencoder(4)
    vae.register_to_config(shift_factor=None)
    return _silent(
        AuraFlowPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
            vae=vae,
            text_encoder=UMT5EncoderModel(language).eval(),
            tokenizer=tokenizer,
            transformer=_spread(transformer),
        )
    )


def qwen_config(tokenizer: Any) -> Any:
    """Make the configuration of a Qwen2.5-VL of two layers of 32 channels."""
    from transformers import Qwen2_5_VLConfig

    small = {"hidden_size": 32, "intermediate_size": 32}
    return Qwen2_5_VLConfig(
        text_config={
            **small,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1, 1, 2],
            },
        },
        vision_config={**small, "depth": 1, "num_heads": 2, "out_hidden_size": 32},
    )


def _spread(transformer: torch.nn.Module) -> torch.nn.Module:
    """Redraw the weights that are initialised to zero or nearly so: every input must matter."""
    for weight in transformer.parameters():
        if weight.ndim > 1 and weight.std() < 0.1:
            torch.nn.init.normal_(weight, std=0.1)
    return transformer.eval()


def _silent(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
