"""What the sections of an arena's report show, prepared from ``ratings.json`` for the template."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from realbench.arena.report.wording import estimate_of, rating, shortened
from realbench.arena.votes import Vote
from realbench.report import plots, wording
from realbench.report.plots import Axis
from realbench.report.wording import count, is_number, percent

NUMBERS_LIMIT = 14  # contestants; more make a heat map without numbers
MOST_STEPS = 5
LEVELS = 11
DEFAULT_AXIS = Axis(800.0, 1200.0, (800.0, 900.0, 1000.0, 1100.0, 1200.0))


def round_axis(
    values: Iterable[Any],
    *,
    landmark: float | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Axis:
    """Return an axis that shows ``values`` with some air, and ``landmark``, in round steps.

    It is for rating points and per cent; ``bounds`` are what it never leaves.
    """
    finite = [float(value) for value in values if is_number(value)]
    if landmark is not None:
        finite.append(landmark)
    if not finite:
        return DEFAULT_AXIS
    air = max(0.04 * (max(finite) - min(finite)), 1.0)
    low, high = max(bounds[0], min(finite) - air), min(bounds[1], max(finite) + air)
    steps = (base * 10**power for power in range(13) for base in (1, 2, 5))
    step, first, last = next(
        (step, first, last)
        for step in steps
        if (last := math.ceil(high / step)) - (first := math.floor(low / step)) <= MOST_STEPS
    )
    ticks = tuple(float(index * step) for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def win_matrix(matrix: Mapping[str, Any], *, reference: str | None) -> Markup:
    """Draw the share of comparisons that each row won against each column, as a table.

    Up to ``NUMBERS_LIMIT`` contestants the cells hold per cent; with more they are squares of
    colour. Every cell says its pair, share and number of comparisons when pointed at.

    Args:
        matrix: ``contestants`` (n names), ``win_rate`` and ``n`` (n rows of n; a share in
            [0, 1] or ``None``, and a count).
        reference: the photographs' name, which is marked.
    """
    names = [str(name) for name in matrix["contestants"]]
    dense = len(names) > NUMBERS_LIMIT
    heads = Markup("").join(_head(name, "col", reference) for name in names)
    rows = Markup("").join(
        Markup("<tr>{}{}</tr>\n").format(
            _head(name, "row", reference),
            Markup("").join(
                _cell(name, other, share, n, dense)
                for other, share, n in zip(names, shares, counts, strict=True)
            ),
        )
        for name, shares, counts in zip(names, matrix["win_rate"], matrix["n"], strict=True)
    )
    table = Markup('<table class="matrix heat{}"><thead>{}</thead><tbody>\n{}</tbody></table>')
    top = Markup("<tr><td></td>{}</tr>").format(heads)
    return table.format(" dense" if dense else "", top, rows)


def _head(name: str, scope: str, reference: str | None) -> Markup:
    inner = Markup('<bdi class="name">{}</bdi>').format(name)
    class_ = Markup(' class="is-photo"') if name == reference else ""
    return Markup('<th scope="{}"{} title="{}"><span>{}</span></th>').format(
        scope, class_, name, inner
    )


def _cell(name: str, other: str, share: Any, n: int, dense: bool) -> Markup:
    if name == other:
        return Markup('<td class="is-self"></td>')
    if not is_number(share):
        return Markup('<td class="is-none" title="{} against {}: no comparison"></td>').format(
            name, other
        )
    title = f"{name} against {other}: wins {percent(share)} of {count(n, 'comparison')}"
    text = "" if dense else f"{100 * share:.0f}"
    return Markup('<td class="w{}" title="{}">{}</td>').format(level(share), title, text)


def level(share: float) -> int:
    """Return which of the ``LEVELS`` colours a share in [0, 1] gets: 0 to 10, 5 is even."""
    return round(min(1.0, max(0.0, share)) * (LEVELS - 1))


def counts_range(counts: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """Return the smallest and the largest number of comparisons of the pairs that have any."""
    some = [n for row in counts for n in row if n]
    return (min(some), max(some)) if some else None


COMPACT = 16  # contestants; more make the ladder's rows lower
BEYOND = 0.15  # of the span of all ratings, how far a long ladder's axis goes beyond them
VALUES_LIMIT = 3  # judges whose ratings fit beside the plot of them all
IDS_LIMIT = 40
INVALID_LIMIT = 10
RAW_LENGTH = 240
SYSTEMS = (("bradley_terry", "Bradley–Terry"), ("elo", "Elo"), ("trueskill", "TrueSkill"))


def ladder(standing: Mapping[str, Any], reference: str | None) -> dict[str, Any]:
    """Prepare the rows of the ladder: the photographs first, then the models, best first."""
    rows = sorted(standing["ratings"], key=lambda row: row["contestant"] != reference)
    ratings = {row["contestant"]: estimate_of(row["bradley_terry"]) for row in rows}
    top = ratings.get(reference, {}).get("estimate") if reference else None
    compact = len(rows) > COMPACT
    axis = _ladder_axis(list(ratings.values()), compact=compact)
    clipped = any(
        wording.is_number(value["low"]) and (value["low"] < axis.low or value["high"] > axis.high)
        for value in ratings.values()
    )
    prepared = []
    for row in rows:
        name = row["contestant"]
        value, is_reference = ratings[name], name == reference
        interval = wording.span(value["low"], value["high"], digits=0)
        label = f"{name}: rating {rating(value['estimate'])}, interval {interval}"
        plot = plots.marker_row(
            [(value, *(("diamond", "photo") if is_reference else ("circle", "model")))],
            axis,
            label=label,
            reference=top if wording.is_number(top) else None,
        )
        shown = "win_rate_vs_reference" if reference else "win_rate"
        prepared.append(
            {
                "entry": row,
                "rating": value,
                "share": estimate_of(row[shown]),
                "plot": plot,
                "is_reference": is_reference,
            }
        )
    above = [
        row["contestant"]
        for row in rows
        if wording.is_number(top) and (ratings[row["contestant"]]["estimate"] or 0) > top
    ]
    return {
        "rows": prepared,
        "axis": axis,
        "labels": plots.axis_labels(axis),
        "compact": compact,
        "clipped": clipped,
        "prompts": _common(row["n_prompts"] for row in rows),
        "above": above,
    }


def _ladder_axis(ratings: Sequence[Mapping[str, Any]], *, compact: bool) -> plots.Axis:
    """Return the axis of the ladder; in a long one a single wide interval does not rule it."""
    values = plots.ends(ratings)
    estimates = [v["estimate"] for v in ratings if wording.is_number(v["estimate"])]
    if not compact or not estimates:
        return round_axis(values)
    room = BEYOND * (max(estimates) - min(estimates))
    bounds = (min(estimates) - room, max(estimates) + room)
    return round_axis(
        min(bounds[1], max(bounds[0], value)) for value in values if wording.is_number(value)
    )


def _common(values: Iterable[int]) -> int | None:
    """Return the one value that all have, if there is one."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def systems(standing: Mapping[str, Any], reference: str | None) -> dict[str, Any]:
    """Prepare the table of all rating systems beside one another."""
    rows = [
        {
            "entry": row,
            "ratings": [estimate_of(row[key]) for key, _ in SYSTEMS],
            "win_rate": estimate_of(row["win_rate"]),
            "is_reference": row["contestant"] == reference,
        }
        for row in standing["ratings"]
    ]
    return {"names": [name for _, name in SYSTEMS], "rows": rows, "open": len(rows) <= COMPACT}


