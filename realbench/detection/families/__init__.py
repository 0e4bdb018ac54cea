"""The detector families: of each, one function builds every card that names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from realbench.detection.plugins import find_family
from realbench.detection.specs import FAMILIES
from realbench.errors import UsageError

if TYPE_CHECKING:
    from realbench.detection.cards import Card, NetworkCard
    from realbench.detection.detector import Detector


def build(card: Card) -> Detector:
    """Build and load the detector that ``card`` describes, on the CPU.

    Raises:
        UsageError: the card names an unknown family, or a network that cannot be built, or the
            family's package fails.
        RealBenchError: the weights are missing, altered or do not fit.
    """
    if card.family not in FAMILIES:
        plugin = find_family(card.family)
        if plugin is not None:
            return plugin.build(card)
        raise UsageError(
            f"{card.path}: unknown family {card.family!r} (known: {', '.join(FAMILIES)}; "
            "others are installed as packages)"
        )
    if card.weights.source == "none":
        raise UsageError(f"{card.path}: a card of family {card.family!r} needs weights")
    module = import_module(f"{__name__}.{FAMILIES[card.family]}")
    family_build: Callable[[Card], Detector] = getattr(
        module, f"build_{card.family}".replace("-", "_")
    )
    with building(card):
        return family_build(card)


@contextmanager
def building(card: NetworkCard) -> Iterator[None]:
    """Turn what timm, torch and others raise of a card's network into a UsageError."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{card.path}: the network {card.model.architecture!r} of its card cannot be built "
            f"({reason}): correct [model] and [input]"
        ) from error
