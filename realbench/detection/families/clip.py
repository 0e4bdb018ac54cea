"""CLIP models of open_clip with weights from a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from realbench.detection.cards import Card
from realbench.detection.checkpoints import read_checkpoint
from realbench.errors import RealBenchError, UsageError

_IMAGE = "visual."


def clip_model(card: Card, part: str) -> Any:
    """Build the open_clip model of a card and load its weights, in float32 on the CPU.

    Args:
        card: its ``model.architecture`` is open_clip's name.
        part: which of the card's files holds the model.

    Raises:
        UsageError: open_clip has no such architecture.
        RealBenchError: the weights are missing, altered or of another model.
    """
    model = _built(card)
    _load(model, _state(card, part), card, part)
    return model.eval()


def image_encoder(card: Card, part: str) -> nn.Module:
    """Do the same for the image side alone: it maps (n, 3, S, S) to features (n, D)."""
    state = _state(card, part)
    if any(name.startswith(_IMAGE) for name in state):
        state = {k.removeprefix(_IMAGE): v for k, v in state.items() if k.startswith(_IMAGE)}
    # Without memory of its own the network takes the file's; random numbers for a large one,
    # which would be overwritten, take half a minute.
    encoder: nn.Module = _built(card, device="meta").visual
    _load(encoder, state, card, part, assign=True)
    if any(value.is_meta for value in [*encoder.parameters(), *encoder.buffers()]):
        encoder = _built(card).visual  # it computes some constants of its own
        _load(encoder, state, card, part)
    return encoder.eval()


def _built(card: Card, device: str = "cpu") -> Any:
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


def _state(card: Card, part: str) -> dict[str, Tensor]:
    card.check_weights(part)
    spec = card.parts[part]
    return read_checkpoint(card.locate(part), key=spec.key, strip_prefix=spec.strip_prefix)


def _load(
    module: nn.Module, state: dict[str, Tensor], card: Card, part: str, *, assign: bool = False
) -> None:
    floats = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    with fitting(card, part):
        module.load_state_dict(floats, assign=assign)


@contextmanager
def fitting(card: Card, part: str = "weights") -> Iterator[None]:
    """Turn torch's report on weights of another network into one line."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RealBenchError(
            f"{card.locate(part)} does not fit {card.model.architecture!r} of its card: "
            f"{lines[min(1, len(lines) - 1)][:200]}"
        ) from error
