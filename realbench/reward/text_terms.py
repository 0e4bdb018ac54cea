"""Terms of the reward that read the rewritten prompt alone: its length, its form, its words.

Each is a function of texts to a number in [0, 1], higher is better. They keep the model from
what the terms on images do not forbid: endless prompts, comments, lists. On their own they say
nothing about images.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_PREFIX = 5
_LITTLE = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "have", "her"),
        *("his", "in", "into", "is", "it", "its", "near", "of", "on", "or", "over", "that", "the"),
        *("their", "this", "to", "under", "very", "was", "were", "while", "with"),
    )
)
_LABEL = re.compile(
    r"\W*(?:(?:new |rewritten |photo )?prompt|description|answer|output|here (?:is|are)|here's|"
    r"sure|certainly|of course|okay)\b\W*",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"\*\*|__|```|^\s*(?:#{1,6}\s|[-*•]\s|\d+[.)]\s)|</?\w+>|<\|", re.MULTILINE)
_RUN = 4
_RUN_REPEATS = 3

FORM_CHECKS = ("ended", "one paragraph", "no label", "no markup", "no repeats")
"""What :func:`form_faults` looks at, in its order."""


def words_of(text: str) -> list[str]:
    """Return a text's words in lower case; a hyphen or an apostrophe does not end one."""
    return _WORD.findall(text.casefold())


def length_term(text: str, *, minimum: int, maximum: int, margin: int) -> float:
    """Return 1 from ``minimum`` to ``maximum`` words, falling evenly to 0 over ``margin`` beyond.

    An empty text gives 0, whatever the limits are.

    Args:
        text: The rewritten prompt.
        minimum, maximum: Words, both still within.
        margin: Words beyond either limit at which the term is 0; at least 1.
    """
    count = len(words_of(text))
    beyond = max(minimum - count, count - maximum, 0)
    return max(0.0, 1 - beyond / margin) if count else 0.0


def form_faults(answer: str, *, ended: bool = True) -> list[str]:
    """Return which of :data:`FORM_CHECKS` an answer fails, in that order.

    Args:
        answer: As the model gave it, before it is cleaned.
        ended: Whether the model ended it; not so where the limit of tokens cut it off.
    """
    text = answer.strip()
    held = {
        "ended": ended,
        "one paragraph": "\n" not in text,
        "no label": _LABEL.match(text) is None,
        "no markup": _MARKUP.search(text) is None,
        "no repeats": _most_repeated(words_of(text)) < _RUN_REPEATS,
    }
    return [name for name in FORM_CHECKS if not held[name]]


def form_term(answer: str, *, ended: bool = True) -> float:
    """Return the share of :data:`FORM_CHECKS` that an answer passes; 0 where it is empty.

    They are: it was ended by the model; it is one paragraph; it does not begin with a label or a
    remark ("Prompt:", "Sure, here is"); it has no Markdown, lists or tags; no four words in a
    row come three times.
    """
    if not words_of(answer):
        return 0.0
    return 1 - len(form_faults(answer, ended=ended)) / len(FORM_CHECKS)


def kept_term(text: str, original: str) -> float:
    """Return the share of the original's content words that the rewritten prompt still has.

    A word counts as kept where the text has one with the same first five letters (``bicycle``
    for ``bicycles``). Articles, prepositions and the like are not content. An original without
    content words gives 1 for any text but an empty one. It is a cheap stand-in for the alignment
    of images with the original prompt, or its companion: it does not know synonyms.
    """
    found = {word[:_PREFIX] for word in words_of(text)}
    wanted = [word for word in dict.fromkeys(words_of(original)) if word not in _LITTLE]
    if not wanted:
        return float(bool(found))
    return sum(word[:_PREFIX] in found for word in wanted) / len(wanted)


def vocabulary_term(text: str, vocabulary: Collection[str], *, enough: int) -> float:
    """Return how many different words of a list a text has, as a share of ``enough``, at most 1.

    It measures words, not photographs: a model that learns it alone has learned to name things.
    It is there so that a training can be seen to work without an image model.

    Args:
        text: The rewritten prompt.
        vocabulary: Words in lower case.
        enough: So many give 1; at least 1.
    """
    return min(len(set(words_of(text)) & set(vocabulary)), enough) / enough


def _most_repeated(words: list[str]) -> int:
    runs = Counter(zip(*(words[n:] for n in range(_RUN)), strict=False))
    return max(runs.values(), default=0)
