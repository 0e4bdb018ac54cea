"""A board's table as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from realbench.distances.compare import KINDS
from realbench.leaderboard.board import DISTANCES
from realbench.leaderboard.figures import latex, markdown
from realbench.leaderboard.schema import Estimate
from realbench.leaderboard.standings import Row, Standings
from realbench.report.wording import edge_note, listing, number
from realbench.text import cell

if TYPE_CHECKING:
    from realbench.leaderboard.diff import Place

MARK = "<!-- Made by realbench leaderboard build; changes by hand are lost. -->"
_TITLES = {
    "realism": "Realism",
    "escape_rate": "Escape rate",
    "auc": "AUC vs photos",
    "arena": "Arena rating",
    "win_rate": "Win rate",
}
_LOWER_FIRST = {"auc", *(c for c, kind in DISTANCES.items() if KINDS[kind].lower_is_closer)}
_MODEL_FIELDS = ("version", "organisation", "licence", "parameters", "date", "link")


def title_of(column: str) -> str:
    """Return a column's heading."""
    if column in DISTANCES:
        return KINDS[DISTANCES[column]].title.partition(",")[0]  # a board has one network
    return _TITLES.get(column) or column.partition(":")[2]


def lower_first(column: str) -> bool:
    """Whether the smallest figure of a column is the best."""
    return column in _LOWER_FIRST


def _figure_text(column: str, value: float) -> str:
    if column in DISTANCES:
        return number(value, KINDS[DISTANCES[column]].digits)
    return f"{value:.0f}" if column == "arena" else f"{value:.3f}"


def value_text(column: str, value: Estimate | None) -> str:
    """Return an estimate as a table shows it, a dash for none."""
    if value is None or not value.n:
        return "–"
    return _figure_text(column, value.mean)


def span_text(column: str, value: Estimate | None) -> str:
    """Return an estimate's interval as a table shows it; empty for none."""
    if value is None or value.low is None or value.high is None:
        return ""
    between = " to " if column in DISTANCES and value.low < 0 else "–"
    return between.join(_figure_text(column, end) for end in (value.low, value.high))


def own_rank(row: Row, column: str) -> str:
    """Return the ranks that a distance allows; empty for other columns."""
    low, high = row.ranks.get(column, (0, 0))
    return "" if not low else f"rank {low}" if low == high else f"rank {low}–{high}"


def below_text(row: Row, column: str) -> str:
    """Return what stands below a figure: its interval, and a distance's own ranks."""
    parts = [span_text(column, row.values.get(column)), own_rank(row, column)]
    return ", ".join(filter(None, parts))


def ranks_text(row: Row | Place) -> str:
    """Return the ranks that the data allow, such as ``2`` or ``1–3``; empty for an anchor."""
    if row.rank is None:
        return ""
    return f"{row.rank}" if row.rank == row.rank_high else f"{row.rank}–{row.rank_high}"


def count_text(row: Row) -> str:
    """Return of how many images or comparisons, and prompts, a row's figures are."""
    realism, arena = row.values.get("realism"), row.values.get("win_rate")
    parts = [(realism, "image"), (arena, "comparison")]
    found = [
        f"{one.n:,}\N{NO-BREAK SPACE}{noun}{'' if one.n == 1 else 's'}"
        for one, noun in parts
        if one
    ]
    return " · ".join(found)


def summary_columns(standings: Standings) -> list[str]:
    """Return the columns but the categories, which have a table of their own."""
    return [one for one in standings.columns if not one.startswith("category:")]


def category_columns(standings: Standings) -> list[str]:
    """Return the columns of the categories."""
    return [one for one in standings.columns if one.startswith("category:")]


def readme(standings: Standings) -> str:
    """Return a board's ``README.md``."""
    settings = standings.board.settings
    parts = [MARK, f"# {markdown(settings.title)}"]
    if settings.description:
        parts.append(markdown(settings.description))
    parts.append(markdown_table(standings, summary_columns(standings)))
    parts.append(reading(standings))
    if agreement := agreement_text(standings):
        parts.append(agreement)
    if categories := category_columns(standings):
        parts += ["## By category", "Realism in each category of prompts, with its 95 % interval."]
        parts.append(markdown_table(standings, categories))
    if settings.limits:
        parts += ["## Limits", "\n".join(f"- {markdown(one)}" for one in settings.limits)]
    parts += ["## What it was made with", _made_with(standings)]
    parts += [
        "## Adding a model",
        "Write one file with `realbench leaderboard add RUN --board . --model NAME`, see that "
        "`realbench leaderboard verify .` is content, and open a pull request with that file "
        "alone. The same table with sorting and filters: [index.html](index.html); as data: "
        "[leaderboard.csv](leaderboard.csv); for a paper: [leaderboard.tex](leaderboard.tex).",
    ]
    return "\n\n".join(parts) + "\n"


def reading(standings: Standings) -> str:
    """Say how ranks and intervals are to be read."""
    by = "realism" if standings.board.settings.rank_by == "realism" else "arena rating"
    found = f"{standings.n_separated:,} of {standings.n_pairs:,} pairs of models are separated"
    if standings.n_pairs == 1:
        found = "the pair of models is" + ("" if standings.n_separated else " not") + " separated"
    rates = [
        {"estimate": value.mean, "low": value.low}
        for row in (*standings.anchors, *standings.rows)
        for column in ("escape_rate", "win_rate")
        if column in standings.columns and (value := row.values.get(column))
    ]
    edge = edge_note(rates)
    return (
        f"Ranked by {by}; below each figure stands its 95 % interval over prompts. Models that the "
        "data cannot separate share a rank: the first number counts the models that are surely "
        "better, plus one, and the second is the last place that the data allow "
        f"(Holm-adjusted p < 0.05; {found})."
        + (f" {edge}" if edge else "")
        + distances_text(standings)
    )


