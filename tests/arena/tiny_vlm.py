"""A tiny vision-language model of real parts, built here: no hub, random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from realbench.arena.template import load_template

# The format of chats that Qwen's models are trained on, with a place for each picture.
CHAT_TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}{% if part['type'] == 'image' %}\
<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}\
{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

Kind = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava"]
KINDS: tuple[Kind, ...] = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava")

SPECIAL_TOKENS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]


def make_tokenizer(
    chat_template: str | None = CHAT_TEMPLATE,
    *,
    spaced_digits: bool = False,
    starts_texts: bool = False,
    words: Sequence[str] = (),
) -> Any:
    """Train a byte-level BPE on the judge's own template.

    Args:
        chat_template: As the tokenizer is to have it.
        spaced_digits: Whether a digit with the space before it becomes one token as well.
        starts_texts: Whether it puts a start token before every text, as many tokenizers do.
        words: Texts that become one token each, with and without a space before them.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    wording = load_template().direct_wording("a prompt")
    text = [wording.system, wording.before_first, wording.question]
    if spaced_digits:
        text += ["choose 0 or 1 or 2 now"] * 50
    text += [before + word for word in words for before in ("", "x ")] * 50
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    if starts_texts:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A",
            special_tokens=[("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>" if starts_texts else None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        chat_template=chat_template,
    )


def save_tiny_vlm(
    folder: Path,
    kind: Kind = "qwen2_5_vl",
    *,
    chat_template: str | None = CHAT_TEMPLATE,
    spaced_digits: bool = False,
    starts_texts: bool = False,
    words: Sequence[str] = (),
) -> Path:
    """Save a random model of some hundred thousand weights, with its processor, to ``folder``."""
    import torch
    from transformers import AutoModelForImageTextToText

    tokenizer = make_tokenizer(
        chat_template, spaced_digits=spaced_digits, starts_texts=starts_texts, words=words
    )
    config = _llava_config(tokenizer) if kind == "llava" else _qwen_config(kind, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config)
        # As drawn, logits hardly differ and pictures hardly count: spread them like a trained
        # model's, so that a wrong picture, order or position shows.
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.data *= 6
    model.save_pretrained(folder)
    make = _llava_processor if kind == "llava" else _qwen_processor
    make(kind, tokenizer, chat_template).save_pretrained(folder)
    return folder


def _qwen_config(kind: str, tokenizer: Any) -> Any:
    from transformers import AutoConfig

    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [1, 1, 2],
        },
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2}
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32}
    if kind == "qwen2_5_vl":
        vision |= {"fullatt_block_indexes": [1]}
    if kind == "qwen3_vl":
        text |= {"head_dim": 8}
        vision |= {"deepstack_visual_indexes": [0], "patch_size": 16}
    return AutoConfig.for_model(
        kind,
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def _qwen_processor(kind: str, tokenizer: Any, chat_template: str | None) -> Any:
    import transformers

    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[kind]
    make = getattr(transformers, f"{name}Processor")
    third = kind == "qwen3_vl"
    video = transformers.Qwen3VLVideoProcessor if third else transformers.Qwen2VLVideoProcessor
    return make(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=16 if third else 14),
        tokenizer=tokenizer,
        video_processor=video(),
        chat_template=chat_template,
    )


def _llava_config(tokenizer: Any) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    token = tokenizer.convert_tokens_to_ids
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    vision = CLIPVisionConfig(**small, num_attention_heads=2, image_size=56, patch_size=14)
    text = LlamaConfig(
        **small,
        num_attention_heads=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=4096,
        bos_token_id=token("<|endoftext|>"),
        eos_token_id=token("<|im_end|>"),
        pad_token_id=token("<|endoftext|>"),
    )
    return LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=token("<|image_pad|>")
    )


def _llava_processor(kind: str, tokenizer: Any, chat_template: str | None) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )
