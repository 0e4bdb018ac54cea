"""The report of an arena: ``report.html`` from ratings, votes, pictures and a manifest.

The figures come exactly as they are written to ``ratings.json``; nothing is rated again here. The
page is one file: styles, plots and thumbnails are inside it, there is no script, and everything
that came from a folder, a prompt or a judge is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realbench.arena.records import ArenaManifest, Ratings, Standing
from realbench.arena.report import sections
from realbench.arena.report import wording as words
from realbench.arena.report.examples import UPSET_GAP, find_examples
from realbench.arena.votes import compare
from realbench.report import wording
from realbench.report.page import command_line, render_page, write_page

if TYPE_CHECKING:
    from realbench.arena.results import ArenaRun

SETTING_LENGTH = 160
INVALID_LIMIT = 10


def write_arena_report(run: ArenaRun, out: Path) -> Path:
    """Write the report of ``run`` to ``out`` (a file, or a folder that gets ``report.html``).

    The file appears whole or not at all.

    Returns:
        The path of the report.

    Raises:
        OSError: the folder cannot be written.
    """
    return write_page(render_arena_report(run), Path(out))


def render_arena_report(run: ArenaRun) -> str:
    """Return the report as HTML."""
    ratings, manifest = run.ratings, run.manifest
    standing = words.main_standing(ratings)
    reference = ratings["reference"]
    judges = _judges(ratings, manifest)
    dropped, missing = manifest["prompts"]["dropped"], manifest["prompts"]["missing"]
    context: dict[str, Any] = {
        "answer": words.answer(ratings),
        "support": words.support(ratings),
        "standing": standing,
        "compared": standing is not None,
        "several": len(judges) > 1,
        "reference": reference,
        "imported": manifest["schedule"] == "imported",
        "judges": judges,
        "no_vlm": [judge for judge in judges if not judge["is_vlm"] and not judge["is_human"]],
        "facts": _facts(run, standing, judges),
        "few_prompts": standing is not None and standing["n_prompts"] < wording.THIN,
        "stop": _stop(manifest),
        "resamples": ratings["resamples"],
        "manifest": manifest,
        "judging": sections.judging(ratings, run.votes),
        "agreement": ratings["agreement"],
        "invalid": [one for one in run.votes if one.verdict == "invalid"][:INVALID_LIMIT],
        "absent": list(dict.fromkeys((*dropped, *missing))),
        "notes": list(dict.fromkeys([*ratings["notes"], *manifest["notes"]])),
        "command": _command(manifest, judges),
        "settings": [(judge["name"], list(_settings(judge["about"]))) for judge in judges],
        "upset_gap": int(UPSET_GAP),
        "many": sections.COMPACT,
        "estimate_of": words.estimate_of,
        "rating": words.rating,
        "winning_chance": words.winning_chance,
        "roughly": words.roughly,
        "shortened": words.shortened,
        "stand_ins": any(entry["stands_in"] for entry in manifest["contestants"]),
    }
    if standing is not None:
        rates = [(row["win_rate"], row["win_rate_vs_reference"]) for row in standing["ratings"]]
        context |= {
            "ladder": sections.ladder(standing, reference),
            "edge": wording.edge_note(one for pair in rates for one in pair),
            "by_judge": sections.by_judge(ratings),
            "anchored": sections.on_anchor(ratings),
            "held": sections.held_equal(ratings),
            "examples": find_examples(
                compare(run.votes, {judge["name"]: int(judge["orders"]) for judge in judges}),
                run.votes,
                {row["contestant"]: row["bradley_terry"] for row in standing["ratings"]},
                pictures=run.pictures,
                prompts=run.prompts,
            ),
            "neighbours": sections.neighbours(standing),
        }
    return render_page("arena/report/report.html", context)


def _judges(ratings: Ratings, manifest: ArenaManifest) -> list[dict[str, Any]]:
    described = manifest["judges"]
    found = []
    for name in dict.fromkeys((*described, *ratings["judges"])):
        about: dict[str, Any] = {**described.get(name, {})}
        found.append(
            {
                "name": name,
                "orders": about.get("orders", 2),
                "is_vlm": bool(about.get("is_vlm", True)),
                "is_human": name.partition(":")[0] == "human",
                "template": _template(about),
                "about": about,
            }
        )
    return found


def _template(about: Mapping[str, Any]) -> str | None:
    template = about.get("template")
    if not isinstance(template, Mapping):
        return None
    return f"{template.get('name', '–')} (SHA-256 {str(template.get('sha256', '–'))[:16]})"


def _facts(
    run: ArenaRun, standing: Standing | None, judges: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    invalid = sum(vote.verdict == "invalid" for vote in run.votes)
    facts = [
        ("Comparisons", f"{standing['n_comparisons'] if standing else 0:,}"),
        ("Prompts", f"{standing['n_prompts'] if standing else 0:,}"),
        ("Contestants", f"{len(run.ratings['contestants']):,}"),
        ("Votes", f"{len(run.votes) - invalid:,}"),
        ("Invalid answers", f"{invalid:,}"),
        ("Judges" if len(judges) > 1 else "Judge", ", ".join(j["name"] for j in judges) or "–"),
    ]
    if suite := wording.suite_text(run.manifest):
        facts.insert(2, ("Prompt suite", suite))
    return [*facts, ("Date", run.manifest["started"][:10])]


def _stop(manifest: ArenaManifest) -> dict[str, Any]:
    """Say why the run ended and how many pairs lack a result that the schedule wanted."""
    reason = manifest["stop_reason"]
    early = reason in words.EARLY_STOPS
    wanted = early or manifest["schedule"] != "active"
    open_pairs = manifest["counts"].get("pairs_open", 0) if wanted else 0
    return {"sentence": words.stop_sentence(reason), "early": early, "open": open_pairs}


def _settings(about: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield a judge's settings as (name, value), nested ones flat."""
    for key, value in about.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _settings(value, f"{name} ")
        elif isinstance(value, list | tuple):
            for one in value:
                yield name, _setting(one)
        elif value is not None:
            yield name, _setting(value)


def _setting(value: Any) -> str:
    """Format a setting; of a SHA-256 the first 16 digits, of a long text its beginning."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(_setting(one) for one in value.values())
    text = str(value)
    if re.fullmatch("[0-9a-f]{64}", text):
        return text[:16]
    return text if len(text) <= SETTING_LENGTH else f"{text[:SETTING_LENGTH]}…"


def _command(manifest: ArenaManifest, judges: Sequence[Mapping[str, Any]]) -> str:
    options = [(key, manifest["arguments"].get(key)) for key in ("reference", "prompts")]
    options += [("judge", judge["name"]) for judge in judges]
    options += [("anchor", manifest.get("anchor"))]
    options += [("schedule", manifest["schedule"]), ("seed", manifest["seed"])]
    return command_line(manifest, "arena", options)
