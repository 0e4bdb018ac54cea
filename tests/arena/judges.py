"""Judges for tests that need no network of any kind: real code behind the same protocol."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

from realbench.arena.judges.judge import BudgetSpentError, Judgment, Showing, Verdict
from realbench.errors import RealBenchError


class ByName:
    """Prefers the contestant whose name comes first, as a judge with a firm opinion would.

    Attributes:
        asked: What it was asked, in its order.
    """

    is_vlm = True

    def __init__(
        self,
        name: str = "by-name",
        *,
        orders: int = 2,
        setting: str = "",
        seconds: float = 0.0,
        invalid: set[tuple[str, str, str]] | None = None,
        breaks_after: int | None = None,
        budget: int | None = None,
        interrupts_after: int | None = None,
        undoes: bool = False,
    ) -> None:
        self.name = name
        self.orders = orders
        self.setting = setting
        self.seconds = seconds
        self.invalid = invalid or set()
        self.breaks_after = breaks_after
        self.budget = budget
        self.interrupts_after = interrupts_after
        self.undoes = undoes
        self.asked: list[Showing] = []
        self.closed = False

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.name} {self.setting}".encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {"setting": self.setting}

    def judge(self, showings: Iterable[Showing]) -> Iterator[tuple[Showing, Judgment | None]]:
        try:
            for showing in showings:
                n = len(self.asked)
                if n == self.breaks_after:
                    raise RealBenchError(f"{self.name} fell over: pick it up")
                if n == self.budget:
                    raise BudgetSpentError
                if n == self.interrupts_after:
                    raise KeyboardInterrupt
                self.asked.append(showing)
                time.sleep(self.seconds)
                yield showing, self._answer(showing)
                if self.undoes and n == 0:
                    yield showing, None
                    yield showing, self._answer(showing)
        finally:
            self.closed = True

    def _answer(self, showing: Showing) -> Judgment:
        first, second = showing.first.contestant, showing.second.contestant
        if (showing.prompt_id, first, second) in self.invalid:
            return Judgment("invalid", raw="I'd rather not \ud83d say")
        verdict: Verdict = "first" if first < second else "second"
        return Judgment(verdict, reason="its name", usage={"cost": 0.25})
