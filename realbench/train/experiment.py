"""What a training is made of: its prompts, its evaluation set and its reward."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from realbench.errors import UsageError
from realbench.prompts import load_suite
from realbench.reward.reward import Reward, SplitReward, build_reward, split_reward
from realbench.train.config import DiffusionConfig
from realbench.train.evaluation import EvaluationSet

DEFAULT_SUITE = "realbench-core"


@dataclass(frozen=True)
class Prompts:
    """The texts of a training.

    Attributes:
        training: n texts.
        evaluation: what is evaluated.
    """

    training: tuple[str, ...]
    evaluation: EvaluationSet

    @property
    def sha256(self) -> str:
        """Hex digest of the texts: a run goes on only on the same ones."""
        text = json.dumps([self.training, self.evaluation.prompts], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def choose_prompts(
    config: DiffusionConfig,
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
    names = [name if _is_file_name(name) else f"{n:04}" for n, name in enumerate(chosen)]
    named = dict(zip(names, chosen.values(), strict=True))
    return Prompts(tuple(texts.values()), EvaluationSet.of(named, settings.images_per_prompt))


def make_reward(
    config: DiffusionConfig, reward: Reward | SplitReward | None, device: str
) -> SplitReward:
    """Return the reward that is given, or the config's, loaded.

    Raises:
        UsageError: there is neither, or the config's cannot be used.
    """
    if reward is not None:
        return split_reward(reward)
    if config.reward is None:
        raise UsageError("the config has no [reward]: say what the images are rewarded for")
    return build_reward(config.reward, device=device)


def _training_prompts(config: DiffusionConfig) -> dict[str, str]:
    prompts, paired = config.prompts, config.cotraining.paired
    if prompts.suite is None and paired is not None:
        from realbench.train.paired import PairedImages

        return _numbered(PairedImages(paired).captions[: prompts.limit])
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


def _is_file_name(name: str) -> bool:
    return not (set(name) & set("/\\\0\n\r")) and not name.startswith(".")
