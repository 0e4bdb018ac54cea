"""Numbers and findings in words, as the report prints them.

Pure functions on the entries of ``summary.json``. A value that is missing (``None`` or NaN, for
instance the interval of a folder with one prompt) becomes a dash or a phrase, never ``nan``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

THIN = 10  # fewer prompts than this call for a word of caution
MISSING = "–"
MINUS = "\N{MINUS SIGN}"


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether ``value`` is a finite number that can be printed and drawn."""
    if value is None or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except TypeError:
        return False


def number(value: Any, digits: int = 2) -> str:
    """Format ``value`` with a true minus sign; values that round to zero lose their sign."""
    if not is_number(value):
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", MINUS)


def signed(value: Any, digits: int = 2) -> str:
    """Format a difference with its sign."""
    text = number(value, digits)
    if text == MISSING or text.startswith(MINUS) or float(text) == 0:
        return text
    return f"+{text}"


def span(low: Any, high: Any, digits: int = 2) -> str:
    """Format an interval as ``0.41–0.47``; with a negative bound as ``−0.02 to 0.07``."""
    if not (is_number(low) and is_number(high)):
        return "no interval"
    first, last = number(low, digits), number(high, digits)
    separator = " to " if MINUS in first + last else "–"
    return f"{first}{separator}{last}"


def figure(value: Mapping[str, Any] | None, digits: int = 2, *, inline: bool = False) -> str:
    """Format an estimate with its interval, a dash for nothing.

    Args:
        inline: as ``0.44 (0.41–0.47)``; otherwise the interval has a line of its own.
    """
    if not value or not is_number(value["estimate"]):
        return MISSING
    form = "{} ({})" if inline else "{}\n{}"
    return form.format(number(value["estimate"], digits), span(value["low"], value["high"], digits))


def percent(value: Any, digits: int = 0) -> str:
    """Format a share in [0, 1] as a percentage with a narrow space."""
    if not is_number(value):
        return MISSING
    return f"{number(100 * value, digits)}\N{NARROW NO-BREAK SPACE}%"


def percent_span(low: Any, high: Any) -> str:
    """Format the interval of a share: ``12–19 %``."""
    if not (is_number(low) and is_number(high)):
        return "no interval"
    return f"{number(100 * low, 0)}–{percent(high)}"


_EDGE_NOTE = (
    "A rate of 0 or 1 was the same on every prompt; its interval tells which rates so few prompts "
    "do not rule out (Wilson's, which counts them as so many observations)."
)


def edge_note(rates: Iterable[Mapping[str, Any] | None]) -> str:
    """Explain the intervals of shares that are 0 or 1; empty where there is none."""
    has_edge = any(
        one and one.get("estimate") in (0, 1) and is_number(one.get("low")) for one in rates
    )
    return _EDGE_NOTE if has_edge else ""


def suite_text(manifest: Mapping[str, Any]) -> str:
    """Say which prompts a run had, such as ``realbench-mini 1 (48 prompts)``; empty for none."""
    suite = manifest.get("suite")
    if not isinstance(suite, Mapping):
        return ""
    version = f" {suite['version']}" if suite.get("version") else ""
    n_prompts = suite.get("n_prompts")
    counted = f" ({count(int(n_prompts), 'prompt')})" if is_number(n_prompts) else ""
    return f"{suite.get('name') or MISSING}{version}{counted}"


