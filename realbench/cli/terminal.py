"""What commands print: tables whole on any terminal, bars of progress, results as JSON or lines."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from realbench.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Column, Table

    from realbench.cli.options import Output
    from realbench.detection.cards import NetworkCard

P = TypeVar("P")

_LEAST_NAME = len("photographs")  # columns of text that a name is given before it is folded further


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts as they are: a name may look like markup or an emoji."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_table(console: Console, table: Table, *, names: int = 1) -> None:
    """Print a table so that every cell can be read and no number is broken.

    Where it is wider than the console, names are folded; where that is not enough, the columns
    of figures are shared out among several tables, each with the names.

    Args:
        console: Where it is printed.
        table: Cells are ``Text``; a line of a cell that is no name is never broken.
        names: How many columns, from the first, have names and are repeated in each part.
    """
    wanted = [_natural(column) for column in table.columns]
    least = [min(width, _LEAST_NAME) for width in wanted[:names]]
    parts = _shared_out(wanted[names:], console.width - _width(least))
    for number, part in enumerate(parts):
        figures = [names + n for n in part]
        room = console.width - _width([*least, *(wanted[n] for n in figures)])
        widths = _widened(least, wanted[:names], room) + [wanted[n] for n in figures]
        last = number + 1 == len(parts)
        console.print(_part(table, [*range(names), *figures], widths, names, caption=last))


def folded(name: str, width: int) -> str:
    """Return a name in lines of at most ``width`` characters, broken where its parts meet."""
    lines = []
    for line in name.split("\n"):
        rest = line
        while len(rest) > width:
            ends = [found.end() for found in re.finditer(r"[-_/.: ]", rest[:width])]
            # A break in the first third would waste more room than it makes easier to read.
            at = ends[-1] if ends and 3 * ends[-1] >= width else width
            lines.append(rest[:at].rstrip())
            rest = rest[at:]
        lines.append(rest)
    return "\n".join(lines)


def _natural(column: Column) -> int:
    """Return how wide a column's longest line is; of a header that may be folded, its least."""
    from rich.cells import cell_len

    lines = [line for cell in column.cells for line in str(cell).split("\n")]
    if column.overflow != "fold":
        lines += str(column.header).split("\n")
    return max([column.min_width or 1, *map(cell_len, lines)])


def _width(columns: Sequence[int]) -> int:
    return sum(columns) + len(columns) + 1


def _shared_out(widths: Sequence[int], room: int) -> list[list[int]]:
    """Return the columns of each part: as few parts as there is room for, about equally long."""

    def by(most: int) -> list[list[int]]:
        every = range(len(widths))
        return [list(every[start : start + most]) for start in every[::most]]

    def fits(parts: list[list[int]]) -> bool:
        return all(sum(widths[n] + 1 for n in part) <= room for part in parts)

    most = next((n for n in range(len(widths), 1, -1) if fits(by(n))), 1)
    even = -(-len(widths) // max(len(by(most)), 1))
    return (by(even) if fits(by(even)) else by(most)) or [[]]


def _widened(least: Sequence[int], wanted: Sequence[int], room: int) -> list[int]:
    """Share ``room`` among names, one character at a time to the narrowest that wants it."""
    widths = list(least)
    for _ in range(max(room, 0)):
        open_ = [n for n, width in enumerate(widths) if width < wanted[n]]
        if not open_:
            break
        widths[min(open_, key=lambda n: widths[n])] += 1
    return widths


def _part(
    table: Table, columns: Sequence[int], widths: Sequence[int], names: int, *, caption: bool
) -> Table:
    from rich.table import Table
    from rich.text import Text

    part = Table(caption=table.caption if caption else None, box=table.box, padding=0)
    chosen = [table.columns[n] for n in columns]
    for column, width in zip(chosen, widths, strict=True):
        header = Text(folded(str(column.header), width))
        part.add_column(header, justify=column.justify, width=width, overflow="fold")
    cells = [list(column.cells) for column in chosen]
    for number, row in enumerate(table.rows):
        texts = [str(column[number]) for column in cells]
        texts[:names] = [
            folded(text, width) for text, width in zip(texts[:names], widths, strict=False)
        ]
        part.add_row(*map(Text, texts), style=row.style, end_section=row.end_section)
    return part


class StageBar:
    """A bar for work in stages, each with a speed and a total of its own."""

    def __init__(self, bar: Progress, stage: str) -> None:
        self._bar = bar
        self._stage = stage
        self._task = bar.add_task(stage, total=None, rate="")

    @property
    def speed(self) -> float | None:
        """Steps a second of the present stage, None while it is not known."""
        return self._bar.tasks[0].speed

    def enter(self, stage: str, total: int | None) -> None:
        """Begin a stage, unless it is the present one."""
        if stage != self._stage:
            self._stage = stage
            self._bar.reset(self._task, total=total, description=stage, rate="")

    def show(self, done: int, total: int | None, rate: str = "") -> None:
        """Draw how far the stage is, and ``rate`` beside it."""
        self._bar.update(self._task, completed=done, total=total, rate=rate)


@contextlib.contextmanager
def stage_bar(*, shown: bool, stage: str = "", rates: bool = True) -> Iterator[StageBar | None]:
    """Yield a bar with time left; None where it is not wanted, or there is no terminal.

    Args:
        stage: What it says before the first stage is entered.
        rates: Whether there is room for a rate.
    """
    if not shown or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    rate = [TextColumn("{task.fields[rate]}", markup=False)] if rates else []
    name = TextColumn("{task.description}", markup=False)
    columns = [name, BarColumn(), MofNCompleteColumn(), *rate, TimeLeft()]
    with Progress(*columns, console=plain_console(stderr=True), transient=True) as bar:
        yield StageBar(bar, stage)


@contextlib.contextmanager
def progress_bar(
    draw: Callable[[StageBar, P], None], *, shown: bool, stage: str = "", rates: bool = True
) -> Iterator[Callable[[P], None] | None]:
    """Yield a callback that has ``draw`` show a progress; None where :func:`stage_bar` is."""
    with stage_bar(shown=shown, stage=stage, rates=rates) as bar:
        yield None if bar is None else partial(draw, bar)


def figures_table(caption: str) -> Table:
    """Return an empty table for texts and figures, which ``caption`` explains."""
    from rich import box
    from rich.table import Table

    return Table(caption=caption, box=box.SIMPLE_HEAD, padding=0)


def add_texts(table: Table, cells: Iterable[str], **settings: Any) -> None:
    """Add a row of texts, none of which is markup."""
    from rich.text import Text

    table.add_row(*map(Text, cells), **settings)


def show_card(card: NetworkCard, file: Path, output: Output) -> None:
    """Print the file of a card, and its fingerprint or what is missing."""
    missing = card.whats_missing()
    fingerprint = None if missing else card.fingerprint
    state = f"not usable here yet: {missing}" if missing else f"fingerprint {fingerprint}"
    record = card.model_dump(mode="json", exclude_none=True) | {
        "fingerprint": fingerprint,
        "missing": missing or None,
        "folder": printable(card.path),
    }
    lines = [file.read_text(encoding="utf-8").rstrip(), f"\n# {state}\n# in {record['folder']}"]
    output.show(record, lines)
