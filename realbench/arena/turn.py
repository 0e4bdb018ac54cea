"""A judge's turn: it is asked what is open, and every answer is written at once."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import InitVar, asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from realbench.arena.contestants import Lineup
from realbench.arena.judges.judge import BudgetSpentError, Judge, Judgment, Showing
from realbench.arena.vote_log import VoteLog
from realbench.arena.votes import Vote, compare

if TYPE_CHECKING:
    from realbench.arena.active import ActiveSchedule

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


def with_reference(lineup: Lineup) -> Iterator[dict[str, set[str]]]:
    """Yield each model's prompt ids together with the photographs', as :func:`all_pairs` takes."""
    ids = lineup.prompt_ids()
    for name in lineup.contestants:
        if lineup.reference is not None and name != lineup.reference:
            yield {name: ids[name], lineup.reference: ids[lineup.reference]}


def count_scheduled(lineup: Lineup, schedule: str) -> int:
    """Return how many pairs a schedule can come to."""
    groups = with_reference(lineup) if schedule == "reference" else [lineup.prompt_ids()]
    return sum(map(count_pairs, groups))


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


Schedule = Literal["all", "active", "reference"]
SCHEDULES: tuple[Schedule, ...] = ("all", "active", "reference")

# Pairs that the active schedule chooses at once, or as many as there are contestants.
_LEAST_CHOSEN = 8


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: ``"reading"`` pictures, ``"judging"`` or ``"rating"``.
        done: Pictures read, or answers that this judge gave in this run.
        total: Of them; None where the schedule decides as it goes.
        judge: Who judges.
        invalid: Answers of this judge in this run that are no vote.
        cost: What they cost, as far as the judge says.
    """

    stage: Literal["reading", "judging", "rating"]
    done: int = 0
    total: int | None = None
    judge: str = ""
    invalid: int = 0
    cost: float = 0.0


