"""CLIP models of open_clip with weights from a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from realbench.detection.cards import NetworkCard
from realbench.detection.checkpoints import read_checkpoint
from realbench.errors import RealBenchError, UsageError

_IMAGE = "visual."
_KEPT_POSITIONS = 20


def clip_model(card: NetworkCard, part: str) -> Any:
    """Build the open_clip model of a card and load its weights, in float32 on the CPU.

    Args:
        card: its ``model.architecture`` is open_clip's name.
        part: which of the card's files holds the model.

    Raises:
        UsageError: open_clip has no such architecture.
        RealBenchError: the weights are missing, altered or of another model.
    """
    state = _state(card, part)
    model = _built(card, device="meta")  # as for the encoder below
    _load(model, state, card, part, assign=True)
    if getattr(model, "attn_mask", None) is not None:
        model.attn_mask = _causal_mask(model.context_length)
    if _is_unfinished(model):
        model = _built(card)
        _load(model, state, card, part)
    return model.eval()


def image_encoder(card: NetworkCard, part: str) -> nn.Module:
    """Do the same for the image side alone: it maps (n, 3, S, S) to features (n, D)."""
    state = _state(card, part)
    if any(name.startswith(_IMAGE) for name in state):
        state = {k.removeprefix(_IMAGE): v for k, v in state.items() if k.startswith(_IMAGE)}
    # Without memory of its own the network takes the file's; random numbers for a large one,
    # which would be overwritten, take half a minute.
    encoder: nn.Module = _built(card, device="meta").visual
    _load(encoder, state, card, part, assign=True)
    if _is_unfinished(encoder):
        encoder = _built(card).visual  # it computes some constants of its own
        _load(encoder, state, card, part)
    return encoder.eval()


def _is_unfinished(network: nn.Module) -> bool:
    return any(value.is_meta for value in [*network.parameters(), *network.buffers()])


def _causal_mask(length: int) -> Tensor:
    """Return what a token may not see: added to attention, float32 (length, length)."""
    return torch.full((length, length), float("-inf")).triu(1)


def _built(card: NetworkCard, device: str = "cpu") -> Any:
    import open_clip

    name = card.model.architecture
    if name not in open_clip.list_models():
        raise UsageError(f"{card.path}: open_clip has no model {name!r} (model.architecture)")
    with _unwarned():  # of random weights, which are replaced at once
        return open_clip.create_model(
            name, pretrained=None, load_weights=False, device=device, **card.model.options
        )


@contextmanager
def _unwarned() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _state(card: NetworkCard, part: str) -> dict[str, Tensor]:
    card.check_weights(part)
    spec = card.parts[part]
    state = read_checkpoint(card.locate(part), key=spec.key, strip_prefix=spec.strip_prefix)
    return _one_position_table(state)


def _one_position_table(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join the two tables of positions of Long-CLIP (Zhang et al., ECCV 2024).

    It keeps the first 20 positions of CLIP's own table and takes the others from a second one.
    """
    stretched = state.pop("positional_embedding_res", None)
    if stretched is not None:
        kept = state["positional_embedding"][:_KEPT_POSITIONS]
        state["positional_embedding"] = torch.cat([kept, stretched[_KEPT_POSITIONS:]])
    return state


def _load(
    module: nn.Module,
    state: dict[str, Tensor],
    card: NetworkCard,
    part: str,
    *,
    assign: bool = False,
) -> None:
    floats = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    with fitting(card, part):
        module.load_state_dict(floats, assign=assign)


@contextmanager
def fitting(card: NetworkCard, part: str = "weights") -> Iterator[None]:
    """Turn torch's report on weights of another network into one line."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RealBenchError(
            f"{card.locate(part)} does not fit {card.model.architecture!r} of its card: "
            f"{lines[min(1, len(lines) - 1)][:200]}"
        ) from error
