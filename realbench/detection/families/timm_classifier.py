"""Any network of timm with a real/fake head."""

from __future__ import annotations

import timm

from realbench.detection.cards import Card
from realbench.detection.families.published import published
from realbench.detection.families.views import ViewsDetector
from realbench.detection.weights import load_weights


def build(card: Card) -> ViewsDetector:
    """Build the detector of a ``timm-classifier`` card.

    The head has ``num_classes`` outputs, of ``model.options``: by default one where the card's
    output is a logit, and two where it is classes.
    """
    options = {"num_classes": 1 if card.output.real is None else 2} | card.model.options
    network = timm.create_model(card.model.architecture, pretrained=False, **options)
    load_weights(network, card)
    return published(card, network, int(options["num_classes"]))
