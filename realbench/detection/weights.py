"""Reads weights files; nothing is ever unpickled from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realbench.errors import RealBenchError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from realbench.detection.cards import Card


def load_weights(network: nn.Module, card: Card) -> None:
    """Check the card's weights file against its hash and load it into ``network``.

    Half-precision weights, as the bundled files hold them, become float32.

    Raises:
        RealBenchError: the file is missing, altered, not safetensors, or of another network.
    """
    card.check_weights()
    path = card.weights_path
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RealBenchError(f"{path} is not a safetensors file: {error}") from error
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise RealBenchError(
            f"{path} does not fit {card.model.architecture!r} of its card: {first}"
        ) from error
