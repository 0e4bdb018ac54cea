"""Measure cards: the ``measure.toml`` that says what a quality measure is and how it is loaded.

Nothing here imports torch.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from realbench.content import content_path
from realbench.detection.cards import NetworkCard, read_toml_card
from realbench.errors import UsageError
from realbench.text import printable

MEASURE_FILE = "measure.toml"

# Raise it when the code changes what an unchanged card scores.
_VERSION = "quality 1"


class MeasureCard(NetworkCard):
    """One measure of quality or alignment; a higher score is better, on a scale of its own."""

    title: str = Field(description="what a report calls it")
    needs_prompt: bool = Field(description="whether it compares the image with its prompt")
    scale: float = Field(default=1.0, gt=0, description="factor on the network's number")
    floor: float | None = Field(default=None, description="lower scores become this")

    def _code(self) -> dict[str, str]:
        return {"measure": _VERSION}

    def key(self, prompt: str | None) -> str:
        """Return under what an image's score is cached: the fingerprint, and the prompt's hash.

        Args:
            prompt: the image's; ignored where the measure needs none.
        """
        if not self.needs_prompt or prompt is None:
            return self.fingerprint
        text = hashlib.sha256(prompt.encode()).hexdigest()
        return hashlib.sha256(f"{self.fingerprint} {text}".encode()).hexdigest()


def list_measures() -> list[str]:
    """Return the names of the bundled measures, sorted; not all of them have weights here."""
    folder = content_path("quality")
    return sorted(one.name for one in folder.iterdir() if (one / MEASURE_FILE).is_file())


def find_measure(name_or_folder: str | Path) -> MeasureCard:
    """Return the card of a bundled measure's name, or of a folder with a ``measure.toml``.

    Raises:
        UsageError: no such measure, or its card is not valid.
    """
    name, known = str(name_or_folder), list_measures()
    folder = content_path("quality") / name if name in known else Path(name_or_folder)
    if folder.is_dir():
        return read_toml_card(folder / MEASURE_FILE, MeasureCard, "quality measure")
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"give a name or a folder with {MEASURE_FILE}"
    raise UsageError(f"no quality measure {printable(name)!r} (known: {', '.join(known)}): {hint}")


def find_measures(
    measures: Sequence[str | Path], weights: Mapping[str, Mapping[str, str | Path]]
) -> list[MeasureCard]:
    """Return the cards of several measures, with the user's files.

    Args:
        measures: names or folders.
        weights: the user's files, by name and part; other names than the measures' are ignored.

    Raises:
        UsageError: an unknown one, or two of one name.
    """
    cards: list[MeasureCard] = []
    for one in measures:
        card = find_measure(one)
        if card.name in [other.name for other in cards]:
            raise UsageError(f"quality measure {card.name!r} is given twice: name each one once")
        cards.append(card.with_weights(weights[card.name]) if card.name in weights else card)
    return cards
