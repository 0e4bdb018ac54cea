"""The side-by-side examples of an arena's report: clear wins, upsets and split orders.

What a pair of one prompt came to is taken over all judges that compared it. Examples are chosen
by rule, not by eye: the most certain wins, the wins against the largest difference in rating, the
splits with the largest swing; and no contestant or prompt fills a group alone.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from realbench.arena.report.wording import estimate_of, expected_win, shortened
from realbench.arena.votes import Comparison, Vote
from realbench.report.gallery import thumbnails
from realbench.report.wording import is_number, number

EXAMPLES = 6
PER_PROMPT = 2
UPSET_GAP = 100.0  # rating points, at which the lower one is expected to win 36 % of the time
PICTURE_SIZE = 384
PROMPT_LENGTH = 240
REASON_LENGTH = 480

Key = tuple[str, str, str]


class Side(NamedTuple):
    """One contestant of an example: name, rating with interval, and its thumbnail."""

    contestant: str
    rating: dict[str, Any]
    won: bool
    uri: str | None
    width: int
    height: int


class Said(NamedTuple):
    """What a judge said of the pair: its answers in words, each with a reason if it gave one."""

    judge: str
    answers: list[tuple[str, str | None]]


class Example(NamedTuple):
    """One pair on one prompt; ``chance`` is what the ratings gave the left side to win."""

    prompt_id: str
    prompt: str | None
    sides: tuple[Side, Side]
    chance: float | None
    said: list[Said]


class ExampleGroup(NamedTuple):
    """Examples of one kind, the number of all there are, and of all they are taken from."""

    total: int
    of: int
    shown: list[Example]


@dataclass(slots=True)
class _Pair:
    """A pair on a prompt: its comparisons and the votes they come from."""

    prompt_id: str
    left: str
    right: str
    comparisons: list[Comparison] = field(default_factory=list)
    votes: list[Vote] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return self.prompt_id, self.left, self.right

    @property
    def scores(self) -> set[float]:
        """The left side's scores, one for all judges where they agree."""
        return {c.score if c.a == self.left else 1 - c.score for c in self.comparisons}

    def turned(self) -> _Pair:
        """Return the same pair, right side first."""
        return _Pair(self.prompt_id, self.right, self.left, self.comparisons, self.votes)

    def chance_said(self, vote: Vote) -> float:
        """Return the judge's P(left is the more real one), 0, 0.5 or 1 without a probability."""
        p = vote.probability
        if p is None:
            p = {"first": 1.0, "second": 0.0}.get(vote.verdict, 0.5)
        return p if vote.first == self.left else 1 - p

    def confidence(self) -> float:
        """Return the mean over the votes of P(left is the more real one)."""
        return math.fsum(map(self.chance_said, self.votes)) / len(self.votes)

    def swing(self) -> float:
        """Return how far the probability moved, at most, when one judge saw the other order."""
        by_judge: dict[str, list[float]] = defaultdict(list)
        for vote in self.votes:
            by_judge[vote.judge].append(self.chance_said(vote))
        return max(max(values) - min(values) for values in by_judge.values())

    @property
    def has_reason(self) -> bool:
        """Whether any judge gave a reason."""
        return any(vote.reason for vote in self.votes)


@dataclass(frozen=True, slots=True)
class Examples:
    """The three groups of examples of a report."""

    clear: ExampleGroup
    upsets: ExampleGroup
    split: ExampleGroup

    def __bool__(self) -> bool:
        return bool(self.clear.shown or self.upsets.shown or self.split.shown)


def find_examples(
    comparisons: Iterable[Comparison],
    votes: Iterable[Vote],
    ratings: Mapping[str, Mapping[str, Any] | None],
    *,
    pictures: Mapping[tuple[str, str], Path],
    prompts: Mapping[str, str | None],
) -> Examples:
    """Choose the examples and load their pictures.

    Args:
        comparisons: Of all judges.
        votes: That they come from; invalid ones are passed over.
        ratings: Each contestant's estimate with its interval.
        pictures: Where each contestant's image of a prompt lies.
        prompts: The prompts' texts.
    """
    pairs = _group(comparisons, votes)
    points = {name: estimate_of(value)["estimate"] for name, value in ratings.items()}

    def lead(pair: _Pair) -> float:
        a, b = points.get(pair.left), points.get(pair.right)
        return a - b if is_number(a) and is_number(b) else 0.0

    won = [p if p.scores == {1.0} else p.turned() for p in pairs if p.scores in ({0.0}, {1.0})]
    clear = [p for p in won if lead(p) > 0]
    upsets = [p for p in won if lead(p) <= -UPSET_GAP]
    apart = [p for p in pairs if any(c.consistent is False for c in p.comparisons)]
    split = [p if lead(p) >= 0 else p.turned() for p in apart]
    clear.sort(key=lambda p: (-p.confidence(), not p.has_reason, -lead(p), *p.key))
    upsets.sort(key=lambda p: (lead(p), not p.has_reason, *p.key))
    split.sort(key=lambda p: (-p.swing(), not p.has_reason, abs(lead(p)), *p.key))
    asked_twice = [p for p in pairs if any(c.consistent is not None for c in p.comparisons)]
    chosen = [_varied(group, len(points)) for group in (clear, upsets, split)]
    shown = _load([p for group in chosen for p in group], ratings, pictures, prompts)
    groups = (
        ExampleGroup(len(every), len(of), [shown[p.key] for p in few])
        for every, of, few in zip(
            (clear, upsets, split), (pairs, pairs, asked_twice), chosen, strict=True
        )
    )
    return Examples(*groups)


