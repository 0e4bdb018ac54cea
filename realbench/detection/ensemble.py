"""Combines detectors: each level weighs the same, and so does each detector inside a level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from realbench.detection.cards import Card
    from realbench.detection.specs import Term


def weights(levels: Mapping[str, str]) -> dict[str, float]:
    """Return each detector's weight; they sum to 1.

    Args:
        levels: detector name to ``"feature"`` or ``"semantic"``. With one level present, its
            detectors share the whole weight, so any subset works.
    """
    sizes = Counter(levels.values())
    return {name: 1 / (len(sizes) * sizes[level]) for name, level in levels.items()}


def fused_terms(cards: Iterable[Card]) -> dict[str, Term]:
    """Return each detector's part of a fused ensemble; nothing where they are not of one."""
    return {card.name: card.fused for card in cards if card.fused is not None}


def combine(
    logits: Mapping[str, np.ndarray],
    levels: Mapping[str, str],
    fused: Mapping[str, Term] | None = None,
) -> np.ndarray:
    """Return the ensemble's P(real), the sigmoid of :func:`combined_logits`: float32 (n,)."""
    return probability(combined_logits(logits, levels, fused))


def combine_cards(cards: Sequence[Card], logits: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the P(real) of an ensemble of these cards' detectors, as :func:`combine`."""
    return combine(logits, {card.name: card.level for card in cards}, fused_terms(cards))


def combined_logits(
    logits: Mapping[str, np.ndarray],
    levels: Mapping[str, str],
    fused: Mapping[str, Term] | None = None,
) -> np.ndarray:
    """Return the ensemble's logit of P(real): the weighted mean of calibrated logits.

    Args:
        logits: detector name to calibrated logits, float of shape (n,).
        levels: detector name to level, for the same names.
        fused: the parts of a fused ensemble, for the same names; its logit is their sum.

    Returns:
        float64 array of shape (n,).
    """
    if fused:
        parts = [
            fused[n].weight * np.asarray(v, np.float64) + fused[n].offset for n, v in logits.items()
        ]
        return np.asarray(np.sum(parts, axis=0))
    share = weights({name: levels[name] for name in logits})
    mean = sum(share[name] * np.asarray(values, np.float64) for name, values in logits.items())
    return np.asarray(mean)


def probability(logits: np.ndarray) -> np.ndarray:
    """Return the sigmoid of ``logits`` as float32, without overflow."""
    return (0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))).astype(np.float32)


def disagreement(probabilities: np.ndarray) -> np.ndarray:
    """Return the spread of the detectors' P(real) per image: largest minus smallest.

    Args:
        probabilities: array of shape (n, detectors), in [0, 1].

    Returns:
        array of shape (n,), in [0, 1]; 0 with a single detector.
    """
    return np.ptp(probabilities, axis=1)
