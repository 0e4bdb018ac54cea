"""What the sections of an arena's report show, prepared from ``ratings.json`` for the template."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from realbench.arena.report.wording import anchor_in_words, estimate_of, rating
from realbench.arena.votes import Vote
from realbench.report import plots, wording

COMPACT = 16  # contestants; more make the ladder's rows lower
BEYOND = 0.15  # of the span of all ratings, how far a long ladder's axis goes beyond them
VALUES_LIMIT = 3  # judges whose ratings fit beside the plot of them all


def ladder(standing: Mapping[str, Any], reference: str | None) -> dict[str, Any]:
    """Prepare the rows of the ladder: the photographs first, then the models, best first."""
    rows = sorted(standing["ratings"], key=lambda row: row["contestant"] != reference)
    ratings = {row["contestant"]: estimate_of(row["bradley_terry"]) for row in rows}
    top = ratings.get(reference, {}).get("estimate") if reference else None
    compact = len(rows) > COMPACT
    axis = _ladder_axis(list(ratings.values()), compact=compact)
    drawn = []
    for name, value in ratings.items():
        shape = ("diamond", "photo") if name == reference else ("circle", "model")
        interval = wording.span(value["low"], value["high"], digits=0)
        label = f"{name}: rating {rating(value['estimate'])}, interval {interval}"
        drawn.append(plots.marker_row([(value, *shape)], axis, label=label, reference=top))
    prompts = {row["n_prompts"] for row in rows}
    return {
        "rows": list(zip(rows, drawn, strict=True)),
        "labels": plots.axis_labels(axis),
        "compact": compact,
        "clipped": any(
            wording.is_number(one["low"]) and (one["low"] < axis.low or one["high"] > axis.high)
            for one in ratings.values()
        ),
        "prompts": prompts.pop() if len(prompts) == 1 else None,
        "above": 0 if top is None else sum((v["estimate"] or 0) > top for v in ratings.values()),
    }


def _ladder_axis(ratings: Sequence[Mapping[str, Any]], *, compact: bool) -> plots.Axis:
    """Return the axis of the ladder; in a long one a single wide interval does not rule it."""
    values = [value for value in plots.ends(ratings) if wording.is_number(value)]
    estimates = [v["estimate"] for v in ratings if wording.is_number(v["estimate"])]
    if compact and estimates:
        room = BEYOND * (max(estimates) - min(estimates))
        low, high = min(estimates) - room, max(estimates) + room
        values = [min(high, max(low, value)) for value in values]
    return plots.round_axis(values)


def by_judge(ratings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Prepare each contestant's ratings under every judge; None with a single judge."""
    judges = list(ratings["judges"])
    if len(judges) < 2:
        return None
    found = [
        {row["contestant"]: estimate_of(row["bradley_terry"]) for row in standing["ratings"]}
        for standing in ratings["judges"].values()
    ]
    axis = plots.round_axis(plots.ends(value for rows in found for value in rows.values()))
    shapes = plots.series(judges)
    rows = []
    for name in [row["contestant"] for row in (ratings["combined"] or {}).get("ratings", [])]:
        values = [each.get(name, estimate_of(None)) for each in found]
        marks = [
            (one, shape, class_) for one, (_, shape, class_) in zip(values, shapes, strict=True)
        ]
        each = zip(judges, values, strict=True)
        label = ", ".join(f"{judge} {rating(value['estimate'])}" for judge, value in each)
        plot = plots.marker_row(marks, axis, label=f"{name}: {label}")
        rows.append({"name": name, "values": values, "plot": plot})
    return {
        "rows": rows,
        "shapes": shapes,
        "labels": plots.axis_labels(axis),
        "with_values": len(judges) <= VALUES_LIMIT,
    }