def _group(comparisons: Iterable[Comparison], votes: Iterable[Vote]) -> list[_Pair]:
    pairs: dict[Key, _Pair] = {}
    for one in comparisons:
        key = (one.prompt_id, one.a, one.b)
        pairs.setdefault(key, _Pair(*key)).comparisons.append(one)
    latest = {vote.showing: vote for vote in votes if vote.verdict != "invalid"}
    for vote in latest.values():
        a, b = sorted((vote.first, vote.second))
        pair = pairs.get((vote.prompt_id, a, b))
        if pair is not None and any(c.judge == vote.judge for c in pair.comparisons):
            pair.votes.append(vote)
    return [pair for _, pair in sorted(pairs.items()) if pair.votes]


def _varied(pairs: Sequence[_Pair], n_contestants: int) -> list[_Pair]:
    """Take the first ``EXAMPLES`` pairs, passing over names and prompts that came often."""
    per_name = max(2, math.ceil(2 * EXAMPLES / max(2, n_contestants)))
    names: Counter[str] = Counter()
    prompts: Counter[str] = Counter()
    taken: list[_Pair] = []
    for pair in pairs:
        both = (pair.left, pair.right)
        if any(names[n] >= per_name for n in both) or prompts[pair.prompt_id] >= PER_PROMPT:
            continue
        names.update(both)
        prompts[pair.prompt_id] += 1
        taken.append(pair)
        if len(taken) == EXAMPLES:
            break
    return taken


def _load(
    pairs: Sequence[_Pair],
    ratings: Mapping[str, Mapping[str, Any] | None],
    pictures: Mapping[tuple[str, str], Path],
    prompts: Mapping[str, str | None],
) -> dict[Key, Example]:
    wanted = list(dict.fromkeys((name, p.prompt_id) for p in pairs for name in (p.left, p.right)))
    loaded = thumbnails((pictures.get(key) for key in wanted), PICTURE_SIZE)
    found = dict(zip(wanted, loaded, strict=True))
    examples = {}
    for pair in pairs:
        scores = pair.scores
        both = [estimate_of(ratings.get(name)) for name in (pair.left, pair.right)]
        sides = tuple(
            Side(name, rating, scores == {score}, *found[name, pair.prompt_id])
            for name, rating, score in zip((pair.left, pair.right), both, (1.0, 0.0), strict=True)
        )
        examples[pair.key] = Example(
            prompt_id=pair.prompt_id,
            prompt=shortened(prompts.get(pair.prompt_id), PROMPT_LENGTH),
            sides=(sides[0], sides[1]),
            chance=expected_win(both[0]["estimate"], both[1]["estimate"]),
            said=_said(pair),
        )
    return examples


def _said(pair: _Pair) -> list[Said]:
    by_judge: dict[str, list[Vote]] = defaultdict(list)
    for vote in sorted(pair.votes, key=lambda v: (v.judge, v.first != pair.left)):
        by_judge[vote.judge].append(vote)
    return [Said(judge, list(_answers(votes, pair.left))) for judge, votes in by_judge.items()]


def _answers(votes: Sequence[Vote], left: str) -> Iterable[tuple[str, str | None]]:
    """One answer a showing, or one for both where the second adds nothing to the first."""
    chosen = [
        {"first": vote.first, "second": vote.second}.get(vote.verdict, "tie") for vote in votes
    ]
    if len(votes) == 2 and chosen[0] == chosen[1] and _says_the_same(*votes):
        words = f"{chosen[0]} in both orders{_probabilities(votes, left)}"
        yield words, shortened(votes[0].reason, REASON_LENGTH)
        return
    for vote, choice in zip(votes, chosen, strict=True):
        place = f"shown {vote.verdict}"
        if vote.verdict == "tie":
            place = f"with {vote.first} shown first"
        words = f"{choice}, {place}{_probabilities([vote], left)}"
        yield words, shortened(vote.reason, REASON_LENGTH)


def _says_the_same(one: Vote, other: Vote) -> bool:
    """Return whether the second of two orders, with the same choice, tells nothing further.

    A judge that scores each picture alone, as detectors do, gives exactly opposite probabilities,
    and its reasons are the same figures in another order.
    """
    p, q = one.probability, other.probability
    mirrored = p is not None and q is not None and math.isclose(p, 1 - q, abs_tol=1e-6)
    return mirrored or not (one.reason or other.reason)


def _probabilities(votes: Sequence[Vote], left: str) -> str:
    known = [
        number(vote.probability if vote.first == left else 1 - vote.probability)
        for vote in votes
        if vote.probability is not None
    ]
    return f" (P(left) = {' and '.join(known)})" if known else ""
