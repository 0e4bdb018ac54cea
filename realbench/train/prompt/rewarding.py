"""What a rewrite is worth: terms on its image and its text, their mean, and how TRL takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from realbench.generation.rewriting import Answer, clean_answer
from realbench.reward import text_terms
from realbench.reward.reward import SplitReward
from realbench.train.advantages import NO_VARIANCE
from realbench.train.prompt.config import TextConfig

if TYPE_CHECKING:
    from PIL import Image


Painter: TypeAlias = "Callable[[Sequence[str], Sequence[int]], list[Image.Image]]"
"""The frozen image model: n prompts and seeds to n images."""


@dataclass(frozen=True)
class Rewarded:
    """What n rewrites are worth.

    Attributes:
        prompts: what the image model got; None where the answer was empty.
        values: by term, float32 (n,) in [0, 1].
        images: of each, None where none was made.
    """

    prompts: tuple[str | None, ...]
    values: dict[str, np.ndarray]
    images: tuple[Image.Image | None, ...]


class Rewarder:
    """The terms of a config.

    An empty answer has no image, and 0 in every term.

    Args:
        chat: whether the model answers in chats, as for ``clean_answer``.
        reward: the terms on images; they are given the original prompts.

    Attributes:
        names: of the terms, those on images first.
    """

    def __init__(
        self,
        text: TextConfig,
        *,
        chat: bool,
        reward: SplitReward | None = None,
        painter: Painter | None = None,
    ) -> None:
        self._text = text
        self._chat = chat
        self._reward = reward
        self._painter = painter
        on_images = tuple(reward.weights) if reward is not None else ()
        self.names = (*on_images, *(name for name, term in text if term is not None))

    def __call__(
        self, answers: Sequence[Answer], originals: Sequence[str], seeds: Sequence[int]
    ) -> Rewarded:
        """Make an image of each answer, and say what both are worth.

        Args:
            originals: the prompt of which each is a rewrite.
        """
        prompts = [clean_answer(one.text, chat=self._chat) for one in answers]
        values = {name: np.zeros(len(answers), np.float32) for name in self.names}
        images: list[Image.Image | None] = [None] * len(answers)
        full = [place for place, prompt in enumerate(prompts) if prompt is not None]
        for place in full:
            terms = self._of_text(answers[place], str(prompts[place]), originals[place])
            for name, value in terms.items():
                values[name][place] = value
        if self._painter is not None and full:
            made = self._painter([str(prompts[p]) for p in full], [seeds[p] for p in full])
            for place, image in zip(full, made, strict=True):
                images[place] = image
            if self._reward is not None:
                found = self._reward.each(made, [originals[place] for place in full])
                for name, scores in found.items():
                    values[name][full] = scores
        return Rewarded(tuple(prompts), values, tuple(images))

    def _of_text(self, answer: Answer, prompt: str, original: str) -> dict[str, float]:
        terms, found = self._text, {}
        if terms.length is not None:
            limits = terms.length.model_dump(exclude={"weight"})
            found["length"] = text_terms.length_term(prompt, **limits)
        if terms.form is not None:
            # Of a model that writes on, the first line alone is the prompt, and it is ended.
            found["form"] = (
                text_terms.form_term(answer.text, ended=answer.ended)
                if self._chat
                else text_terms.form_term(prompt)
            )
        if terms.kept is not None:
            found["kept"] = text_terms.kept_term(prompt, original)
        if terms.vocabulary is not None:
            found["vocabulary"] = text_terms.vocabulary_term(
                prompt, terms.vocabulary.words, enough=terms.vocabulary.enough
            )
        return found


class PipelinePainter:
    """A loaded :class:`~realbench.generation.pipeline.Pipeline`, in batches."""

    def __init__(self, pipeline: Any, batch_size: int) -> None:
        self.pipeline = pipeline
        self._size = batch_size

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        return [
            painted.image
            for start in range(0, len(prompts), self._size)
            for painted in self.pipeline(
                prompts[start : start + self._size], seeds[start : start + self._size]
            )
        ]


def total(values: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the weighted mean of terms, float32 (n,) in [0, 1].

    Args:
        values: by term, each (n,) in [0, 1].
        weights: by term; they sum to 1.
    """
    terms = [weights[name] * values[name].astype(np.float64) for name in weights]
    return np.clip(np.sum(terms, axis=0), 0, 1).astype(np.float32)


