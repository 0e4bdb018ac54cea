"""What ``realbench arena`` prints: the ladder, ties, how far to trust the judges, and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from realbench.arena.report.wording import anchor_in_words, main_standing
from realbench.cli.terminal import add_texts, figures_table, plain_console, print_table
from realbench.report.wording import figure, rank_range, ties
from realbench.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from realbench.arena.records import Anchored, JudgeAgreement, Nuisances, Standing
    from realbench.arena.results import ArenaRun


def print_arena(run: ArenaRun) -> None:
    """Print the ranking, then in words what the data do not separate and what went wrong."""
    console = plain_console()
    standing = main_standing(run.ratings)
    if standing is not None:
        print_table(console, ranking(standing, run.reference), names=2)
        if len(run.ratings["judges"]) > 1:
            print_table(console, by_judge(run.ratings, standing))
    if brought := run.ratings.get("anchored"):
        print_table(console, on_anchor(brought), names=2)
    if held := run.ratings.get("nuisances"):
        print_table(console, held_equal(held), names=1)
    for line in findings(run):
        console.print(printable(line))


def ranking(standing: Mapping[str, Any], reference: str | None) -> Table:
    """Return the ladder as a table, best first."""
    table = figures_table(
        "below each figure its 95 % interval over prompts; n: comparisons; TrueSkill has a scale "
        "of its own"
    )
    headers = ["n", "win rate", "Bradley–\nTerry", "Elo", "TrueSkill"]
    headers += ["win rate vs\nphotos"] if reference else []
    table.add_column("rank", justify="right")
    table.add_column("contestant", min_width=11)
    for header in headers:
        table.add_column(header, justify="right")
    for row in standing["ratings"]:
        is_photos = row["contestant"] == reference
        cells = [
            rank_range(row),
            printable(row["contestant"]) + ("\nphotographs" if is_photos else ""),
            f"{row['n_comparisons']:,}",
            figure(row["win_rate"]),
            figure(row["bradley_terry"], 0),
            figure(row["elo"], 0),
            figure(row["trueskill"], 1),
        ]
        if reference:
            cells.append("" if is_photos else figure(row["win_rate_vs_reference"]))
        add_texts(table, cells, style="dim" if is_photos else None)
    return table


def by_judge(ratings: Mapping[str, Any], standing: Mapping[str, Any]) -> Table:
    """Return each judge's Bradley–Terry ratings side by side, in the order of the ladder."""
    from rich.text import Text

    table = figures_table("Bradley–Terry ratings by judge")
    judges = ratings["judges"]
    table.add_column("contestant", min_width=11)
    for name in judges:
        table.add_column(Text(printable(name)), justify="right", overflow="fold", min_width=11)
    rows = {
        name: {row["contestant"]: row["bradley_terry"] for row in one["ratings"]}
        for name, one in judges.items()
    }
    for entry in standing["ratings"]:
        name = entry["contestant"]
        cells = [printable(name), *(figure(rows[judge].get(name), 0) for judge in judges)]
        add_texts(table, cells)
    return table


def on_anchor(brought: Anchored) -> Table:
    """Return the ratings on the anchor's scale beside those by the anchor alone."""
    who = anchor_in_words(brought["anchor"])
    table = figures_table(
        f"Bradley–Terry ratings on the scale of {printable(who)}: {brought['n_anchor']:,} "
        f"comparisons, worth {brought['worth'] or 0:,.0f} by {brought['n_cheap']:,} of others"
    )
    table.add_column("rank", justify="right")
    table.add_column("contestant", min_width=11)
    for header in ("with others", "alone"):
        table.add_column(header, justify="right", min_width=11)
    for row in brought["ratings"]:
        figures = [figure(row["bradley_terry"], 0), figure(row["alone"], 0)]
        add_texts(table, [rank_range(row), printable(row["contestant"]), *figures])
    return table


def held_equal(held: Nuisances) -> Table:
    """Return the ratings with the pictures alike beside those of the pictures as they are."""
    table = figures_table("Bradley–Terry ratings with the pictures alike, and as they are")
    table.add_column("contestant", min_width=11)
    for header in ("alike", "as they are"):
        table.add_column(header, justify="right", min_width=11)
    for row in held["ratings"]:
        figures = [figure(row["controlled"], 0), figure(row["plain"], 0)]
        add_texts(table, [printable(row["contestant"]), *figures])
    return table


