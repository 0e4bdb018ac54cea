"""Finds detectors by name or folder and loads them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from realbench.content import content_path
from realbench.detection.cards import CARD_FILE, Card, read_card
from realbench.errors import UsageError

if TYPE_CHECKING:
    from realbench.detection.detector import Detector

DEFAULT_DETECTORS: tuple[str, ...] = ("semantic-lite", "trace-lite")


def list_detectors() -> list[str]:
    """Return the names of the bundled cards, sorted; not all of them have weights here."""
    folder = content_path("detectors")
    return sorted(entry.name for entry in folder.iterdir() if (entry / CARD_FILE).is_file())


def find_card(name_or_folder: str | Path) -> Card:
    """Return the card of a bundled detector's name, or of a folder with a ``card.toml``.

    Torch is not imported.

    Raises:
        UsageError: no such detector, or its card is not valid.
    """
    name = str(name_or_folder)
    bundled = list_detectors()
    if name in bundled:
        return read_card(content_path("detectors") / name)
    folder = Path(name_or_folder)
    if folder.is_dir():
        return read_card(folder)
    close = difflib.get_close_matches(name, bundled, n=1)
    hint = f"did you mean {close[0]}?" if close else "give a name or a folder with a card.toml"
    raise UsageError(f"no detector {name!r} (bundled: {', '.join(bundled)}): {hint}")


def check_names(names: Sequence[str]) -> None:
    """Refuse an ensemble of no detectors, or with two of one name.

    Raises:
        UsageError: either of them.
    """
    if not names:
        raise UsageError("no detector is given: name at least one")
    twice = next((name for n, name in enumerate(names) if name in names[:n]), None)
    if twice is not None:
        raise UsageError(f"detector {twice!r} is given twice: name each one once")


def load_detector(
    detector: str | Path | Card,
    device: str = "cpu",
    *,
    weights: str | Path | Mapping[str, str | Path] | None = None,
) -> Detector:
    """Load a detector by the name of a bundled card or by a card's folder.

    Args:
        detector: such as ``"trace-lite"`` or ``"./my_detector"``, or a card.
        device: where the network goes, such as ``"cpu"`` or ``"cuda:0"``.
        weights: the user's own file or folder, or one by part (``"weights"``, ``"backbone"``).

    Raises:
        UsageError: no such detector or family, or an invalid card.
        RealBenchError: the weights are missing, altered or do not fit the network.
    """
    from realbench.detection.families import build

    card = detector if isinstance(detector, Card) else find_card(detector)
    if weights is not None:
        card = card.with_weights(
            {"weights": weights} if isinstance(weights, str | Path) else weights
        )
    return build(card).to(device)
