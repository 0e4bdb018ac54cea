"""Prints tables of figures whole on any terminal: split into parts rather than cropped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

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
    """Return how wide a table of these columns is: a space beside each."""
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
