"""What changed between two states of a board, in ranks and scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from realbench.leaderboard.figures import code
from realbench.leaderboard.schema import Estimate, Name, Strict, Text
from realbench.leaderboard.standings import Row, Standings
from realbench.leaderboard.tables import ranks_text, span_text, title_of, value_text
from realbench.report.wording import count
from realbench.text import printable

_ARROW = " → "


class Place(Strict):
    """Where a model stood."""

    rank: int = Field(ge=1)
    rank_high: int = Field(ge=1)
    value: Estimate


class Change(Strict):
    """A model before and after; None where it was not on the board."""

    model: Name
    before: Place | None
    after: Place | None


class BoardDiff(Strict):
    """The changes of one board, and its new order.

    It is plain data: whoever shows it escapes its names, so it may come from a stranger.
    """

    board: Text
    rank_by: Literal["realism", "arena"]
    n_before: int = Field(ge=0)
    n_after: int = Field(ge=0)
    changes: list[Change] = Field(max_length=5000)


def diff_boards(before: Standings | None, after: Standings) -> BoardDiff:
    """Compare two states of a board; ``before`` is None for a new one."""
    by = after.board.settings.rank_by
    old = {row.slug: row for row in before.rows} if before else {}
    new = {row.slug: row for row in after.rows}
    changes = []
    for key in [*new, *(key for key in old if key not in new)]:
        was, is_ = _place(old.get(key), by), _place(new.get(key), by)
        if was != is_ and not _only_more(was, is_, len(new) - len(old)):
            changes.append(Change(model=(new.get(key) or old[key]).name, before=was, after=is_))
    # What came and went first, then what it moved.
    changes.sort(key=lambda one: one.before is not None and one.after is not None)
    return BoardDiff(
        board=after.board.settings.title,
        rank_by=by,
        n_before=len(old),
        n_after=len(new),
        changes=changes,
    )


def _only_more(was: Place | None, is_: Place | None, more: int) -> bool:
    """Whether all that changed is the number of models that cannot be told from this one."""
    if was is None or is_ is None:
        return False
    same = was.rank == is_.rank and was.value == is_.value
    return same and is_.rank_high - was.rank_high == more


def _place(row: Row | None, by: str) -> Place | None:
    if row is None or row.rank is None or row.rank_high is None or by not in row.values:
        return None
    return Place(rank=row.rank, rank_high=row.rank_high, value=row.values[by])


def diff_text(diff: BoardDiff) -> str:
    """Return the changes for a terminal, a line each."""
    board = printable(diff.board)
    if not diff.changes:
        return f"{board}: nothing changed ({count(diff.n_after, 'model')})"
    head = f"{board}: {_summary(diff)}"
    lines = [f"  {_what(one)}{one.model}: {_words(one, diff.rank_by)}" for one in diff.changes]
    return "\n".join([head, *lines])


def diff_markdown(diff: BoardDiff) -> str:
    """Return the changes as Markdown for a pull request's comment."""
    parts = [f"### {code(diff.board)}"]
    if not diff.changes:
        return f"{parts[0]}\n\nNothing changes in the table ({count(diff.n_after, 'model')})."
    parts.append(f"{_summary(diff).capitalize()}.")
    title = title_of(diff.rank_by)
    lines = [f"| | Model | Rank | {title} | 95 % interval |", "| :-- | :-- | --: | --: | --: |"]
    for one in diff.changes:
        shown = one.after or one.before
        cells = [
            _what(one).rstrip(": ").strip(),
            code(one.model),
            _pair(one, ranks_text),
            _pair(one, lambda place: value_text(diff.rank_by, place.value)),
            span_text(diff.rank_by, shown.value) if shown else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _summary(diff: BoardDiff) -> str:
    new = sum(one.before is None for one in diff.changes)
    gone = sum(one.after is None for one in diff.changes)
    moved = len(diff.changes) - new - gone
    counts = [(new, "new"), (gone, "removed"), (moved, "changed in rank or score")]
    said = ", ".join(f"{n} {word}" for n, word in counts if n)
    return f"{said}; {count(diff.n_before, 'model')} before, {diff.n_after} after"


def _what(change: Change) -> str:
    if change.before is None:
        return "new: "
    return "removed: " if change.after is None else ""


def _pair(change: Change, show: Callable[[Place], str]) -> str:
    each = [show(place) for place in (change.before, change.after) if place is not None]
    return each[0] if len(set(each)) == 1 else _ARROW.join(each)


def _words(change: Change, by: str) -> str:
    rank = _pair(change, ranks_text)
    value = _pair(change, lambda place: value_text(by, place.value))
    shown = change.after or change.before
    span = span_text(by, shown.value) if shown else ""
    return f"rank {rank}, {title_of(by).lower()} {value}" + (f" ({span})" if span else "")