def on_anchor(ratings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Prepare the ratings on the anchor's scale beside its own; None without an anchor."""
    brought = ratings.get("anchored")
    if not brought:
        return None
    titles = {"bradley_terry": "with the other judges", "alone": "alone"}
    who = anchor_in_words(brought["anchor"])
    return {**brought, "who": who, **_side_by_side(brought["ratings"], titles)}


def held_equal(ratings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Prepare the ratings with the nuisances held equal; None where they are not controlled for."""
    held = ratings.get("nuisances")
    if not held:
        return None
    titles = {"controlled": "pictures alike", "plain": "as they are"}
    known = [one for one in held["effects"] if wording.is_number(one["effect"]["estimate"])]
    unknown = [one["covariate"] for one in held["effects"] if one not in known]
    axis = plots.round_axis(plots.ends(one["effect"] for one in known), landmark=0.0)
    drawn = []
    for one in known:
        label = f"{one['covariate']}: {rating(one['effect']['estimate'])}"
        plot = plots.interval_row(one["effect"], axis, label=label, reference=0.0)
        drawn.append({**one, "plot": plot})
    scale = {"effects": drawn, "axis": plots.axis_labels(axis, sign=True), "unknown": unknown}
    return {**held, **scale, **_side_by_side(held["ratings"], titles)}


def _side_by_side(
    ratings: Sequence[Mapping[str, Any]], titles: Mapping[str, str]
) -> dict[str, Any]:
    """Draw two ratings of each contestant on one row, under the keys that the titles have."""
    shapes = plots.series(titles.values())
    axis = plots.round_axis(plots.ends(estimate_of(row[key]) for row in ratings for key in titles))
    rows = []
    for row in ratings:
        both = [estimate_of(row[key]) for key in titles]
        marks = [(v, shape, class_) for v, (_, shape, class_) in zip(both, shapes, strict=True)]
        each = zip(titles.values(), both, strict=True)
        label = ", ".join(f"{title} {rating(value['estimate'])}" for title, value in each)
        plot = plots.marker_row(marks, axis, label=f"{row['contestant']}: {label}")
        rows.append({"row": row, "values": both, "plot": plot})
    return {"rows": rows, "shapes": shapes, "labels": plots.axis_labels(axis)}


def judging(ratings: Mapping[str, Any], votes: Iterable[Vote]) -> dict[str, Any]:
    """Prepare each judge's figures: bias, invalid answers, tokens, cost and time."""
    answers: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    for vote in votes:
        answers[vote.judge] += 1
        seconds[vote.judge] += vote.seconds
    # Detectors give each picture a score of its own: where it is shown cannot matter to them.
    first = {
        judge: estimate_of(
            standing["position_bias"]["first_share"] if judge != "detectors" else None
        )
        for judge, standing in ratings["judges"].items()
    }
    places = {
        judge: {k: 100 * v if wording.is_number(v) else None for k, v in share.items()}
        for judge, share in first.items()
    }
    axis = plots.round_axis(plots.ends(places.values()), landmark=50.0, bounds=(0.0, 100.0))
    rows = []
    for judge, standing in ratings["judges"].items():
        n, cost = answers[judge], standing["usage"].get("cost")
        label = (
            f"{judge}: share of decisive votes for the picture shown first "
            f"{wording.percent(first[judge]['estimate'])}"
        )
        rows.append(
            {
                "judge": judge,
                "standing": standing,
                "first": first[judge],
                "inconsistent": estimate_of(standing["position_bias"]["inconsistent_share"]),
                "plot": plots.interval_row(places[judge], axis, label=label, reference=50.0),
                "answers": n,
                "cost_per_thousand": 1000 * cost / n if n and wording.is_number(cost) else None,
                "seconds": seconds[judge] / n if n else None,
            }
        )
    paid = any(value for row in rows for value in row["standing"]["usage"].values())
    return {"rows": rows, "labels": plots.axis_labels(axis), "paid": paid}


def neighbours(standing: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the pairs that stand next to each other, the higher rated one first."""
    pairs = {(pair["a"], pair["b"]): pair for pair in standing["pairs"]}
    names = [row["contestant"] for row in standing["ratings"]]
    return [pairs[two] for two in pairwise(names) if two in pairs]
