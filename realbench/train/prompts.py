"""Which prompts a training learns from, and which are set apart to judge it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from realbench.errors import UsageError
from realbench.prompts import load_suite
from realbench.train.config import DiffusionConfig

if TYPE_CHECKING:
    from realbench.train.prompt.config import PromptTrainConfig

DEFAULT_SUITE = "realbench-core"


@dataclass(frozen=True)
class Prompts:
    """The texts of a training, by id."""

    training: dict[str, str]
    evaluation: dict[str, str]


def choose_prompts(
    config: DiffusionConfig | PromptTrainConfig,
    training: Sequence[str] | None = None,
    evaluation: Sequence[str] | None = None,
) -> Prompts:
    """Load the suites and set the evaluation's prompts apart.

    Args:
        training: texts to use instead of the training suite's.
        evaluation: texts to evaluate, all of them, instead of a selection.

    Raises:
        UsageError: a suite cannot be used, or has too few prompts.
    """
    settings = config.evaluation
    texts = _training_prompts(config) if training is None else _numbered(training)
    if evaluation is not None:
        chosen = _numbered(evaluation)
    elif settings.suite is not None:
        chosen = _spread(_suite(settings.suite, config.prompts.form), settings.prompts)
    else:
        if len(texts) <= settings.prompts:
            raise UsageError(
                f"{len(texts)} prompts are too few to set {settings.prompts} apart for the "
                "evaluation: lower evaluation.prompts or name an evaluation.suite"
            )
        chosen = _spread(texts, settings.prompts)
        texts = {name: text for name, text in texts.items() if name not in chosen}
    if not texts or not chosen:
        raise UsageError("there are no prompts to train on or to evaluate")
    return Prompts(texts, chosen)


def digest(texts: object) -> str:
    """Return a hex digest of texts, as JSON values: a run goes on only on the same ones."""
    return hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()


def _training_prompts(config: DiffusionConfig | PromptTrainConfig) -> dict[str, str]:
    prompts = config.prompts
    if isinstance(config, DiffusionConfig) and config.cotraining.paired and not prompts.suite:
        from realbench.train.paired import PairedImages

        return _numbered(PairedImages(config.cotraining.paired).captions[: prompts.limit])
    return _suite(prompts.suite or DEFAULT_SUITE, prompts.form, prompts.limit)


def _suite(name: str, form: str, limit: int | None = None) -> dict[str, str]:
    suite = load_suite(name)
    found = {}
    for prompt in list(suite.prompts.values())[:limit]:
        text = prompt.prompt_long if form == "long" else prompt.prompt
        if text is None:
            raise UsageError(f"{suite.name} has no long form of {prompt.id!r}: set prompts.form")
        found[prompt.id] = text
    return found


def _numbered(texts: Sequence[str]) -> dict[str, str]:
    return {f"{number:04}": text for number, text in enumerate(texts)}


def _spread(texts: Mapping[str, str], count: int) -> dict[str, str]:
    names = list(texts)
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return {names[place]: texts[names[place]] for place in places.tolist()}
