"""Which prompts a training rewrites, and in which order."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from realbench.errors import UsageError
from realbench.prompts import Suite, load_suite
from realbench.train.prompt.config import PromptTrainConfig
from realbench.train.prompt.rewarding import Original


@dataclass(frozen=True)
class Prompts:
    """The prompts of a training.

    Attributes:
        training: those that are learnt from.
        evaluation: those that are not.
    """

    training: tuple[Original, ...]
    evaluation: tuple[Original, ...]

    @property
    def sha256(self) -> str:
        """Hex digest of the texts: a run goes on only on the same ones."""
        both = [[[one.id, one.text] for one in part] for part in (self.training, self.evaluation)]
        return hashlib.sha256(json.dumps(both, ensure_ascii=False).encode()).hexdigest()

    def order(self, count: int, seed: int) -> list[Original]:
        """Return so many training prompts: each once in random order, then each again.

        A longer list begins with the shorter one of the same seed.
        """
        chosen: list[Original] = []
        while len(chosen) < count:
            rng = np.random.default_rng([seed, len(chosen)])
            chosen += [self.training[place] for place in rng.permutation(len(self.training))]
        return chosen[:count]


def choose_prompts(config: PromptTrainConfig) -> Prompts:
    """Load the suites and set the evaluation's prompts apart.

    Raises:
        UsageError: a suite cannot be used, or has too few prompts.
    """
    form, settings = config.prompts.form, config.evaluation
    given = _originals(load_suite(config.prompts.suite), form)[: config.prompts.limit]
    if settings.suite is not None:
        return Prompts(
            given, _spread(_originals(load_suite(settings.suite), form), settings.prompts)
        )
    if len(given) <= settings.prompts:
        raise UsageError(
            f"{len(given)} prompts are too few to set {settings.prompts} apart for the "
            "evaluation: lower evaluation.prompts or name an evaluation.suite"
        )
    chosen = _spread(given, settings.prompts)
    return Prompts(tuple(one for one in given if one not in chosen), chosen)


def _originals(suite: Suite, form: str) -> tuple[Original, ...]:
    found = []
    for one in suite.prompts.values():
        text = one.prompt_long if form == "long" else one.prompt
        if text is None:
            raise UsageError(f"{suite.name} has no long form of {one.id!r}: set prompts.form")
        found.append(Original(one.id, text))
    return tuple(found)


def _spread(originals: tuple[Original, ...], count: int) -> tuple[Original, ...]:
    count = min(count, len(originals))
    places = np.linspace(0, len(originals) - 1, count).round().astype(int)
    return tuple(originals[place] for place in places.tolist())
