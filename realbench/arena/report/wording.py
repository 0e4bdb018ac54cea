"""An arena's findings in words, as its report prints them.

Pure functions on the entries of ``ratings.json``. Nothing is claimed that the data do not give: a
model leads where no other model is separated above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from realbench.arena.records import Ratings, Standing
from realbench.report.wording import count, is_number, listing, number, percent, percent_span

STOPS = {
    "complete": "every pair of the schedule was judged",
    "separated": "every neighbouring pair was separated",
    "max-votes": "the number of votes set with --max-votes was reached",
    "max-cost": "the cost set with --max-cost was reached",
    "interrupted": "it was interrupted",
    "failed": "a judge could not go on",
}
EARLY_STOPS = ("max-votes", "max-cost", "interrupted", "failed")
NAMED = 3  # models that a headline names
NOTHING = {"estimate": None, "low": None, "high": None, "n": 0}


def estimate_of(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return an estimate with all of its keys; what is missing is ``None``."""
    return {**NOTHING, **(value or {})}


def anchor_in_words(anchor: str) -> str:
    """Return whose scale the anchored ratings have."""
    return "people" if anchor == "human" else anchor


def main_standing(ratings: Ratings) -> Standing | None:
    """Return the standing to lead with: the combined one, or the only judge's; None for nothing."""
    standings = (ratings["combined"], *ratings["judges"].values())
    return next((one for one in standings if one and one["n_comparisons"]), None)


def rated_names(standing: Standing | None) -> list[str]:
    """Return the contestants with a rating, best first."""
    rows = standing["ratings"] if standing else []
    return [row["contestant"] for row in rows if is_number(row["bradley_terry"]["estimate"])]


def separated_pairs(standing: Standing) -> set[tuple[str, str]]:
    """Return the pairs that the data separate, as (better, worse)."""
    return {
        (pair["a"], pair["b"]) if difference > 0 else (pair["b"], pair["a"])
        for pair in standing["pairs"]
        if not pair["tied"] and is_number(difference := pair["difference"]["estimate"])
    }


def answer(ratings: Ratings) -> str:
    """Return the arena's finding as one headline."""
    standing = main_standing(ratings)
    names = rated_names(standing)
    if standing is None or len(names) < 2:
        return "No pair has been compared"
    reference = ratings["reference"]
    better = separated_pairs(standing)
    models = [name for name in names if name != reference]
    if len(names) == 2:
        return _pair_answer(names[0], names[1], reference, better)
    lead = _lead(models, better)
    return f"{lead}; {_photographs(models, reference, better)}" if reference in names else lead


def leaders(models: Sequence[str], better: set[tuple[str, str]]) -> list[str]:
    """Return the models that no other model is separated above."""
    return [m for m in models if not any((other, m) in better for other in models)]


def _pair_answer(
    first: str, second: str, reference: str | None, better: set[tuple[str, str]]
) -> str:
    """Say what is known of two contestants, ``first`` rated above ``second``."""
    if (first, second) in better:
        if first == reference:
            return f"The photographs are judged more real than {second}"
        other = "the photographs" if second == reference else second
        return f"{first} is judged more real than {other}"
    if reference in (first, second):
        model = second if first == reference else first
        return f"The comparisons do not separate {model} from the photographs"
    return f"The comparisons do not separate {first} from {second}"


def _lead(models: Sequence[str], better: set[tuple[str, str]]) -> str:
    first = leaders(models, better)
    if len(models) == 2:
        if len(first) == 1:
            (other,) = (model for model in models if model not in first)
            return f"{first[0]} is judged more real than {other}"
        return f"The comparisons do not separate {models[0]} from {models[1]}"
    if len(first) == 1:
        return f"{first[0]} is judged the most real of {len(models)} models"
    if len(first) == len(models):
        return f"The comparisons name no leader among {len(models)} models"
    if len(first) > NAMED:
        return f"{len(first)} of {len(models)} models share the lead"
    return f"{listing(first)} share the lead among {len(models)} models"


def _photographs(models: Sequence[str], reference: str, better: set[tuple[str, str]]) -> str:
    above = [model for model in models if (model, reference) in better]
    level = [model for model in models if model not in above and (reference, model) not in better]
    first = leaders(models, better)
    sole = first if len(first) == 1 and len(models) > 2 else None
    if above:
        verb = "is" if len(above) == 1 else "are"
        who = "it" if above == sole else listing(above, NAMED)
        return f"{who} {verb} judged more real than the photographs"
    if not level:
        return "the photographs stay on top"
    if len(level) == len(models):
        none = "neither" if len(models) == 2 else "none"
        return f"{none} is separated from the photographs"
    if len(level) == 1:
        return f"{'it' if level == sole else level[0]} is not separated from the photographs"
    return f"{len(level)} models are not separated from the photographs"


def support(ratings: Ratings) -> str:
    """Return a sentence on the best model's share of wins against the photographs, or none."""
    standing, reference = main_standing(ratings), ratings["reference"]
    for row in standing["ratings"] if standing and reference else ():
        share = estimate_of(row["win_rate_vs_reference"])
        if row["contestant"] != reference and is_number(share["estimate"]):
            return (
                f"{row['contestant']}, the highest rated model, wins {percent(share['estimate'])} "
                f"(95\N{NO-BREAK SPACE}% interval {percent_span(share['low'], share['high'])}) of "
                f"{count(share['n'], 'comparison')} with the photographs."
            )
    return ""


def expected_win(rating: Any, other: Any) -> float | None:
    """Return the win probability that two ratings stand for on the Elo scale.

    400 points are odds of 10 to 1 (A. E. Elo, *The Rating of Chessplayers*, 1978).
    """
    if not (is_number(rating) and is_number(other)):
        return None
    return float(1 / (1 + 10 ** ((other - rating) / 400)))


def winning_chance(chance: float | None) -> str:
    """Say an expected win probability in per cent, without rounding it to never or always."""
    if chance is None:
        return "–"
    if chance < 0.005:
        return "less than 1\N{NARROW NO-BREAK SPACE}%"
    if chance > 0.995:
        return "more than 99\N{NARROW NO-BREAK SPACE}%"
    return percent(chance)


def rating(value: Any) -> str:
    """Format a rating in whole points, with a true minus sign."""
    return number(value, 0)


def roughly(n: int) -> str:
    """Format a projected count with two significant digits: ``about 140,000``."""
    digits = max(0, len(str(abs(n))) - 2)
    return f"{round(n, -digits):,}" if n < 100 else f"about {round(n, -digits):,}"


def stop_sentence(reason: str | None) -> str:
    """Say why the run ended, or nothing where that is not known."""
    return f"The run ended because {STOPS.get(reason, reason)}." if reason else ""


def shortened(text: str | None, length: int) -> str | None:
    """Return ``text`` on one line and at most ``length`` characters long; None for none."""
    if text is None or not text.strip():
        return None
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"
