"""A language model in front of the pipeline, that writes prompts out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realbench.config.settings import checked_settings
from realbench.content import content_path
from realbench.errors import RealBenchError, UsageError
from realbench.generation.language_model import (
    TrainedRewriter,
    find_trained,
    load_language_model,
)
from realbench.text import printable

DEFAULT_INSTRUCTION = "photographic-v1"
DEFAULT_TOKENS = 256


@checked_settings
@dataclass(frozen=True, slots=True)
class RewriterOptions:
    """Which model rewrites prompts, and what it is told.

    Attributes:
        model: see :func:`~realbench.generation.language_model.load_language_model`.
        revision: of the hub: a branch, tag or commit.
        instruction: the name of one in ``prompts/rewriters``, or a text file; None is the one
            that a trained rewriter was trained with, else :data:`DEFAULT_INSTRUCTION`.
        max_tokens: of an answer; None is as many as in a trained rewriter's training, else 256.
        batch_size: prompts at a time.
    """

    model: str
    revision: str | None = None
    instruction: str | None = None
    max_tokens: int | None = None
    batch_size: int = 8

    @property
    def trained(self) -> TrainedRewriter | None:
        """What the model's folder says of it, where it is a trained rewriter."""
        return find_trained(self.model)

    def instruction_text(self) -> str:
        """Return what the model is told.

        Raises:
            UsageError: there is no such instruction, or the file cannot be read.
        """
        if self.instruction is None and self.trained is not None:
            return self.trained.instruction_text
        return instruction_text(self.instruction or DEFAULT_INSTRUCTION)

    @property
    def tokens(self) -> int:
        """How many an answer has at most."""
        return self.max_tokens or (self.trained.max_tokens if self.trained else DEFAULT_TOKENS)

    def describe(self) -> dict[str, Any]:
        """Return what decides the rewritten prompts, as JSON values."""
        trained = self.trained
        default = trained.instruction if trained is not None else DEFAULT_INSTRUCTION
        said = {
            "model": printable(self.model),
            "revision": self.revision,
            "instruction": printable(self.instruction or default),
            "instruction_sha256": hashlib.sha256(self.instruction_text().encode()).hexdigest(),
            "max_tokens": self.tokens,
        }
        if trained is not None:
            base = trained.base.source if trained.base else None
            said |= {"base": base, "weights_sha256": trained.weights_sha256()}
        return said


def instruction_text(instruction: str) -> str:
    """Return what a model is told.

    Args:
        instruction: the name of one in ``prompts/rewriters``, or a text file.

    Raises:
        UsageError: there is no such instruction, or the file cannot be read.
    """
    bundled = content_path("prompts") / "rewriters" / f"{instruction}.txt"
    path = bundled if bundled.is_file() else Path(instruction)
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read the instruction {printable(instruction)}: "
            f"{getattr(error, 'strerror', None) or 'not UTF-8 text'}; name a text file or one "
            f"of {', '.join(sorted(one.stem for one in bundled.parent.glob('*.txt')))}"
        ) from error
    if not text:
        raise UsageError(f"the instruction {printable(instruction)} is empty")
    return text


def rewrite(
    prompts: Sequence[str],
    options: RewriterOptions,
    *,
    device: str,
    dtype: str,
    take: Callable[[int, str | None], None],
) -> None:
    """Have a language model rewrite prompts, greedily, so that it does so again the same way.

    Args:
        dtype: what it computes in, by torch's name.
        take: is given each prompt's index and the new text, or None where the answer is empty.

    Raises:
        RealBenchError: the model cannot be loaded or run.
    """
    import torch

    model, tokenizer = load_language_model(
        options.model, revision=options.revision, dtype=dtype, device=device
    )
    instruction = options.instruction_text()
    try:
        for start in range(0, len(prompts), options.batch_size):
            batch = prompts[start : start + options.batch_size]
            given = likeliest_answers(
                model, tokenizer, batch, instruction, max_tokens=options.tokens
            )
            for n, answer in enumerate(given):
                take(start + n, clean_answer(answer.text, chat=is_chat(tokenizer)))
    except torch.OutOfMemoryError as error:
        raise RealBenchError(
            f"not enough memory on {device} for the rewriter {printable(options.model)}"
        ) from error


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered.

    Attributes:
        text: as it stands, without special tokens.
        ended: whether the model ended it; not so where the limit of tokens cut it off.
    """

    text: str
    ended: bool


def likeliest_answers(
    model: Any, tokenizer: Any, prompts: Sequence[str], instruction: str, *, max_tokens: int
) -> list[Answer]:
    """Return a model's answer to each prompt, of the likeliest token at every place.

    Args:
        tokenizer: its own, padding left.
        prompts: texts, answered in one batch.
    """
    import torch

    chat = is_chat(tokenizer)
    asked = [question(instruction, prompt, chat=chat) for prompt in prompts]
    if chat:
        asked = [
            tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=True)
            for one in asked
        ]
    inputs = tokenizer(asked, return_tensors="pt", padding=True, add_special_tokens=not chat)
    inputs = inputs.to(model.device)
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        tokens = model.generate(
            **inputs,
            max_new_tokens=max_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :]
    ends = end_tokens(model, tokenizer)
    return [
        Answer(text, ended=bool(ends.intersection(row)))
        for text, row in zip(
            tokenizer.batch_decode(tokens, skip_special_tokens=True), tokens.tolist(), strict=True
        )
    ]


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Return the ids of the tokens with which a model ends an answer."""
    of_model = model.generation_config.eos_token_id
    several = of_model if isinstance(of_model, list) else [of_model]
    return {one for one in (*several, tokenizer.eos_token_id) if one is not None}


def is_chat(tokenizer: Any) -> bool:
    """Return whether a model answers in chats; others write on."""
    return bool(tokenizer.chat_template)


def question(instruction: str, prompt: str, *, chat: bool) -> Any:
    """Return what a model is asked: a chat's messages, or a text that it is to write on."""
    content = f"{instruction}\n\nDescription: {prompt}"
    # One message, since not every template takes a system message.
    return [{"role": "user", "content": content}] if chat else f"{content}\nPrompt:"


def clean_answer(answer: str, *, chat: bool) -> str | None:
    """Return the prompt that an answer holds, on one line; None where it holds none.

    Args:
        chat: whether it answers in chats; else only its first line is the prompt, since a base
            model writes on.
    """
    answer = re.sub(r"<think>.*?(</think>|\Z)", "", answer, flags=re.DOTALL).strip()
    if not chat:
        answer = answer.partition("\n")[0]
    answer = " ".join(answer.replace("\ufffd", " ").split())
    if len(answer) > 1 and answer[0] + answer[-1] in ('""', "“”", "''") and answer.count('"') <= 2:
        answer = answer[1:-1].strip()
    return answer or None
