"""Fingerprints stay what they are while code moves: every score in users' caches hangs on them.

``python tests/detection/test_fingerprints.py`` pins them anew, after a card itself has changed.
"""

from __future__ import annotations

import json
from pathlib import Path

from realbench.detection.cards import NetworkCard
from realbench.detection.registry import find_card, list_detectors
from realbench.quality.cards import find_measure, list_measures

PINNED = Path(__file__).parents[1] / "data" / "fingerprints.json"


def of_card(card: NetworkCard) -> str:
    """Return a card's fingerprint, with zeros for weights whose hash its card does not know."""
    digests = {part: spec.sha256 or "0" * 64 for part, spec in card.parts.items()}
    card.__dict__["digests"] = digests  # the weights themselves need not be here
    return card.fingerprint


def fingerprints() -> dict[str, str]:
    cards = [*map(find_card, list_detectors()), *map(find_measure, list_measures())]
    return {card.name: of_card(card) for card in cards}


def test_no_card_has_another_fingerprint_than_before() -> None:
    assert fingerprints() == json.loads(PINNED.read_text())


if __name__ == "__main__":
    PINNED.write_text(json.dumps(fingerprints(), indent=2) + "\n")
