"""What ``realbench arena`` prints: the ladder, ties, how far to trust the judges, and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from realbench.cli.terminal import add_texts, figures_table, plain_console, print_table
from realbench.report.wording import figure, rank_range, ties
from realbench.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from realbench.arena.results import ArenaRun

Estimate = Mapping[str, Any]


def print_arena(run: ArenaRun) -> None:
    """Print the ranking, then in words what the data do not separate and what went wrong."""
    console = plain_console()
    standing = _main_standing(run.ratings)
    if standing is not None:
        print_table(console, ranking(standing, run.reference), names=2)
        if len(run.ratings["judges"]) > 1:
            print_table(console, by_judge(run.ratings, standing))
    for line in findings(run):
        console.print(printable(line))


def _main_standing(ratings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the combined standing of several judges, or the only one's."""
    if ratings["combined"]:
        return ratings["combined"]
    compared = [one for one in ratings["judges"].values() if one["n_comparisons"]]
    return compared[0] if compared else None


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


# --- In words ----------------------------------------------------------------------------------


def findings(run: ArenaRun) -> list[str]:
    """Return what the table does not say, a line each."""
    standing = _main_standing(run.ratings)
    lines = _not_vlm(run)
    if standing is not None:
        lines += ties(standing["pairs"], "adjusted")
    for judge, one in run.ratings["judges"].items():
        lines += _judge_lines(judge, one, run)
    lines += _agreement(run.ratings["agreement"])
    notes = [*run.manifest["notes"], *run.ratings["notes"]]
    lines += [f"Note: {note}" for note in dict.fromkeys(notes)]
    lines += _open_pairs(run)
    if run.out is not None and standing is not None:
        lines.append(f"Report: {run.out / 'report.html'}")
    return lines


def _not_vlm(run: ArenaRun) -> list[str]:
    if "detectors" not in run.ratings["judges"]:
        return []
    return [
        "The judge detectors is not a vision-language model: it compares the scores of the "
        "detector ensemble. Give --judge for one that is."
    ]


def _judge_lines(judge: str, standing: Mapping[str, Any], run: ArenaRun) -> list[str]:
    bias = standing["position_bias"]
    first, inconsistent = bias["first_share"], bias["inconsistent_share"]
    parts = [f"{standing['n_comparisons']:,} comparisons on {standing['n_prompts']:,} prompts"]
    if first and first["estimate"] is not None:
        parts.append(
            f"position bias {_in_line(first)} of {first['n']:,} decisive votes for the picture "
            "shown first (unbiased: 0.50)"
        )
    if inconsistent and inconsistent["estimate"] is not None:
        parts.append(f"the two orders disagree in {_in_line(inconsistent)}")
    invalid = [v for v in run.votes if v.judge == judge and v.verdict == "invalid"]
    if standing["n_invalid"]:
        raw = " ".join((invalid[-1].raw or "empty").split()) if invalid else ""
        parts.append(f"{standing['n_invalid']:,} invalid answers, such as: {raw[:120]}")
    usage = standing["usage"]
    if usage.get("input_tokens") or usage.get("output_tokens"):
        parts.append(
            f"{usage['input_tokens'] or 0:,.0f} tokens in, {usage['output_tokens'] or 0:,.0f} out"
        )
    if usage.get("cost"):
        parts.append(f"cost {usage['cost']:.4f}")
    return [f"{judge}: {'; '.join(parts)}."]


def _in_line(value: Estimate) -> str:
    if value["low"] is None:
        return f"{value['estimate']:.2f}"
    return f"{value['estimate']:.2f} ({value['low']:.2f}–{value['high']:.2f})"


def _agreement(agreement: Mapping[str, Any] | None) -> list[str]:
    if not agreement:
        return []
    lines = []
    alpha = agreement["krippendorff_alpha"]
    if alpha and alpha["estimate"] is not None:
        lines.append(
            f"Agreement of the judges: Krippendorff's alpha {_in_line(alpha)}, n = {alpha['n']:,}."
        )
    for pair in agreement["pairs"]:
        kappa, same = pair["cohen_kappa"], pair["agreement"]
        if kappa["estimate"] is not None:
            lines.append(
                f"{pair['a']} and {pair['b']}: Cohen's kappa {_in_line(kappa)}, the same result "
                f"in {_in_line(same)} of {pair['n']:,}."
            )
    return lines


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
