"""The report of measured judges: ``judges.html`` from what ``judges.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from realbench.report import plots, wording
from realbench.report.page import command_line, render_page
from realbench.report.wording import is_number, percent

if TYPE_CHECKING:
    from realbench.arena.judge_bench import JudgeBench
    from realbench.stats.record import Estimate

TITLES = {
    "accuracy": "Photograph preferred",
    "with_people": "Says what a person says",
    "first_share": "First picture chosen",
    "inconsistent_share": "Orders disagree",
    "calibration_error": "Calibration error",
    "brier": "Brier score",
    "ties": "Ties",
    "refusals": "Refusals",
    "seconds": "Seconds an answer",
    "cost": "Cost an answer",
}
"""Of the measures, in words."""

DIGITS = {"cost": 5}


def render_judges(found: JudgeBench) -> str:
    """Return the report as HTML."""
    drawn = [name for name in ("accuracy", "with_people") if _known(found, name)]
    context: dict[str, object] = {
        "headline": headline(found),
        "found": found,
        "sections": [(TITLES[name], name, _rows(found, name)) for name in drawn],
        "titles": {name: TITLES[name] for name in TITLES if _known(found, name)},
        "digits": DIGITS,
        "changes": list(dict.fromkeys(one["change"] for one in found["robustness"])),
        "command": command_line({"argv": found["argv"], "arguments": {}}, "judges bench", []),
    }
    return render_page("arena/report/judges.html", context)


def headline(found: JudgeBench) -> str:
    """Say how the best judge agrees with people, or else with the truth, as far as it is known."""
    machines = [one for one in found["judges"] if not one["is_human"]] or found["judges"]
    people = found["people"]
    for name, says in (
        ("with_people", "says what a person says of {} of pairs"),
        ("accuracy", "prefers the photograph in {} of pairs"),
    ):
        ranked = [(one, _of(one, name)) for one in machines]
        ranked = [pair for pair in ranked if is_number(pair[1]["estimate"])]
        if ranked:
            one, best = max(ranked, key=lambda pair: pair[1]["estimate"] or 0.0)
            text = f"{one['judge']} {says.format(percent(best['estimate']))}"
            if name == "with_people" and is_number(people["estimate"]):
                text += f", people of one another {percent(people['estimate'])}"
            return text
    return "No judge could be measured"


def _known(found: JudgeBench, name: str) -> bool:
    return any(is_number(_of(one, name)["estimate"]) for one in found["judges"])


def _of(one: Mapping[str, Any], name: str) -> Estimate:
    value: Estimate = one[name]
    return value


def _rows(found: JudgeBench, name: str) -> dict[str, Any]:
    values: Sequence[tuple[str, Estimate, str]] = [
        (one["judge"], _of(one, name), "photo" if one["is_human"] else "model")
        for one in found["judges"]
        if is_number(_of(one, name)["estimate"])
    ]
    if name == "with_people" and is_number(found["people"]["estimate"]):
        values = [*values, ("people with one another", found["people"], "photo")]
    axis = plots.fitted_axis(plots.ends(value for _, value, _ in values), landmark=0.5)
    rows = []
    for judge, value, class_ in values:
        label = f"{judge}: {wording.figure(value, inline=True)}"
        plot = plots.interval_row(value, axis, label=label, class_=class_, reference=0.5)
        rows.append({"judge": judge, "value": value, "plot": plot})
    return {"rows": rows, "labels": plots.axis_labels(axis)}