def effects(held: Nuisances) -> list[str]:
    """Return what sways the judges besides realism, a line each kind."""
    known = [one for one in held["effects"] if one["effect"]["estimate"] is not None]
    unknown = [one["covariate"] for one in held["effects"] if one not in known]
    said = [f"{one['covariate']} {figure(one['effect'], 0, inline=True)}" for one in known]
    lines = ["A standard deviation more, in points of rating: " + "; ".join(said) + "."]
    left_out = "Not to be told from the contestants, or the same in all pictures: "
    return [*(lines if known else []), *([left_out + ", ".join(unknown) + "."] if unknown else [])]


# --- In words ----------------------------------------------------------------------------------


def findings(run: ArenaRun) -> list[str]:
    """Return what the table does not say, a line each."""
    standing = main_standing(run.ratings)
    lines = []
    if "detectors" in run.ratings["judges"]:
        lines.append(
            "The judge detectors is not a vision-language model: it compares the scores of the "
            "detector ensemble. Give --judge for one that is."
        )
    if standing is not None:
        lines += ties(standing["pairs"], "adjusted")
    lines += [_judge_line(judge, one, run) for judge, one in run.ratings["judges"].items()]
    if held := run.ratings.get("nuisances"):
        lines += effects(held)
    if run.ratings["agreement"]:
        lines += _agreement(run.ratings["agreement"])
    notes = [*run.manifest["notes"], *run.ratings["notes"]]
    lines += [f"Note: {note}" for note in dict.fromkeys(notes)]
    lines += _open_pairs(run)
    if run.out is not None and standing is not None:
        lines.append(f"Report: {run.out / 'report.html'}")
    return lines


def _judge_line(judge: str, standing: Standing, run: ArenaRun) -> str:
    parts = [f"{standing['n_comparisons']:,} comparisons on {standing['n_prompts']:,} prompts"]
    first, inconsistent = (standing["position_bias"][f"{one}_share"] for one in _BIASES)
    # Detectors give each picture a score of its own: where it is shown cannot matter to them.
    if first["estimate"] is not None and judge != "detectors":
        parts.append(
            f"position bias {figure(first, inline=True)} of {first['n']:,} decisive votes for the "
            "picture shown first (unbiased: 0.50)"
        )
    if inconsistent["estimate"] is not None and judge != "detectors":
        parts.append(f"the two orders disagree in {figure(inconsistent, inline=True)}")
    if standing["n_invalid"]:
        invalid = [v.raw for v in run.votes if v.judge == judge and v.verdict == "invalid"]
        raw = " ".join((invalid[-1] or "empty").split()) if invalid else ""
        parts.append(f"{standing['n_invalid']:,} invalid answers, such as: {raw[:120]}")
    usage = standing["usage"]
    tokens = [usage.get(f"{way}_tokens") or 0 for way in ("input", "output")]
    if any(tokens):
        parts.append(f"{tokens[0]:,.0f} tokens in, {tokens[1]:,.0f} out")
    if usage.get("cost"):
        parts.append(f"cost {usage['cost']:.4f}")
    return f"{judge}: {'; '.join(parts)}."


_BIASES = ("first", "inconsistent")


def _agreement(agreement: JudgeAgreement) -> Iterator[str]:
    alpha = agreement["krippendorff_alpha"]
    if alpha["estimate"] is not None:
        yield (
            "Agreement of the judges: Krippendorff's alpha "
            f"{figure(alpha, inline=True)}, n = {alpha['n']:,}."
        )
    for pair in agreement["pairs"]:
        if pair["cohen_kappa"]["estimate"] is not None:
            kappa, same = (figure(pair[key], inline=True) for key in ("cohen_kappa", "agreement"))
            yield (
                f"{pair['a']} and {pair['b']}: Cohen's kappa {kappa}, the same result in {same} of "
                f"{pair['n']:,}."
            )


def _open_pairs(run: ArenaRun) -> list[str]:
    n, reason = run.pairs_open, run.stop_reason
    if not n or reason in ("interrupted", "separated"):
        return []
    whys = {
        "max-votes": "--max-votes is reached",
        "max-cost": "--max-cost is reached",
        "complete": "answers were invalid",
    }
    again = "run the same command again to go on" if run.out else "give --out to go on later"
    judges = Counter(v.judge for v in run.votes)
    over = " (over all judges)" if len(judges) > 1 else ""
    return [f"{n:,} pairs are open{over}, since {whys.get(str(reason), reason)}: {again}."]
