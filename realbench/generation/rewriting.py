"""A language model in front of the pipeline, that writes prompts out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realbench.content import content_path
from realbench.errors import RealBenchError, UsageError
from realbench.hub_errors import hub_reason, quiet_hub
from realbench.images import printable

DEFAULT_INSTRUCTION = "photographic-v1"


@dataclass(frozen=True, slots=True)
class RewriterOptions:
    """Which model rewrites prompts, and what it is told.

    Attributes:
        model: a folder or a hub id of a text-generation model.
        revision: of the hub: a branch, tag or commit.
        instruction: the name of one in ``prompts/rewriters``, or a text file.
        max_tokens: of an answer.
        batch_size: prompts at a time.
    """

    model: str
    revision: str | None = None
    instruction: str = DEFAULT_INSTRUCTION
    max_tokens: int = 256
    batch_size: int = 8

    def instruction_text(self) -> str:
        """Return what the model is told.

        Raises:
            UsageError: there is no such instruction, or the file cannot be read.
        """
        bundled = content_path("prompts") / "rewriters" / f"{self.instruction}.txt"
        path = bundled if bundled.is_file() else Path(self.instruction)
        try:
            text = path.read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"cannot read the instruction {printable(self.instruction)}: "
                f"{getattr(error, 'strerror', None) or 'not UTF-8 text'}; name a text file or one "
                f"of {', '.join(sorted(one.stem for one in bundled.parent.glob('*.txt')))}"
            ) from error
        if not text:
            raise UsageError(f"the instruction {printable(self.instruction)} is empty")
        return text

    def describe(self) -> dict[str, Any]:
        """Return what decides the rewritten prompts, as JSON values."""
        return {
            "model": printable(self.model),
            "revision": self.revision,
            "instruction": printable(self.instruction),
            "instruction_sha256": hashlib.sha256(self.instruction_text().encode()).hexdigest(),
            "max_tokens": self.max_tokens,
        }


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
        prompts: texts.
        options: of the model.
        device: where it runs.
        dtype: what it computes in, by torch's name.
        take: is given each prompt's index and the new text, or None where the answer is empty.

    Raises:
        RealBenchError: the model cannot be loaded or run.
    """
    import torch

    model, tokenizer = _load(options, device, dtype)
    texts = [_wording(tokenizer, options.instruction_text(), prompt) for prompt in prompts]
    for start in range(0, len(texts), options.batch_size):
        batch = texts[start : start + options.batch_size]
        inputs = tokenizer(
            batch, return_tensors="pt", padding=True, add_special_tokens=not _is_chat(tokenizer)
        ).to(device)
        inputs.pop("token_type_ids", None)
        try:
            with torch.inference_mode():
                answers = model.generate(
                    **inputs,
                    max_new_tokens=options.max_tokens,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=tokenizer.pad_token_id,
                )
        except torch.OutOfMemoryError as error:
            raise RealBenchError(
                f"not enough memory on {device} for the rewriter {printable(options.model)}"
            ) from error
        answers = answers[:, inputs["input_ids"].shape[1] :]
        decoded = tokenizer.batch_decode(answers, skip_special_tokens=True)
        for n, answer in enumerate(decoded):
            take(start + n, clean_answer(answer, chat=_is_chat(tokenizer)))


def clean_answer(answer: str, *, chat: bool) -> str | None:
    """Return the prompt that an answer holds, on one line; None where it holds none.

    Args:
        answer: the model's text.
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


def _load(options: RewriterOptions, device: str, dtype: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    quiet_hub()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            options.model, revision=options.revision, padding_side="left"
        )
        model = AutoModelForCausalLM.from_pretrained(
            options.model,
            revision=options.revision,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
        )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return model.eval().to(device), tokenizer
    except Exception as error:  # no set of errors is documented: network, names, files, versions
        raise RealBenchError(
            f"cannot load the rewriter {printable(options.model)}: {hub_reason(error)}"
        ) from error


def _is_chat(tokenizer: Any) -> bool:
    return bool(tokenizer.chat_template)


def _wording(tokenizer: Any, instruction: str, prompt: str) -> str:
    if not _is_chat(tokenizer):
        return f"{instruction}\n\nDescription: {prompt}\nPrompt:"
    # One message, since not every template takes a system message.
    content = f"{instruction}\n\nDescription: {prompt}"
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    )
