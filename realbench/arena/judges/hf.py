"""The ``hf:MODEL`` judge: a local vision-language model, whose answer probabilities are read."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import islice
from typing import Any

from realbench.arena.judges.judge import JudgeOptions, Judgment, Showing, Verdict
from realbench.arena.judges.pictures import DEFAULT_IMAGE_SIZE, shown_picture
from realbench.arena.template import DEFAULT_TEMPLATE, load_template
from realbench.detection.vlm import (
    Chat,
    Prepared,
    UnsuitableChatError,
    VisionLanguageModel,
    answer_logits,
)
from realbench.errors import RealBenchWarning, UsageError
from realbench.images import UnreadableImage

# A pass over one showing fills a CPU; on a GPU it takes several.
_BATCH_ON_CPU, _BATCH_ON_GPU = 1, 8
# Scaled pictures that are kept, since one is shown in both orders and against several others.
_PICTURES_KEPT = 64
# Probability on the answers below which the user is told that the model hardly gives them.
_LITTLE_MASS = 0.5


@dataclass(frozen=True, slots=True)
class _Batch:
    """Showings that are ready for a forward pass, and those that cannot be judged and why."""

    showings: list[Showing]
    prepared: list[Prepared]
    refused: list[tuple[Showing, str]]


class HFJudge:
    """Asks a local vision-language model and reads how probable each answer is.

    The model sees the template's direct question with both pictures. At the first position of
    its answer, the logits of the tokens that can begin an answer (see
    :meth:`~realbench.detection.vlm.VisionLanguageModel.answer_tokens`) are added up by
    log-sum-exp for each of first, second and tie, and a softmax over these three gives their
    probabilities. P(first is more real) is p(first) + p(tie) / 2; the verdict is the most
    probable answer, a tie where first and second are equal.

    ``raw`` of a judgment is a JSON object with the three probabilities and ``on_answers``, the
    share of the model's whole probability that fell on these answers. Pictures that cannot be
    read or shown, and logits that are not numbers, make it ``invalid``; ``reason`` says why.

    Args:
        model: A folder, or an id on the Hugging Face hub.
        options: ``template``, ``image_size``, ``batch_size``, ``device``, ``dtype``,
            ``revision`` and ``trust_remote_code`` are read.

    Raises:
        UsageError: an option is not valid, there is no such model, it is of another kind, or the
            template's answers are not single tokens of its tokenizer.
        RealBenchError: the model cannot be fetched.
    """

    orders = 2
    is_vlm = True

    def __init__(self, model: str, options: JudgeOptions | None = None) -> None:
        from realbench.scoring.scorer import choose_device

        options = options or JudgeOptions()
        self.name = f"hf:{model}"
        self.image_size = options.image_size or DEFAULT_IMAGE_SIZE
        self.template = load_template(options.template or DEFAULT_TEMPLATE)
        device = choose_device(options.device)
        on_cpu = device.startswith("cpu")
        self.batch_size = options.batch_size or (_BATCH_ON_CPU if on_cpu else _BATCH_ON_GPU)
        if self.batch_size < 1 or self.image_size < 1:
            raise UsageError("the batch size and the image size must be at least 1")
        self.model = VisionLanguageModel(
            model,
            device=device,
            dtype=options.dtype,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
        )
        answers = self.template.direct.answers
        self._tokens = self.model.answer_tokens(
            {"first": answers.first, "second": answers.second, "tie": answers.tie}
        )
        shown = partial(shown_picture, size=self.image_size, max_pixels=options.max_pixels)
        self._shown = lru_cache(_PICTURES_KEPT)(shown)
        self._masses_seen = False

    def __repr__(self) -> str:
        return f"HFJudge({self.model.name!r}, {self.model.device})"

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the model's files, the template, the image size and the dtype."""
        parts = [self.model.fingerprint, self.template.sha256, self.image_size, self.model.dtype]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the settings and versions for ``run.json``."""
        import torch
        import transformers

        return {
            "kind": "hf",
            "model": self.model.name,
            "model_fingerprint": self.model.fingerprint,
            "template": self.template.describe(),
            "image_size": self.image_size,
            "answer_tokens": {name: list(ids) for name, ids in self._tokens.items()},
            "dtype": self.model.dtype,
            "device": self.model.device,
            "batch_size": self.batch_size,
            "trust_remote_code": self.model.trust_remote_code,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }

    def judge(self, showings: Iterable[Showing]) -> Iterator[tuple[Showing, Judgment]]:
        """Judge showings batch by batch; the next batch is prepared while the model computes.

        Raises:
            RealBenchError: the weights cannot be loaded, or memory does not suffice.
        """
        self.model.load()
        left = iter(showings)
        with ThreadPoolExecutor(1, thread_name_prefix="realbench-prepare") as preparing:

            def next_batch() -> Future[_Batch] | None:
                some = list(islice(left, self.batch_size))
                return preparing.submit(self._prepare, some) if some else None

            waiting = next_batch()
            while waiting is not None:
                batch, waiting = waiting.result(), next_batch()
                yield from self._judge_batch(batch)

    # --- preparing, on a thread ---

    def _prepare(self, showings: Sequence[Showing]) -> _Batch:
        ready: list[Showing] = []
        chats: list[Chat] = []
        refused: list[tuple[Showing, str]] = []
        for showing in showings:
            try:
                chats.append(self._chat(showing))
                ready.append(showing)
            except UnreadableImage as error:
                refused.append((showing, str(error)))
        try:
            prepared = [self.model.prepare(chats)] if chats else []
        except UnsuitableChatError:  # by one of them: the others are judged alone
            return self._prepare_singly(ready, chats, refused)
        return _Batch(ready, prepared, refused)

    def _prepare_singly(
        self, showings: Sequence[Showing], chats: Sequence[Chat], refused: list[tuple[Showing, str]]
    ) -> _Batch:
        batch = _Batch([], [], refused)
        for showing, chat in zip(showings, chats, strict=True):
            try:
                batch.prepared.append(self.model.prepare([chat]))
                batch.showings.append(showing)
            except UnsuitableChatError as error:
                refused.append((showing, str(error)))
        return batch

    def _chat(self, showing: Showing) -> Chat:
        wording = self.template.direct_wording(showing.prompt)
        content = (
            wording.before_first,
            self._shown(showing.first),
            wording.before_second,
            self._shown(showing.second),
            wording.question,
        )
        return Chat(wording.system, content)

    # --- judging ---

    def _judge_batch(self, batch: _Batch) -> Iterator[tuple[Showing, Judgment]]:
        for showing, reason in batch.refused:
            yield showing, Judgment("invalid", reason=reason)
        showings = iter(batch.showings)
        for prepared in batch.prepared:
            start = time.perf_counter()
            probabilities, masses = self._probabilities(prepared)
            seconds = (time.perf_counter() - start) / len(masses)
            self._warn_of_little(masses)
            for row, mass, tokens in zip(probabilities, masses, prepared.tokens, strict=True):
                yield next(showings), _judgment(row, mass, tokens, seconds)

    def _probabilities(self, prepared: Prepared) -> tuple[list[list[float]], list[float]]:
        """Return p(first), p(second), p(tie) of each showing, and what falls on all answers."""
        logits = self.model.first_logits(prepared).double()
        three = answer_logits(logits, self._tokens)
        masses = (three.logsumexp(1) - logits.logsumexp(1)).exp()
        return three.softmax(1).tolist(), masses.tolist()

    def _warn_of_little(self, masses: Sequence[float]) -> None:
        if self._masses_seen:
            return
        self._masses_seen = True
        mean = sum(masses) / len(masses)
        if mean < _LITTLE_MASS:
            warnings.warn(
                f"{self.name} puts only {mean:.1%} of its probability on the template's answers: "
                "it hardly answers as asked, so its votes may mean little",
                RealBenchWarning,
                stacklevel=2,
            )


def _judgment(row: Sequence[float], mass: float, tokens: int, seconds: float) -> Judgment:
    first, second, tie = row
    usage = {"input_tokens": float(tokens)}
    if not all(map(math.isfinite, row)):
        reason = "the model's logits are not numbers; try another dtype"
        return Judgment("invalid", reason=reason, seconds=seconds, usage=usage)
    verdict: Verdict = "first" if first > second else "second"
    if tie > max(first, second) or first == second:
        verdict = "tie"
    raw = json.dumps(
        {
            "first": round(first, 6),
            "second": round(second, 6),
            "tie": round(tie, 6),
            "on_answers": float(f"{mass:.4g}"),
        }
    )
    # Sums of rounded probabilities can exceed 1 by an ulp.
    probability = min(1.0, first + tie / 2)
    return Judgment(verdict, probability, raw=raw, seconds=seconds, usage=usage)
