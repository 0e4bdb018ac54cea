"""CLIP without training: is the picture nearer to texts on photographs, or on generated images?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from realbench.detection.cards import Card
from realbench.detection.families.clip import clip_model
from realbench.detection.families.published import published
from realbench.detection.families.views import ViewsDetector
from realbench.detection.specs import ClassesSpec
from realbench.errors import UsageError


class ZeroShot(nn.Module):
    """Maps normalised pictures (n, 3, S, S) to the logits of the two classes (n, 2), real first.

    A class is the mean of its prompts' embeddings, each of length 1, scaled to length 1 again
    (prompt ensembling of Radford et al., 2021). Its logit is the cosine to the picture's
    embedding times the model's own scale, so that the softmax is CLIP's.
    """

    classes: Tensor
    scale: Tensor

    def __init__(self, model: Any, tokenize: Any, prompts: ClassesSpec) -> None:
        super().__init__()
        self.encoder = model.visual
        embedded = [
            _embedding(model, tokenize, texts) for texts in (prompts.real, prompts.generated)
        ]
        self.register_buffer("classes", torch.stack(embedded))
        self.register_buffer("scale", model.logit_scale.detach().exp())

    def forward(self, x: Tensor) -> Tensor:
        features = functional.normalize(self.encoder(x), dim=-1)
        return self.scale * features @ self.classes.T


@torch.no_grad()
def _embedding(model: Any, tokenize: Any, texts: tuple[str, ...]) -> Tensor:
    each = functional.normalize(model.encode_text(tokenize(list(texts))), dim=-1)
    return functional.normalize(each.mean(dim=0), dim=-1)


def build(card: Card) -> ViewsDetector:
    """Build the detector of a ``clip-zeroshot`` card: its ``weights`` are the CLIP model's."""
    import open_clip

    if card.prompts is None:
        raise UsageError(f"{card.path}: a clip-zeroshot card has [prompts] with real and generated")
    if card.output.kind != "classes" or card.output.real != 0:
        raise UsageError(f'{card.path}: [output] must be kind = "classes", real = 0 (real first)')
    model = clip_model(card, "weights")
    network = ZeroShot(model, open_clip.get_tokenizer(card.model.architecture), card.prompts)
    return published(card, network, 2)
