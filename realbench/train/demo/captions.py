"""What the small model reads: the words of a caption, as vectors that were trained with it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

MAX_WORDS = 15
"""Words of a caption that are read; the rest says little more about a thumbnail."""

_PASSED_OVER = (
    "a an the of with and in on at by to from into onto over under up down out off as is are be "
    "was its it his her their she he they them this that these those which who while for or but "
    "has have through against among between behind before beside near next some one s t photo "
    "image picture photograph"
)
_FUNCTION_WORDS = frozenset(_PASSED_OVER.split())


def words(caption: str) -> list[str]:
    """Return the words of a caption that say what is to be seen, in lower case and in order."""
    found = re.findall(r"[a-z]+", caption.lower())
    return [word for word in found if word not in _FUNCTION_WORDS]


class CaptionEncoder(ModelMixin, ConfigMixin):
    """Turns captions into a sequence of vectors: a mean of the words, then each word.

    The first vector is there for every caption, so that an empty one (the unconditional half of
    classifier-free guidance) has something to attend to. Words outside of the vocabulary are
    passed over; :meth:`known_words` says which are known.
    """

    @register_to_config
    def __init__(self, vocabulary: list[str], dim: int = 128, max_words: int = MAX_WORDS) -> None:
        super().__init__()
        self._index = {word: number for number, word in enumerate(vocabulary)}
        self.embedding = nn.Embedding(len(vocabulary), dim)
        self.start = nn.Parameter(torch.randn(dim))
        self.max_words = max_words

    def known_words(self, caption: str) -> list[str]:
        """Return the words of a caption that the encoder reads."""
        known = [word for word in words(caption) if word in self._index]
        return known[: self.max_words]

    def forward(self, captions: Sequence[str | Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Encode captions, each a sentence or a list of known words.

        Returns:
            Vectors (n, 1 + max_words, dim) and their mask (n, 1 + max_words), 1 where a word is.
        """
        device = self.start.device
        numbers = torch.zeros(len(captions), self.max_words, dtype=torch.long)
        mask = torch.zeros(len(captions), 1 + self.max_words)
        mask[:, 0] = 1
        for row, caption in enumerate(captions):
            known = self.known_words(caption) if isinstance(caption, str) else caption
            numbers[row, : len(known)] = torch.tensor([self._index[word] for word in known])
            mask[row, 1 : 1 + len(known)] = 1
        mask = mask.to(device)
        present = mask[:, 1:, None].to(self.start.dtype)
        each = self.embedding(numbers.to(device)) * present
        mean = each.sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1)
        return torch.cat([self.start + mean, each], dim=1), mask
