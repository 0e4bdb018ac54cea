"""Which pairs are judged, in which order, and which picture of a pair is shown first."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

Pair = tuple[str, str, str]
"""A prompt id and two contestants, of which the first is the smaller as text."""


def all_pairs(prompts: Mapping[str, AbstractSet[str]], *, seed: int = 0) -> Iterator[Pair]:
    """Yield every pair of contestants on every prompt that both have, once.

    The order is random by ``seed`` and the same for the same arguments. Wherever it is cut, what
    went before is balanced: the contestants meet as in a round-robin tournament, every pair has
    met as often as any other or once more (unless it has no further prompt), and pairs that
    follow one another are about different prompts.

    Args:
        prompts: Each contestant's prompt ids.
        seed: Of the order.
    """
    draw = random.Random(f"pairs of {seed}")
    contestants = sorted(prompts)
    draw.shuffle(contestants)
    ids = sorted(set().union(*prompts.values()))
    draw.shuffle(ids)
    meetings = []
    for a, b in _round_robin(contestants):
        shared = [prompt for prompt in ids if prompt in prompts[a] and prompt in prompts[b]]
        meetings.append((min(a, b), max(a, b), shared))
    for sweep in range(max((len(shared) for *_, shared in meetings), default=0)):
        for number, (a, b, shared) in enumerate(meetings):
            if sweep < len(shared):
                yield shared[(number + sweep) % len(shared)], a, b


def count_pairs(prompts: Mapping[str, AbstractSet[str]]) -> int:
    """Return how many pairs :func:`all_pairs` yields for the same prompts."""
    having: dict[str, int] = {}
    for ids in prompts.values():
        for prompt in ids:
            having[prompt] = having.get(prompt, 0) + 1
    return sum(n * (n - 1) // 2 for n in having.values())


def shown_orders(pair: Pair, *, orders: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return the orders, (first, second), in which a pair is shown: one, or both.

    Which comes first is random by ``seed`` and by the pair alone, so that a run that is resumed
    or extended asks the same.
    """
    prompt, a, b = pair
    text = "\0".join(map(str, (seed, prompt, a, b)))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    one = (a, b) if digest[0] % 2 else (b, a)
    return [one] if orders == 1 else [one, one[::-1]]


def _round_robin(contestants: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield every pair once, in rounds in which each contestant meets one other.

    It is the circle method: one place stays, the others move on by one a round.
    """
    circle: list[str | None] = [*contestants]
    if len(circle) % 2:
        circle.append(None)  # whoever meets it rests
    half = len(circle) // 2
    for _ in range(len(circle) - 1):
        for a, b in zip(circle[:half], reversed(circle[half:]), strict=True):
            if a is not None and b is not None:
                yield a, b
        circle.insert(1, circle.pop())