def by_judge(ratings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Prepare each contestant's ratings under every judge; None with a single judge."""
    judges = list(ratings["judges"])
    if len(judges) < 2:
        return None
    found = {
        judge: {row["contestant"]: estimate_of(row["bradley_terry"]) for row in standing["ratings"]}
        for judge, standing in ratings["judges"].items()
    }
    axis = round_axis(plots.ends(value for rows in found.values() for value in rows.values()))
    shapes = plots.series(judges)
    rows = []
    for name in [row["contestant"] for row in (ratings["combined"] or {}).get("ratings", [])]:
        values = [found[judge].get(name, estimate_of(None)) for judge in judges]
        marks = [
            (value, shape, class_) for value, (_, shape, class_) in zip(values, shapes, strict=True)
        ]
        label = f"{name}: " + ", ".join(
            f"{judge} {rating(value['estimate'])}"
            for judge, value in zip(judges, values, strict=True)
        )
        plot = plots.marker_row(marks, axis, label=label)
        rows.append({"name": name, "values": values, "plot": plot})
    return {
        "rows": rows,
        "shapes": shapes,
        "labels": plots.axis_labels(axis),
        "with_values": len(judges) <= VALUES_LIMIT,
    }


def matrix(standing: Mapping[str, Any], reference: str | None) -> dict[str, Any]:
    """Prepare the win matrix and what its caption says."""
    matrix = standing["win_matrix"]
    return {
        "table": win_matrix(matrix, reference=reference),
        "dense": len(matrix["contestants"]) > NUMBERS_LIMIT,
        "counts": counts_range(matrix["n"]),
    }


def judging(ratings: Mapping[str, Any], votes: Iterable[Vote]) -> dict[str, Any]:
    """Prepare each judge's figures: bias, invalid answers, tokens, cost and time."""
    answers: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    for vote in votes:
        answers[vote.judge] += 1
        seconds[vote.judge] += vote.seconds
    bias = {
        judge: {
            key: estimate_of((standing["position_bias"] or {}).get(key))
            for key in ("first_share", "inconsistent_share")
        }
        for judge, standing in ratings["judges"].items()
    }
    places = {judge: _in_percent(each["first_share"]) for judge, each in bias.items()}
    axis = round_axis(plots.ends(places.values()), landmark=50.0, bounds=(0.0, 100.0))
    rows = []
    for judge, standing in ratings["judges"].items():
        first = bias[judge]["first_share"]
        usage = standing["usage"] or {}
        n = answers[judge]
        plot = plots.interval_row(
            places[judge],
            axis,
            label=f"{judge}: share of decisive votes for the picture shown first "
            f"{wording.percent(first['estimate'])}",
            reference=50.0,
        )
        cost = usage.get("cost")
        rows.append(
            {
                "judge": judge,
                "standing": standing,
                "first": first,
                "inconsistent": bias[judge]["inconsistent_share"],
                "plot": plot,
                "answers": n,
                "invalid": standing["n_invalid"],
                "invalid_share": standing["n_invalid"] / n if n else None,
                "usage": usage,
                "cost_per_thousand": 1000 * cost / n if n and wording.is_number(cost) else None,
                "seconds": seconds[judge] / n if n else None,
            }
        )
    paid = any(wording.is_number(v) and v > 0 for row in rows for v in row["usage"].values())
    return {"rows": rows, "labels": plots.axis_labels(axis), "paid": paid}


def _in_percent(share: Mapping[str, Any]) -> dict[str, Any]:
    return {k: 100 * v if wording.is_number(v) else None for k, v in share.items()}


def agreement(ratings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Prepare how far the judges agree with one another, and with people."""
    found = ratings["agreement"]
    if not found:
        return None
    return {
        "alpha": estimate_of(found["krippendorff_alpha"]),
        "pairs": [
            {
                "a": pair["a"],
                "b": pair["b"],
                "kappa": estimate_of(pair["cohen_kappa"]),
                "agreement": estimate_of(pair["agreement"]),
                "n": pair["n"],
            }
            for pair in found["pairs"]
        ],
        "with_human": {
            judge: estimate_of(value) for judge, value in (found["with_human"] or {}).items()
        },
    }


def neighbours(standing: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare the pairs that stand next to each other, the higher rated one first."""
    pairs = {}
    for pair in standing["pairs"]:
        pairs[pair["a"], pair["b"]] = (pair, 1)
        pairs[pair["b"], pair["a"]] = (pair, -1)
    rows = []
    for better, worse in pairwise(row["contestant"] for row in standing["ratings"]):
        if (better, worse) in pairs:
            pair, sign = pairs[better, worse]
            difference = _turned(estimate_of(pair["difference"]), sign)
            rows.append({**pair, "a": better, "b": worse, "difference": difference})
    tied = [row for row in rows if row["tied"]]
    return {"rows": rows, "tied": tied, "open": len(rows) <= COMPACT}


def _turned(value: Mapping[str, Any], sign: int) -> dict[str, Any]:
    if sign > 0:
        return dict(value)
    low, high = value["low"], value["high"]
    return {
        **value,
        "estimate": None if value["estimate"] is None else -value["estimate"],
        "low": None if high is None else -high,
        "high": None if low is None else -low,
    }


def invalid_answers(votes: Iterable[Vote]) -> list[dict[str, str]]:
    """Return the first invalid answers: what was said, and what is wrong with it."""
    found = []
    for vote in votes:
        if vote.verdict != "invalid":
            continue
        found.append(
            {
                "judge": vote.judge,
                "prompt_id": vote.prompt_id,
                "first": vote.first,
                "second": vote.second,
                "why": shortened(vote.reason, RAW_LENGTH) or "",
                "raw": shortened(vote.raw, RAW_LENGTH) or "",
            }
        )
        if len(found) == INVALID_LIMIT:
            break
    return found


def absent_prompts(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each contestant's prompts that no other has, and those that it lacks."""
    prompts = manifest.get("prompts") or {}
    dropped, missing = prompts.get("dropped") or {}, prompts.get("missing") or {}
    found = []
    for name in dict.fromkeys((*dropped, *missing)):
        ids = [list(map(str, group.get(name) or [])) for group in (dropped, missing)]
        if any(ids):
            lists = [wording.listing(some, IDS_LIMIT) for some in ids]
            found.append(
                {
                    "contestant": str(name),
                    "n_dropped": len(ids[0]),
                    "dropped": lists[0],
                    "n_missing": len(ids[1]),
                    "missing": lists[1],
                }
            )
    return found


def unmatched(standing: Mapping[str, Any]) -> Sequence[str]:
    """Return the contestants that no comparison reached."""
    return [row["contestant"] for row in standing["ratings"] if not row["n_comparisons"]]
