"""The reward: one callable from images and prompts to numbers in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from realbench.errors import RealBenchError, UsageError
from realbench.reward.config import (
    AlignmentConfig,
    ComponentConfig,
    DetectorsConfig,
    FunctionConfig,
    JudgeConfig,
    RewardConfig,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image

    Images = Sequence[Image.Image | np.ndarray] | torch.Tensor

__all__ = [
    *("AlignmentConfig", "Component", "ComponentConfig", "DetectorsConfig", "FunctionConfig"),
    *("FunctionReward", "HttpConfig", "JudgeConfig", "Reward", "RewardConfig", "SplitReward"),
    *("WeightedReward", "build_reward", "split_reward"),
]

_ROUNDING = 1e-4
"""How far outside [0, 1] a component may be: float16 of 1 + 1e-4 is rounding, 1.5 a mistake."""


class Reward(Protocol):
    """What scorers, the server and the trainers share: how good images are.

    A :class:`WeightedReward`, a :class:`~realbench.reward.client.RewardClient`, or any function
    of the same signature.
    """

    def __call__(self, images: Any, prompts: Sequence[str], /) -> np.ndarray:
        """Return the reward of each image, float32 (n,), in [0, 1]; higher is better.

        Args:
            images: PIL images or uint8 RGB arrays (H, W, 3), or one uint8 tensor (n, 3, H, W).
            prompts: The text of each image.
        """


@runtime_checkable
class SplitReward(Protocol):
    """A reward that tells its parts, as a trainer needs them.

    Attributes:
        weights: Of the parts, by name; they sum to 1.
    """

    weights: Mapping[str, float]

    def each(self, images: Any, prompts: Sequence[str], /) -> dict[str, np.ndarray]:
        """Return what each part says, by name; each float32 (n,), in [0, 1]."""

    def total(self, values: Mapping[str, np.ndarray], /) -> np.ndarray:
        """Return the reward from what :meth:`each` returned, float32 (n,)."""

    def describe(self) -> dict[str, Any]:
        """Return what decides the reward, as JSON values; it holds no secrets."""


@runtime_checkable
class Component(Protocol):
    """One term of a reward.

    Attributes:
        name: What it is called in reports.
        weight: At least 0; only the ratios to the others' count.
    """

    name: str
    weight: float

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        """Return float32 (n,) in [0, 1]; higher is better.

        Args:
            images: uint8 RGB arrays (H, W, 3), of any size.
            prompts: The text of each.
        """

    def describe(self) -> dict[str, Any]:
        """Return what decides its values, as JSON values: fingerprints, settings; no secrets."""


class WeightedReward:
    """The weighted mean of components.

    >>> reward = build_reward(RewardConfig())
    >>> reward(images, prompts)  # float32 (n,)

    Args:
        components: Their names must differ, and one weight be above 0.

    Attributes:
        components: As they were given.
        weights: By name; they sum to 1.
    """

    def __init__(self, components: Sequence[Component]) -> None:
        self.components = tuple(components)
        names = [one.name for one in components]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"a reward needs components of different names, not {names}")
        total = sum(one.weight for one in components)
        if not total > 0 or any(one.weight < 0 for one in components):
            raise UsageError("the weights of a reward must be 0 or more, and one above 0")
        self.weights: Mapping[str, float] = {one.name: one.weight / total for one in components}

    def __repr__(self) -> str:
        if len(self.weights) == 1:
            return f"WeightedReward({self.components[0].name})"
        return (
            f"WeightedReward({', '.join(f'{w:.3g} × {name}' for name, w in self.weights.items())})"
        )

    def __call__(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """Return the reward of each image, float32 (n,), in [0, 1]; higher is better.

        Args:
            images: PIL images of any mode, uint8 RGB arrays (H, W, 3), both of any size, or one
                uint8 tensor (n, 3, H, W).
            prompts: The text of each image.

        Raises:
            UsageError: images of another shape or type, or another number of prompts.
            RealBenchError: a component fails, or gives what is no number in [0, 1].
        """
        return self.total(self.each(images, prompts))

    def each(self, images: Images, prompts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return what each component says, by name; each float32 (n,), in [0, 1].

        Raises:
            UsageError, RealBenchError: as for calling the reward.
        """
        from realbench.scoring.scorer import rgb_arrays

        arrays = rgb_arrays(images)
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if len(arrays) != len(texts):
            raise UsageError(
                f"images: {len(arrays)}, prompts: {len(texts)}; give one prompt for each image"
            )
        if not arrays:
            return {one.name: np.zeros(0, np.float32) for one in self.components}
        return {one.name: _checked(one(arrays, texts), one, len(arrays)) for one in self.components}

    def with_components(
        self, images: Images, prompts: Sequence[str]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the reward, and what :meth:`each` returns, of one pass."""
        values = self.each(images, prompts)
        return self.total(values), values

    def total(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the weighted mean of what :meth:`each` returned, float32 (n,)."""
        terms = [w * values[name].astype(np.float64) for name, w in self.weights.items() if w]
        return np.clip(np.sum(terms, axis=0), 0, 1).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """Return what decides the reward, as JSON values; it holds no secrets."""
        return {
            "components": [
                {"name": one.name, "weight": self.weights[one.name], **one.describe()}
                for one in self.components
            ]
        }


class FunctionReward:
    """A plain function as a reward of one part, ``"reward"``."""

    def __init__(self, function: Reward) -> None:
        self.function = function
        self.weights: Mapping[str, float] = {"reward": 1.0}

    def each(self, images: Any, prompts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the function's values, float32 (n,).

        Raises:
            RealBenchError: they are others than a number for each image.
        """
        values = np.asarray(self.function(images, prompts), np.float32)
        if values.shape != (len(prompts),):
            raise RealBenchError(
                f"the reward gave values of shape {values.shape}, not ({len(prompts)},)"
            )
        return {"reward": values}

    def total(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the reward, float32 (n,)."""
        return values["reward"]

    def describe(self) -> dict[str, Any]:
        """Return the function's name."""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return {"components": [{"name": "reward", "weight": 1.0, "function": name}]}


def split_reward(reward: Reward | SplitReward) -> SplitReward:
    """Return a reward with its parts; one that does not tell them is one part."""
    return reward if isinstance(reward, SplitReward) else FunctionReward(reward)


def _checked(values: Any, component: Component, count: int) -> np.ndarray:
    """Return a component's values as float32 in [0, 1], or say what is wrong with them."""
    name = f"the reward component {component.name!r}"
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise RealBenchError(f"{name} gave no numbers: {error}") from error
    if array.shape != (count,):
        raise RealBenchError(f"{name} gave values of shape {array.shape}, not ({count},)")
    bad = np.flatnonzero(~((array >= -_ROUNDING) & (array <= 1 + _ROUNDING)))
    if len(bad):
        raise RealBenchError(
            f"{name} gave {array[bad[0]]:g} for image {bad[0]} ({len(bad)} of {count} are such): "
            "a reward is a number in [0, 1]"
        )
    return np.clip(array, 0, 1).astype(np.float32)


def build_reward(config: RewardConfig, *, device: str = "auto") -> WeightedReward:
    """Load what a configuration names.

    Args:
        config: The ``[reward]`` table.
        device: Where networks go: ``"auto"``, ``"cpu"``, ``"cuda:0"`` and so on.

    Raises:
        UsageError: a detector, file, model or function that there is not.
        RealBenchError: weights that cannot be loaded, or a server that does not answer.
    """
    return WeightedReward([_built(one, device) for one in config.components])


def _built(config: ComponentConfig, device: str) -> Component:
    from realbench.reward import components as kinds

    if isinstance(config, DetectorsConfig):
        return kinds.DetectorsComponent(config, device)
    if isinstance(config, FunctionConfig):
        return kinds.FunctionComponent(config)
    if isinstance(config, AlignmentConfig):
        return kinds.AlignmentComponent(config, device)
    if isinstance(config, JudgeConfig):
        from realbench.reward.judge import judge_component

        return judge_component(config, device)
    from realbench.reward.client import HttpComponent

    return HttpComponent(config)
