"""Reads and packs weights files; nothing is ever unpickled from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from realbench.errors import RealBenchError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from realbench.detection.cards import Card

_SCALE = "::scale"  # of the int8 tensor whose name stands before it
_WORTH_PACKING = 16_384  # values; smaller tensors stay in half precision


def load_weights(network: nn.Module, card: Card) -> None:
    """Check the card's weights file against its hash and load it into ``network``.

    Half-precision weights and packed ones (see :func:`pack`), as the bundled files hold them,
    become float32.

    Raises:
        RealBenchError: the file is missing, altered, holds more than tensors, or is of another
            network.
    """
    card.check_weights()
    path = card.weights_path
    from realbench.detection.checkpoints import read_checkpoint

    spec = card.weights
    state = unpack(read_checkpoint(path, key=spec.key, strip_prefix=spec.strip_prefix))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise RealBenchError(
            f"{path} does not fit {card.model.architecture!r} of its card: {first[:200]}"
        ) from error


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round weights for a small file: matrices to 8 bits, the rest to half precision.

    A matrix (at least two rows and 16,384 values) becomes int8 in [-127, 127] with one
    half-precision scale per row, its output channel.

    Args:
        state: float32 tensors and others, which stay as they are.
    """
    import torch

    packed: dict[str, Tensor] = {}
    for name, value in state.items():
        if not value.is_floating_point():
            packed[name] = value.contiguous()
        elif value.ndim < 2 or len(value) == 1 or value.numel() < _WORTH_PACKING:
            packed[name] = value.half().contiguous()
        else:
            rows = value.float().flatten(1)
            scale = (rows.abs().amax(dim=1) / 127).clamp(min=1e-7).half()
            integers = (rows / scale.float()[:, None]).round().clamp(-127, 127)
            packed[name] = integers.to(torch.int8).view(value.shape).contiguous()
            packed[name + _SCALE] = scale
    return packed


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 tensors from those of a file, packed or not."""
    unpacked: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(_SCALE):
            continue
        scale = state.get(name + _SCALE)
        if scale is not None:
            shape = (-1, *[1] * (value.ndim - 1))
            unpacked[name] = value.float() * scale.float().view(shape)
        else:
            unpacked[name] = value.float() if value.is_floating_point() else value
    return unpacked