def distances_text(standings: Standings) -> str:
    """Say how distances are to be read; empty where no row has one."""
    n = standings.n_distances
    if not n:
        return ""
    columns = [one for one in standings.columns if one in DISTANCES]
    return (
        f" {listing([title_of(one) for one in columns], len(columns))} are distances of {n:,} "
        f"images of each model from {n:,} photographs, which no detector decides: in the row of "
        "the photographs stands what two halves of them have, and below each figure the ranks "
        "that it allows. They tell subjects apart, too."
    )


def agreement_text(standings: Standings) -> str:
    """Say how far realism and arena rating agree; empty where a board has not both."""
    found = standings.agreement
    if found is None:
        return ""
    one, two = (
        f"{value.mean:.2f}"
        + (f" ({value.low:.2f} to {value.high:.2f})" if value.low is not None else "")
        for value in (found.spearman, found.kendall)
    )
    return (
        f"The order of the {found.spearman.n} models by realism and by arena rating: Spearman's "
        f"rank correlation {one}, Kendall's {two}; 95 % intervals by a bootstrap over models and "
        f"{found.spearman.n_prompts} prompts."
    )


def markdown_table(standings: Standings, columns: Sequence[str]) -> str:
    """Return the table in Markdown, photographs first."""
    lines = [
        "| Rank | Model | n | " + " | ".join(markdown(title_of(one)) for one in columns) + " |",
        "| --: | :-- | --: | " + " | ".join("--:" for _ in columns) + " |",
    ]
    for row in [*standings.anchors, *standings.rows]:
        name = markdown(row.name)
        cells = [ranks_text(row), f"*{name}*" if row.is_anchor else f"**{name}**", _count(row)]
        for column in columns:
            value = row.values.get(column)
            span = below_text(row, column)
            shown = value_text(column, value)
            cells.append(f"{shown}<br><sub>{span}</sub>" if span else shown)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _count(row: Row) -> str:
    """The number of images, or of comparisons where there are no scores."""
    value = row.values.get("realism") or row.values.get("win_rate")
    return f"{value.n}" if value else ""


def _made_with(standings: Standings) -> str:
    settings = standings.board.settings
    suite = settings.suite
    lines = [f"- Prompts: {markdown(suite.name)}, `{suite.sha256[:16]}`"]
    if settings.features is not None:
        features = settings.features
        lines.append(f"- Features: {markdown(features.name)}, `{features.fingerprint[:16]}`")
    for one in settings.detectors:
        prints = ", ".join(f"`{fingerprint[:16]}`" for fingerprint in one.fingerprints)
        part = one.fused
        fused = f", weight {part.weight:g}, offset {part.offset:g}" if part is not None else ""
        lines.append(f"- Detector ({one.level}): {markdown(one.name)}{fused}, {prints}")
    if settings.judge is not None:
        prints = ", ".join(f"`{one[:16]}`" for one in settings.judge.fingerprints)
        lines.append(f"- Judge: {markdown(settings.judge.name)}, {prints}")
    return "\n".join(lines)


def table_csv(standings: Standings) -> bytes:
    """Return ``leaderboard.csv``: a row per anchor and model, all figures with their intervals."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    bounds = [
        one.replace(":", "_") + end
        for one in standings.columns
        for end in ("", "_low", "_high", *(("_rank", "_rank_high") if one in DISTANCES else ()))
    ]
    counts = ["n_images", "n_prompts"]
    writer.writerow(["rank", "rank_high", "model", *_MODEL_FIELDS, *counts, *bounds])
    for row in [*standings.anchors, *standings.rows]:
        model = row.entry.model
        fields = [cell(getattr(model, key) or "") for key in ("name", *_MODEL_FIELDS)]
        realism = row.values.get("realism")
        numbers: list[object] = [realism.n, realism.n_prompts] if realism else ["", ""]
        for column in standings.columns:
            value = row.values.get(column)
            each = (value.mean, value.low, value.high) if value else (None, None, None)
            numbers += ["" if one is None else f"{one:.6f}" for one in each]
            if column in DISTANCES:
                numbers += row.ranks.get(column, ("", ""))
        ranks = ["" if one is None else one for one in (row.rank, row.rank_high)]
        writer.writerow([*ranks, *fields, *numbers])
    return text.getvalue().encode()


def table_tex(standings: Standings) -> str:
    """Return ``leaderboard.tex``, a ``tabular`` with the rules of booktabs."""
    columns = summary_columns(standings)
    heads = " & ".join(latex(title_of(one)) for one in columns)
    lines = [
        "% Made by realbench leaderboard build. Needs \\usepackage{booktabs}.",
        f"\\begin{{tabular}}{{rlr{'r' * len(columns)}}}",
        "\\toprule",
        f"Rank & Model & $n$ & {heads} \\\\",
        "\\midrule",
        *(_tex_line(row, columns) for row in standings.anchors),
        *(["\\midrule"] if standings.anchors and standings.rows else []),
        *(_tex_line(row, columns) for row in standings.rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _tex_line(row: Row, columns: Sequence[str]) -> str:
    cells = [latex(ranks_text(row)), latex(row.name), _count(row)]
    for column in columns:
        value = row.values.get(column)
        span = below_text(row, column)
        shown = latex(value_text(column, value))
        cells.append(f"{shown} {{\\scriptsize ({latex(span)})}}" if span else shown)
    return " & ".join(cells) + r" \\"
