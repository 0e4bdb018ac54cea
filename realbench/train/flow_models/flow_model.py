"""What the trainer needs of a flow-matching text-to-image model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Conditioning: TypeAlias = "Mapping[str, Tensor]"


class FlowModel(Protocol):
    """A flow-matching pipeline as the trainer sees it.

    "Latents" are what the transformer takes (packed, where the model packs them), float32, with
    the images on the leading axis. σ runs from 1, noise, to 0, an image; the velocity is
    d latents / dσ, so that latents at σ = 0 are ``latents - σ·velocity``.

    Attributes:
        pipeline: a diffusers pipeline; saves and loads LoRA weights.
        transformer: the network that is trained. The trainer adds LoRA to it and may replace it by
            a wrapped one (accelerate): :meth:`velocity` calls whatever this attribute holds.
        lora_targets: names (endings) of the transformer's linear layers that LoRA goes to.
    """

    pipeline: Any
    transformer: torch.nn.Module
    lora_targets: tuple[str, ...]

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the conditioning of n prompts: tensors whose leading axis is n, no gradients.

        What guidance needs (an empty prompt's embedding) is included.
        """
        ...

    def initial_latents(
        self, n: int, height: int, width: int, generator: Sequence[torch.Generator]
    ) -> Tensor:
        """Return noise, float32 (n, ...), each image's from its own generator.

        Raises:
            UsageError: the model cannot make images of this size.
        """
        ...

    def sigmas(self, steps: int, height: int, width: int) -> Tensor:
        """Return the pipeline's own schedule, float32 (steps + 1,), decreasing, the last 0."""
        ...

    @abstractmethod
    def velocity(
        self,
        latents: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        *,
        guidance: float,
        height: int,
        width: int,
    ) -> Tensor:
        """Return the guided velocity, float32, of the shape of ``latents``; carries gradients.

        Args:
            latents: float32 (n, ...).
            sigma: float32 (n,), or a number.
            conditioning: of :meth:`encode_prompts`, n rows.
            guidance: the pipeline's guidance scale, as its users give it.
            height, width: of the images, in pixels.
        """
        ...

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Return images, uint8 (n, 3, height, width), on the device of the latents; no gradients.

        Args:
            latents: at σ = 0.
        """
        ...


def take(conditioning: Conditioning, index: Any) -> dict[str, Tensor]:
    """Return the rows of a conditioning that a slice, list or tensor of indices names."""
    return {name: value[index] for name, value in conditioning.items()}


def concatenate(parts: Sequence[Conditioning]) -> dict[str, Tensor]:
    """Return conditionings of the same model as one, in their order.

    Tensors (n, tokens, ...) whose numbers of tokens differ are filled up with zeros at the end, as
    padding that their masks leave out.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    joined = {}
    for name, first in parts[0].items():
        rows = [row for part in parts for row in part[name]]
        joined[name] = pad_sequence(rows, batch_first=True) if first.ndim > 1 else torch.stack(rows)
    return joined
