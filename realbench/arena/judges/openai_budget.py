"""What answers cost, and whether another one can be paid."""

from __future__ import annotations

from collections.abc import Mapping

from realbench.errors import RealBenchError, UsageError

_TOKENS_A_PRICE = 1_000_000
# Answers without a count of tokens after which it is clear that the endpoint gives none.
_MOST_UNCOUNTED = 3


class Budget:
    """Adds up costs and keeps them within a limit, as far as a mean can foresee them.

    Args:
        price_in: Price of a million input tokens, or None.
        price_out: Price of a million output tokens, or None.
        max_cost: The limit, in the same currency, or None.

    Attributes:
        spent: What was spent so far.
        pending: Showings that are under way; each may have an answer in the making.

    Raises:
        UsageError: only one price is given, or a limit without prices.
    """

    def __init__(
        self, price_in: float | None, price_out: float | None, max_cost: float | None
    ) -> None:
        if (price_in is None) != (price_out is None):
            raise UsageError("--price-in and --price-out belong together: give both (0 is allowed)")
        if max_cost is not None and not (price_in or price_out):
            raise UsageError(
                "--max-cost needs prices: give --price-in and --price-out per million tokens"
            )
        self.spent = 0.0
        self._prices = None if price_in is None or price_out is None else (price_in, price_out)
        self._max_cost = max_cost
        self.pending = 0
        self._charged = 0
        self._dearest = 0.0
        self._uncounted = 0

    def charge(self, usage: Mapping[str, float]) -> float | None:
        """Add what an answer cost, and return it; None where no price or no count is known.

        With a limit, an answer whose tokens were not counted is charged like the dearest one.

        Raises:
            RealBenchError: there is a limit, but the endpoint counts no tokens.
        """
        if self._prices is None:
            return None
        self._charged += 1
        if "input_tokens" in usage and "output_tokens" in usage:
            price_in, price_out = self._prices
            cost = usage["input_tokens"] * price_in + usage["output_tokens"] * price_out
            cost /= _TOKENS_A_PRICE
            self._dearest = max(self._dearest, cost)
            self.spent += cost
            return cost
        self._uncounted += 1
        if self._max_cost is not None and not self._dearest and self._uncounted >= _MOST_UNCOUNTED:
            raise RealBenchError(
                "the endpoint does not say how many tokens it used, so that --max-cost cannot be "
                "kept: give --max-votes instead"
            )
        if self._max_cost is not None:
            self.spent += self._dearest
        return None

    def allows_another(self) -> bool:
        """Whether one more showing can be paid, besides those that are under way.

        Answers whose cost is not known yet are taken to cost the mean of the others.
        """
        return self._allows(self.pending + 1)

    def allows_again(self) -> bool:
        """Whether one of the showings that are under way can be asked once more."""
        return self._allows(self.pending)

    def _allows(self, answers: int) -> bool:
        if self._max_cost is None:
            return True
        mean = self.spent / self._charged if self._charged else 0.0
        # Sums of prices such as 0.1 are not exact.
        most = self._max_cost * (1 + 1e-9)
        return self.spent < self._max_cost and self.spent + answers * mean <= most

    def message(self) -> str:
        """Say in one line that the limit is reached."""
        mean = ""
        if self._charged:
            mean = f", and an answer costs about {self.spent / self._charged:.4g}"
        return (
            f"--max-cost {self._max_cost:g} is reached: {self.spent:.4g} is spent{mean}; run the "
            "same command again to go on"
        )
