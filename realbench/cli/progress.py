"""The bar that long commands draw on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from realbench.cli.tables import plain_console

if TYPE_CHECKING:
    from rich.progress import Progress


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