@dataclass
class Turn:
    """One judge's turn: the showings that it has not judged yet, and what it says of them.

    Attributes:
        judge: Who is asked.
        lineup: The contestants and their pictures.
        log: Where votes go.
        votes: Of this judge with its settings, on these pictures, from earlier runs.
        max_votes: Answers that it is asked for, at most.
        seed: Of the order of pairs, and of which picture is shown first.
        tell: Is told of every answer.
        n_answers: Answers that were written in this turn and not taken back.
    """

    judge: Judge
    lineup: Lineup
    log: VoteLog
    votes: InitVar[Iterable[Vote]]
    max_votes: int | None
    seed: int
    tell: Callable[[Progress], None]
    n_answers: int = 0

    def __post_init__(self, votes: Iterable[Vote]) -> None:
        self._ids = self.lineup.prompt_ids()
        self._fingerprint = self.judge.fingerprint
        self._n_shown = self._n_invalid = 0
        self._cost = 0.0
        self._total: int | None = None
        self._cut_short = self._exhausted = False
        # A vote that costs nothing to repeat need not be safe from a power cut one by one.
        self._sync = not getattr(self.judge, "free", False)
        self._done = {vote.showing[1:]: vote for vote in votes if vote.verdict != "invalid"}

    def take(self, schedule: str) -> str:
        """Ask until the schedule or a limit ends it; return which did.

        Raises:
            RealBenchError: the judge cannot work, or a vote cannot be written.
        """
        if schedule == "active":
            return self._take_active()
        pairs: Iterable[Pair] = all_pairs(self._ids, seed=self.seed)
        if schedule == "reference":
            pairs = (pair for pair in pairs if self.lineup.reference in pair[1:])
        self._total = count_scheduled(self.lineup, schedule) * self.judge.orders - len(self._done)
        if self.max_votes is not None:
            self._total = min(self._total, self.max_votes)
        self._tell()
        return self._ask(pairs)

    def _take_active(self) -> str:
        from realbench.arena.active import ActiveSchedule

        shared = {
            (a, b): sorted(self._ids[a] & self._ids[b])
            for a, b in combinations(sorted(self._ids), 2)
            if not self._ids[a].isdisjoint(self._ids[b])
        }
        met = sorted({name for pair in shared for name in pair})
        chooser = ActiveSchedule(met, shared, seed=self.seed)
        self._total = self.max_votes
        self._tell()
        reason = self._ask(self._informative_pairs(chooser, max(_LEAST_CHOSEN, len(met))))
        return (chooser.stop_reason or reason) if reason == "complete" else reason

    def _informative_pairs(self, chooser: ActiveSchedule, n: int) -> Iterator[Pair]:
        orders = {self.judge.name: self.judge.orders}
        while batch := chooser.next_batch(compare(list(self._done.values()), orders), n):
            yield from batch

    def _ask(self, pairs: Iterable[Pair]) -> str:
        """Have pairs judged; every answer is on disk before the judge is asked to go on."""
        self._exhausted = False
        showings = _Counted(self._open(pairs), len(self._done), self._total)
        answers = self.judge.judge(showings)
        try:
            for showing, judgment in answers:
                self._keep(showing, judgment)
        except BudgetSpentError:
            return "max-cost"
        finally:
            close = getattr(answers, "close", None)
            if close is not None:
                close()  # stops the judge's workers, also on Ctrl-C
        if self.n_answers < self._n_shown:  # a person who finished before the pairs that lay ready
            return "interrupted"
        if self._cut_short:
            return "max-votes"
        return "complete" if self._exhausted else "interrupted"

    def _open(self, pairs: Iterable[Pair]) -> Iterator[Showing]:
        orders = self.judge.orders
        for pair in pairs:
            shown = shown_orders(pair, orders=orders, seed=self.seed)
            if orders == 1 and (pair[0], *shown[0][::-1]) in self._done:
                continue
            for first, second in shown:
                if (pair[0], first, second) in self._done:
                    continue
                if self.max_votes is not None and self._n_shown >= self.max_votes:
                    self._cut_short = True
                    return
                self._n_shown += 1
                yield self.lineup.showing(pair[0], first, second)
        self._exhausted = True

    def _keep(self, showing: Showing, judgment: Judgment | None) -> None:
        key = showing.prompt_id, showing.first.contestant, showing.second.contestant
        if judgment is None:
            self.log.retract(self._done.pop(key))
            self.n_answers -= 1
        else:
            vote = self._vote(showing, judgment)
            self.log.append(vote, sync=self._sync)
            if judgment.verdict != "invalid":
                self._done[key] = vote
            self.n_answers += 1
            self._n_invalid += judgment.verdict == "invalid"
            self._cost += judgment.usage.get("cost", 0.0)
        self._tell()

    def _vote(self, showing: Showing, judgment: Judgment) -> Vote:
        told = asdict(judgment)
        for key in ("reason", "raw"):  # may have half characters, which UTF-8 cannot hold
            told[key] = told[key] and told[key].encode("utf-8", "replace").decode()
        return Vote(
            id=uuid.uuid4().hex,
            judge=self.judge.name,
            judge_fingerprint=self._fingerprint,
            prompt_id=showing.prompt_id,
            first=showing.first.contestant,
            second=showing.second.contestant,
            first_sha256=showing.first.sha256,
            second_sha256=showing.second.sha256,
            time=datetime.now(UTC),
            **told,
        )

    def _tell(self) -> None:
        total, name = self._total, self.judge.name
        self.tell(Progress("judging", self.n_answers, total, name, self._n_invalid, self._cost))


@dataclass
class _Counted:
    """Showings, of how many there will be (None where that is not known)."""

    showings: Iterator[Showing]
    n_done: int
    left: int | None

    def __length_hint__(self) -> int:
        return NotImplemented if self.left is None else max(0, self.left)

    def __iter__(self) -> Iterator[Showing]:
        return self

    def __next__(self) -> Showing:
        showing = next(self.showings)
        self.left = None if self.left is None else self.left - 1
        return showing
