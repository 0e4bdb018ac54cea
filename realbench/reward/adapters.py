"""The reward in the signatures of other trainers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from realbench.errors import UsageError
from realbench.reward.reward import Reward

if TYPE_CHECKING:
    import torch
    from PIL import Image

    Images = Sequence[Image.Image | np.ndarray] | torch.Tensor

FlowGrpoReward = Callable[..., tuple[np.ndarray, dict[str, np.ndarray]]]


@runtime_checkable
class _Divisible(Protocol):
    def with_components(
        self, images: Any, prompts: Sequence[str], /
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]: ...


class TrlReward:
    """A reward function for TRL's trainers of language models (``reward_funcs``).

    A completion is taken as a prompt of an image model: images are made from it and rewarded.

    >>> trainer = GRPOTrainer(reward_funcs=[TrlReward(reward, images=paint)], ...)

    Args:
        reward: What rewards the images.
        images: Makes an image of each text (a list in, as many images out); or the name of a
            column of the data set that holds an image for each completion.
        prompt_column: Column with the text that an image has to fit. By default it is the prompt
            that the language model was given (of a conversation, the last message of the user).
        name: What TRL calls it in its logs.
    """

    def __init__(
        self,
        reward: Reward,
        images: Callable[[list[str]], Images] | str,
        *,
        prompt_column: str | None = None,
        name: str = "realism",
    ) -> None:
        self._reward = reward
        self._images = images
        self._prompt_column = prompt_column
        self.__name__ = name

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float]:
        """Return the reward of each completion.

        Args:
            prompts: Texts or conversations, one for each completion.
            completions: Texts or conversations, as the model wrote them.
            columns: The data set's other columns, and TRL's own (``log_metric`` is used: the mean
                of each component is logged).

        Raises:
            UsageError: a column is missing.
            RealBenchError: the reward fails.
        """
        texts = [text_of(one) for one in completions]
        if callable(self._images):
            images = self._images(texts)
        else:
            images = self._column(columns, self._images)
        if self._prompt_column is None:
            originals = [text_of(one) for one in prompts]
        else:
            originals = [str(one) for one in self._column(columns, self._prompt_column)]
        values, components = _rewarded(self._reward, images, originals)
        log = columns.get("log_metric")
        if log is not None:
            for name, array in components.items():
                log(f"{self.__name__}/{name}", float(array.mean()))
        return [float(value) for value in values]

    def _column(self, columns: Mapping[str, Any], name: str) -> Any:
        if name not in columns:
            raise UsageError(f"{self.__name__}: the data set has no column {name!r}")
        return columns[name]


def text_of(message: Any) -> str:
    """Return the text of a prompt or completion of TRL.

    Args:
        message: A text, or a conversation: a list of ``{"role", "content"}``, of which the last
            one's content counts, itself a text or a list of parts with ``"text"``.
    """
    if isinstance(message, str):
        return message
    if not message:
        return ""
    content = message[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or ())


def flow_grpo_reward(reward: Reward) -> FlowGrpoReward:
    """Return a reward as Flow-GRPO calls it: ``(images, prompts, metadata) -> (scores, info)``.

    ``images`` is what Flow-GRPO and its descendants hand over: a float tensor (n, 3, H, W) in
    [0, 1], or uint8 arrays (n, H, W, 3), or PIL images. ``scores`` is float32 (n,) in [0, 1];
    ``info`` has the values of each component, by name, and is empty where the reward is a
    function. ``metadata`` and further arguments are not looked at.

    Args:
        reward: What rewards the images.
    """

    def score(
        images: Any, prompts: Sequence[str], metadata: Any = None, **_: Any
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return _rewarded(reward, _uint8(images), [str(prompt) for prompt in prompts])

    return score


def _rewarded(
    reward: Reward, images: Any, prompts: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    if isinstance(reward, _Divisible):
        return reward.with_components(images, prompts)
    return np.asarray(reward(images, prompts), np.float32), {}


def _uint8(images: Any) -> Any:
    """Return images as rewards take them, from any form that Flow-GRPO has them in."""
    if isinstance(images, np.ndarray):
        return list(images)
    if not hasattr(images, "detach") or not images.is_floating_point():
        return images
    values = images.detach().float()
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # nor if it is NaN
        raise UsageError(f"images lie from {low:g} to {high:g}: give floats in [0, 1], or uint8")
    return (values.clamp(0, 1) * 255).round().byte()
