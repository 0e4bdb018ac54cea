"""Vision-language models of transformers: the logits of the first token of their answer.

Shared by all that ask such a model a question with a short answer: one forward pass over the
question gives the probability of every answer, where sampled text would give one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from realbench.detection.detector import is_memory_shortage
from realbench.detection.model_files import ModelFiles, check_complete
from realbench.errors import RealBenchError, UsageError
from realbench.text import first_line, printable

if TYPE_CHECKING:
    import torch
    from PIL import Image

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: tuple[Dtype, ...] = ("auto", "float32", "bfloat16", "float16")


class UnsuitableChatError(RealBenchError):
    """The model's processor cannot take this question, for instance a picture of extreme shape."""


@dataclass(frozen=True, slots=True)
class Chat:
    """One question to a model.

    Attributes:
        system: What the model is told before; may be empty.
        content: The question: texts and RGB pictures in the order in which they are shown.
    """

    system: str
    content: tuple[str | Image.Image, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Chats as the network takes them, padded on the left to one length.

    Attributes:
        chats: What was prepared.
        inputs: The processor's tensors by name, on the CPU.
        tokens: The length of each chat in tokens, without padding.
    """

    chats: tuple[Chat, ...]
    inputs: dict[str, Any]
    tokens: tuple[int, ...]


class VisionLanguageModel:
    """A model that transformers can load with ``AutoModelForImageTextToText``.

    The processor is loaded at once, so that most mistakes show early; the weights follow with
    the first question, or with :meth:`load`. Weights are read from safetensors files only.

    Args:
        model: A folder, or an id on the Hugging Face hub, which is fetched if it is not here.
        device: A torch device such as ``"cpu"`` or ``"cuda:0"``.
        dtype: What the network computes in; ``"auto"`` is what its weights are stored in.
        revision: The hub's branch, tag or commit; its main branch if not given.
        trust_remote_code: Whether to run Python code that comes with the model. Nothing confines
            it: only for models whose code you have read.

    Raises:
        UsageError: there is no such model, it is of another kind, it needs code of its own that
            is not trusted, or ``dtype`` is unknown.
        RealBenchError: it cannot be fetched.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "cpu",
        dtype: Dtype = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if dtype not in DTYPES:
            raise UsageError(f"no dtype {dtype!r}: there are {', '.join(DTYPES)}")
        self.name = model
        self.device = device
        self.dtype = dtype
        self.trust_remote_code = trust_remote_code
        self._files = ModelFiles(model, revision, with_code=trust_remote_code)
        self.folder = self._files.folder
        with quiet():
            self._check_kind()
            self.processor = self._load_processor()
        self._folds_system = self._check_chat_template()
        self._network: Any = None
        self._most_chats: int | None = None  # in one pass, once memory was short

    @property
    def fingerprint(self) -> str:
        """Hex digest of the model's files, or the hub's commit (:class:`ModelFiles`)."""
        return self._files.fingerprint

    def answer_tokens(self, answers: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, ...]]:
        """Find the tokens with which an answer can begin.

        Tokenizers have a word with and without the space before it as two tokens, or as one.
        Each way is used only where it makes a single token of every text, for otherwise one
        answer could collect more probability than another by its spelling alone.

        Args:
            answers: Name of the answer to the texts that mean it.

        Returns:
            The same with token ids, all different.

        Raises:
            UsageError: some text is more than one token, or stands for two answers.
        """
        found: dict[str, list[int]] = {name: [] for name in answers}
        for space in ("", " "):
            tokens = {n: [self._token(space + t) for t in texts] for n, texts in answers.items()}
            if all(token is not None for ids in tokens.values() for token in ids):
                for name, ids in tokens.items():
                    found[name] += [token for token in ids if token is not None]
        if not any(found.values()):
            long = next(t for texts in answers.values() for t in texts if self._token(t) is None)
            raise UsageError(
                f"{printable(self.name)}: the answer {long!r} is not one token of its tokenizer, "
                "so its probability cannot be read; use a template with other answers"
            )
        unique = {name: tuple(dict.fromkeys(ids)) for name, ids in found.items()}
        every = [token for ids in unique.values() for token in ids]
        if len(set(every)) < len(every):
            raise UsageError(
                f"{printable(self.name)}: its tokenizer does not tell the answers "
                f"{', '.join(repr(t) for texts in answers.values() for t in texts)} apart"
            )
        return unique

    def load(self) -> None:
        """Load the weights, if that has not happened.

        Raises:
            RealBenchError: they are missing, not safetensors, incomplete, or too large.
        """
        if self._network is not None:
            return
        self._files.fetch_weights()
        with quiet(), self._explaining("its weights cannot be loaded"):
            from transformers import AutoModelForImageTextToText

            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                self.folder,
                dtype=self.dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=self.trust_remote_code,
                ignore_mismatched_sizes=True,  # told of below, in one line
                output_loading_info=True,
            )
            network, info = loaded
            check_complete(info, printable(self.name), self._files.remedy)
            self._network = network.to(self.device).eval()

    def to(self, device: str) -> None:
        """Move the network, or have it loaded, to a torch device."""
        self.device = device
        if self._network is not None:
            self._network.to(device)

    def prepare(self, chats: Sequence[Chat]) -> Prepared:
        """Turn chats into the network's input; safe to call while another thread computes.

        Raises:
            UnsuitableChatError: the processor refuses one of them.
        """
        try:
            texts = [self._rendered(self._messages(chat)) for chat in chats]
            begun = bool(self._tokenizer.bos_token) and texts[0].startswith(
                self._tokenizer.bos_token
            )
            pictures = [[part for part in c.content if not isinstance(part, str)] for c in chats]
            batch = self.processor(
                text=texts,
                images=pictures if any(pictures) else None,
                add_special_tokens=not begun,
                padding=True,
                padding_side="left",
                return_tensors="pt",
            )
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise UnsuitableChatError(
                f"{printable(self.name)} cannot take this question: {first_line(error)}"
            ) from error
        tokens = tuple(batch["attention_mask"].sum(1).tolist())
        return Prepared(tuple(chats), dict(batch), tokens)

    def first_logits(self, prepared: Prepared) -> torch.Tensor:
        """Run one forward pass; return the logits of the first token of each answer.

        Where memory does not suffice for all chats at once, they go in halves.

        Returns:
            float32 of shape (chats, vocabulary), on the CPU.

        Raises:
            RealBenchError: memory does not suffice for a single chat.
        """
        import torch

        self.load()
        chats = prepared.chats
        if self._most_chats is None or len(chats) <= self._most_chats:
            try:
                return self._forward(prepared)
            except (RuntimeError, MemoryError) as error:
                if not is_memory_shortage(error):
                    raise
            # Outside the handler, whose traceback would keep the tensors of the failed pass.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(chats) == 1:
                raise RealBenchError(
                    f"not enough memory to ask {printable(self.name)} one question: use smaller "
                    "images, a smaller dtype or another device"
                )
            self._most_chats = len(chats) - 1
        half = len(chats) // 2
        parts = [self.prepare(part) for part in (chats[:half], chats[half:])]
        return torch.cat([self.first_logits(part) for part in parts])

    def _forward(self, prepared: Prepared) -> torch.Tensor:
        import torch
        from transformers import GenerationConfig

        inputs = {
            name: value.to(
                self.device, self._network.dtype if value.is_floating_point() else value.dtype
            )
            for name, value in prepared.inputs.items()
            if isinstance(value, torch.Tensor)
        }
        # Generation of one token is one pass, in which the library sets the positions of padded
        # rows as each architecture needs them and computes no logits but the last.
        config = GenerationConfig(
            max_new_tokens=1,
            do_sample=False,
            num_beams=1,
            return_dict_in_generate=True,
            output_logits=True,  # those before any penalty or temperature
            pad_token_id=self._tokenizer.pad_token_id,
        )
        with torch.inference_mode(), quiet():
            output = self._network.generate(**inputs, generation_config=config)
        return output.logits[0].float().cpu()

    # --- the processor ---

    @property
    def _tokenizer(self) -> Any:
        return self.processor.tokenizer

    def _token(self, text: str) -> int | None:
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        if len(tokens) != 1 or tokens[0] == self._tokenizer.unk_token_id:
            return None
        return tokens[0]

    def _messages(self, chat: Chat) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = [
            {"type": "text", "text": self._harmless(part)}
            if isinstance(part, str)
            else {"type": "image", "image": part}
            for part in chat.content
        ]
        if not chat.system:
            return [{"role": "user", "content": content}]
        text = self._harmless(chat.system)
        if self._folds_system:
            opening = {"type": "text", "text": f"{text}\n\n"}
            return [{"role": "user", "content": [opening, *content]}]
        system = {"type": "text", "text": text}
        return [{"role": "system", "content": [system]}, {"role": "user", "content": content}]

    def _harmless(self, text: str) -> str:
        """Break up what the tokenizer would take for a control token, such as a chat's end."""
        for token in self._control_tokens:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @cached_property
    def _control_tokens(self) -> list[str]:
        added = [str(token) for token in self._tokenizer.added_tokens_decoder.values()]
        every = {*added, *self._tokenizer.all_special_tokens}
        return sorted((t for t in every if len(t) > 1 and not t.isspace()), key=len, reverse=True)

    def _check_kind(self) -> None:
        from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

        with self._explaining("its config.json cannot be used"):
            config = AutoConfig.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=self.trust_remote_code
            )
        by_its_code = "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {})
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not by_its_code:
            raise UsageError(
                f"{printable(self.name)} is a {config.model_type or 'nameless'} model, which does "
                "not answer questions about images; use a vision-language model such as Qwen2.5-VL"
            )

    def _load_processor(self) -> Any:
        from transformers import AutoProcessor

        with self._explaining("its processor cannot be loaded"):
            processor = AutoProcessor.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=self.trust_remote_code
            )
        if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
            raise UsageError(
                f"{printable(self.name)} has no processor for images and text: its "
                "preprocessor_config.json or tokenizer files are missing"
            )
        if processor.tokenizer.vocab_size < 2:  # made up by transformers where files are missing
            raise UsageError(f"{printable(self.name)} has no tokenizer: {self._files.remedy}")
        if processor.tokenizer.pad_token_id is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        return processor

    def _check_chat_template(self) -> bool:
        """Whether system texts must go into the question, as some templates know no such role."""
        if not getattr(self.processor, "chat_template", None):
            raise UsageError(
                f"{printable(self.name)} has no chat template, so it is not known how to ask it; "
                "use the version that is tuned for chats (often called Instruct)"
            )
        texts = ("realbench-system", "realbench-question")
        user = {"role": "user", "content": [{"type": "text", "text": texts[1]}]}
        system = {"role": "system", "content": [{"type": "text", "text": texts[0]}]}
        try:
            rendered = self._rendered([system, user])
            folds = not all(text in rendered for text in texts)
        except Exception:  # templates refuse by errors of any kind
            folds = True
        with self._explaining("its chat template cannot be used"):
            rendered = self._rendered([user]) if folds else rendered
        if rendered.rstrip().endswith("<think>"):
            raise UsageError(
                f"{printable(self.name)} reasons before it answers, so its first token is no "
                "answer; use its Instruct version, or serve it and use the openai: judge"
            )
        return folds

    def _rendered(self, messages: list[dict[str, Any]]) -> str:
        # Only some templates know the switch, and processors take what is unknown for their own.
        thinks = "enable_thinking" in str(self.processor.chat_template)
        options = {"enable_thinking": False} if thinks else {}
        return self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, **options
        )

    @contextmanager
    def _explaining(self, what: str) -> Iterator[None]:
        """Turn what transformers raises on files that it cannot use into one line."""
        try:
            yield
        except RealBenchError:
            raise
        except Exception as error:
            if is_memory_shortage(error):
                raise RealBenchError(
                    f"not enough memory on {self.device} for {printable(self.name)}: use a smaller "
                    "model or dtype, or another device"
                ) from error
            if "trust_remote_code" in str(error):
                raise UsageError(
                    f"{printable(self.name)} needs Python code of its own, which nothing confines: "
                    "read it, and give --trust-remote-code if you trust it"
                ) from error
            raise RealBenchError(
                f"{printable(self.name)}: {what} ({first_line(error)}); {self._files.remedy}"
            ) from error


def answer_logits(
    logits: torch.Tensor,
    tokens: Mapping[str, Sequence[int]],
    *,
    pool: Literal["logsumexp", "mean"] = "logsumexp",
) -> torch.Tensor:
    """Reduce a vocabulary's logits to one logit for each answer.

    Args:
        logits: Shape (n, vocabulary).
        tokens: Name of the answer to its tokens, as :meth:`VisionLanguageModel.answer_tokens`.
        pool: Over the tokens of one answer. ``"logsumexp"`` adds their probabilities, which makes
            a softmax over the answers the probability given that one of them is said; ``"mean"``
            averages their logits.

    Returns:
        Shape (n, answers), in the order of ``tokens``.
    """
    import torch

    reduced = torch.mean if pool == "mean" else torch.logsumexp
    return torch.stack([reduced(logits[:, list(ids)], dim=1) for ids in tokens.values()], dim=1)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' notes to programmers, and its bars for short work, off the terminal."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