def p_value(value: Any) -> str:
    """Format a p-value as ``p = 0.021`` or ``p < 0.001``."""
    if not is_number(value):
        return f"p {MISSING}"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """Format a count with its noun: ``1 image``, ``1,200 images``."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def rank_range(entry: Mapping[str, Any]) -> str:
    """Return the ranks that the data allow a folder, ``2`` or ``1–3``."""
    ranks = [int(entry[key]) for key in ("rank_low", "rank_high") if is_number(entry.get(key))]
    if not ranks:
        return str(entry["rank"]) if is_number(entry.get("rank")) else MISSING
    best, worst = min(ranks), max(ranks)
    return str(best) if best == worst else f"{best}–{worst}"


def best_rank(entry: Mapping[str, Any]) -> float:
    """Return the best rank the data allow (infinity for a folder without a rank)."""
    ranks: list[Any] = [entry.get(key) for key in ("rank_low", "rank_high", "rank")]
    return min((float(rank) for rank in ranks if is_number(rank)), default=math.inf)


def listing(names: Sequence[str], limit: int = 4) -> str:
    """Join names as prose: ``a, b and c``, or ``a, b, c and 7 more`` past ``limit``."""
    if len(names) > limit:
        names = [*names[: limit - 1], f"{len(names) - limit + 1} more"]
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def combination(detectors: Sequence[Mapping[str, Any]]) -> str:
    """Say how detectors, as ``run.json`` has them, make realism."""
    terms = [(one["name"], one["fused"]) for one in detectors if one.get("fused")]
    if not terms:
        return (
            "combines them on the logit scale, with half the weight for each level and equal "
            "weights within a level"
        )
    parts = [f"{number(term['weight'])} times that of {name}" for name, term in terms]
    bias = sum(term["offset"] for _, term in terms)
    return f"has the logit {' plus '.join(parts)}{f' plus {number(bias)}' if bias else ''}"


def answer(summary: Mapping[str, Any]) -> str:
    """Return the run's finding as one headline.

    It claims a first place only where the data give it: folders whose rank range reaches 1 share
    the lead.
    """
    scored = [entry for entry in summary["folders"] if is_number(_mean(entry))]
    if not scored:
        return "No image could be scored"
    if len(scored) == 1:
        return _single_answer(scored[0])
    ordered = sorted(scored, key=lambda entry: (best_rank(entry), -_mean(entry)))
    leaders = [str(entry["folder"]) for entry in ordered if best_rank(entry) <= 1]
    if len(leaders) == len(ordered):
        if len(ordered) == 2:
            return f"The data do not separate {leaders[0]} from {leaders[1]}"
        return f"The data do not tell which of these {len(ordered)} folders is most photoreal"
    if len(leaders) <= 1:
        adjective = "more" if len(ordered) == 2 else "most"
        leader, rest = ordered[0]["folder"], ordered[1:]
        if adjective == "more":
            return f"{leader} is more photoreal than {rest[0]['folder']}"
        return f"{leader} is the most photoreal of {len(ordered)} folders"
    return f"{listing(leaders, 3)} share the lead among {len(ordered)} folders"


def _single_answer(entry: Mapping[str, Any]) -> str:
    auc = entry.get("auc") or {}
    estimate = auc.get("estimate") if isinstance(auc, Mapping) else None
    folder = entry["folder"]
    if is_number(estimate):
        low, high = auc.get("low"), auc.get("high")
        if is_number(low) and is_number(high) and low <= 0.5 <= high:
            return f"The data do not separate {folder} from the photographs"
        return f"The photographs outscore {folder} in {percent(estimate)} of pairs"
    interval = entry["realism"]
    return f"{folder} has a mean realism of {number(interval['estimate'])}"


def _mean(entry: Mapping[str, Any]) -> float:
    mean = entry["realism"].get("estimate")
    return float(mean) if is_number(mean) else math.nan


def ties(pairs: Sequence[Mapping[str, Any]], adjusted: str, limit: int = 8) -> list[str]:
    """Say in a line which pairs the data do not separate; nothing where there are no pairs.

    Args:
        adjusted: how p-values were, such as ``"Holm-adjusted"``.
    """
    tied = [pair for pair in pairs if pair["tied"]]
    if not tied:
        return [f"All differences are significant ({adjusted} p < 0.05)."] if pairs else []
    shown = "; ".join(f"{pair['a']} and {pair['b']}" for pair in tied[:limit])
    more = f"; and {len(tied) - limit:,} more pairs" if len(tied) > limit else ""
    return [
        f"Statistically tied ({len(tied):,} of {len(pairs):,} pairs, {adjusted} p ≥ 0.05): "
        f"{shown}{more}."
    ]


def pair_sentence(pair: Mapping[str, Any]) -> str:
    """Say what the data support about two folders, with the difference and its interval."""
    detail = (
        f"difference {signed(pair['difference'])}, 95 % interval "
        f"{span(pair['low'], pair['high'])}, adjusted {p_value(pair['p_adjusted'])}"
    )
    if pair["tied"]:
        return f"{pair['a']} and {pair['b']} are statistically tied ({detail})"
    first, second = pair["a"], pair["b"]
    if is_number(pair["difference"]) and pair["difference"] < 0:
        first, second = second, first
    return f"{first} is more photoreal than {second} ({detail})"
