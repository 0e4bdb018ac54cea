"""The reward as TRL's GRPOTrainer takes it: a function for each term."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from realbench.generation.rewriting import Answer
from realbench.train.prompt.rewarding import Rewarder, group_seed, total

NO_VARIANCE = 1e-6
"""Largest minus smallest reward of a group up to which nothing is learnt from it."""


class RewardFunctions:
    """The terms of a rewarder, each of which TRL weighs and names on its own.

    TRL calls them one after the other on the same rewrites; the first call makes the images and
    all terms, the others read them.

    Args:
        rewarder: the terms.
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
