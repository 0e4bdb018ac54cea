"""CLIP's vision tower with tuned singular residuals, as in Effort (Yan et al., ICML 2025).

The matrices of its self-attention are split by their singular values into a frozen principal part
and a residual of rank 1, which was trained with a layer of two classes. For a score the split
does not matter, so the parts are added up once.
"""

from __future__ import annotations

from realbench.detection.cards import Card
from realbench.detection.checkpoints import read_checkpoint
from realbench.detection.families.clip import fitting
from realbench.detection.families.clip_vision import Head, PooledVision, folded, linear, part
from realbench.detection.families.published import published
from realbench.detection.families.views import ViewsDetector
from realbench.errors import RealBenchError


def build(card: Card) -> ViewsDetector:
    """Build the detector of a ``clip-svd`` card: its weights are ``backbone.*`` and ``head.*``."""
    card.check_weights()
    path, spec = card.weights_path, card.weights
    state = read_checkpoint(path, key=spec.key, strip_prefix=spec.strip_prefix)
    try:
        with fitting(card):
            tower = PooledVision(folded(part(state, "backbone.")))
            head = linear(part(state, "head."))
    except KeyError as error:
        raise RealBenchError(
            f"{path} does not fit family {card.family!r} of its card: it has no tensor {error}"
        ) from error
    return published(card, Head(tower, head), head.out_features)