def group_seed(seed: int, iteration: int, prompt_id: str) -> int:
    """Return the seed of the images of a prompt's group in an iteration, 0 to 2**32 - 1.

    All rewrites of a group start from the same noise, so that their images differ by the rewrite
    alone; in the next iteration it is another, so that no rewrite is learnt for one noise.
    """
    text = f"prompt-training/{seed}/{iteration}/{prompt_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class RewardFunctions:
    """The terms of a rewarder, each of which TRL weighs and names on its own.

    TRL calls them one after the other on the same rewrites; the first call makes the images and
    all terms, the others read them.

    Args:
        weights: by term; they sum to 1.
        seed: of the run, for the images' noise.
        group_size: rewrites of a prompt, which follow one another.
        gather: joins the rows (n, terms) of all processes, in the order of their ranks.

    Attributes:
        end_tokens: with which the model ends an answer.
        figures: of the last rewrites of all processes, for the log.
    """

    def __init__(
        self,
        rewarder: Rewarder,
        weights: Mapping[str, float],
        *,
        seed: int,
        group_size: int,
        gather: Callable[[np.ndarray], np.ndarray],
        end_tokens: set[int],
    ) -> None:
        self.end_tokens = end_tokens
        self.figures: dict[str, Any] = {}
        self._rewarder = rewarder
        self._weights = weights
        self._seed = seed
        self._group_size = group_size
        self._gather = gather
        self._answers: Any = None
        self._values: dict[str, np.ndarray] = {}

    def functions(self) -> list[Callable[..., list[float]]]:
        """Return a function for each term, in the order of the rewarder's names."""
        return [self._function(name) for name in self._rewarder.names]

    def _function(self, name: str) -> Callable[..., list[float]]:
        def term(*, completions: Sequence[Any], **given: Any) -> list[float]:
            if completions is not self._answers:
                self._judge(completions, **given)
                self._answers = completions  # held, so that no other list can be taken for it
            return [float(value) for value in self._values[name]]

        term.__name__ = name
        return term

    def _judge(
        self,
        completions: Sequence[Any],
        *,
        completion_ids: Sequence[Sequence[int]],
        original: Sequence[str],
        prompt_id: Sequence[str],
        trainer_state: Any,
        **_: Any,
    ) -> None:
        answers = [
            Answer(text_of(one), ended=bool(self.end_tokens.intersection(ids)))
            for one, ids in zip(completions, completion_ids, strict=True)
        ]
        iteration = int(trainer_state.global_step) + 1
        seeds = [group_seed(self._seed, iteration, one) for one in prompt_id]
        rewarded = self._rewarder(answers, original, seeds)
        self._values = rewarded.values
        own = [
            *rewarded.values.values(),
            np.array([len((prompt or "").split()) for prompt in rewarded.prompts]),
            np.array([one.ended for one in answers]),
            np.array([prompt is None for prompt in rewarded.prompts]),
        ]
        self._sum_up(self._gather(np.stack(own, axis=1).astype(np.float32)))

    def _sum_up(self, table: np.ndarray) -> None:
        names = list(self._values)
        values = {name: table[:, column] for column, name in enumerate(names)}
        rewards = total(values, self._weights)
        grouped = rewards.reshape(-1, self._group_size)
        words, ended, empty = table[:, len(names) :].T
        self.figures = {
            "reward": _mean(rewards),
            "reward_std": float(rewards.std(dtype=np.float64)),
            "components": {name: _mean(one) for name, one in values.items()},
            "zero_groups": int((np.ptp(grouped, axis=1) <= NO_VARIANCE).sum()),
            "groups": len(grouped),
            "n": len(rewards),
            "words": _mean(words),
            "ended": _mean(ended),
            "empty": int(empty.sum()),
        }


def text_of(completion: Any) -> str:
    """Return the text of what TRL calls a completion: a chat's messages, or the text itself."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    return content if isinstance(content, str) else ""


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64))
