"""Draws the figures of a run, or of the reading of a file, for the width of the terminal."""

from __future__ import annotations

from datetime import timedelta

import attrs
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from thanx_async._core.escaping import printable
from thanx_async.cli._figures import Figures, Phase
from thanx_async.cli._words import amount, clock

_WIDEST, _WIDE, _MIDDLE = 120, 100, 64
_NOTICE = "yellow"


@attrs.frozen
class Bars:
    """Two bars, guests accepted and guests rewarded, and a line for whatever the run waits for.

    Where the total is not known, there are counts in place of the bars.
    """

    figures: Figures

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # The last column stays free: a terminal echoes ^C behind the last line.
        width, figures = min(options.max_width - 1, _WIDEST), self.figures
        parts: list[RenderableType] = [Text(_summary(figures))]
        if figures.accepted.due is not None:
            parts.append(_grid((figures.accepted, figures.rewarded), width))
            parts += map(Text, _below(figures, width))
        if figures.notice:
            parts.append(Text(printable(figures.notice), style=_NOTICE))
        yield Constrain(Group(*parts), width)


@attrs.frozen
class Reading:
    """How far a file is read.

    Attributes:
        name: the file's name.
        read: the number of guests so far.
        share: the part of the file that is read, from 0 to 1; None if its size is not known.
    """

    name: str
    read: int
    share: float | None = None

    def __str__(self) -> str:
        percent = "" if self.share is None else f" ({self.share * 100:.0f} % of {self.name})"
        return f"{self.read:,} read{percent}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts: list[RenderableType] = [Text(printable(str(self)))]
        if self.share is not None:
            grid = Table.grid(expand=True)
            grid.add_row(ProgressBar(100, self.share * 100))
            parts.append(grid)
        yield Constrain(Group(*parts), min(options.max_width - 1, _WIDEST))


def _summary(figures: Figures) -> str:
    counts = figures.counts
    parts = [f"{counts.read:,} read", amount(counts.jobs, "job")]
    if figures.accepted.due is None:
        parts[1:1] = [f"{counts.accepted:,} accepted", f"{counts.rewarded:,} rewarded"]
    if counts.rejected:
        parts.append(f"{counts.rejected:,} rejected")
    if counts.duplicates:
        parts.append(amount(counts.duplicates, "duplicate"))
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    return ", ".join([*parts, str(timedelta(seconds=int(figures.elapsed)))])


def _grid(phases: tuple[Phase, ...], width: int) -> Table:
    """The bars; what does not fit beside them comes below."""
    grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    beside = _beside(width)
    for _ in beside:
        grid.add_column(no_wrap=True, justify="right")
    for phase in phases:
        bar = ProgressBar(phase.due or 1, phase.done if phase.due else 1)
        grid.add_row(phase.name, bar, *(_cell(phase, what) for what in beside))
    return grid


def _beside(width: int) -> list[str]:
    if width >= _WIDE:
        return ["percent", "count", "rate", "end"]
    return ["percent", "count", "rate"] if width >= _MIDDLE else ["percent"]


def _cell(phase: Phase, what: str) -> str:
    match what:
        case "percent":
            return f"{phase.percent} %"
        case "count":
            return f"{phase.done:,} of {phase.due:,}"
        case "rate":
            return "" if phase.rate is None else f"{phase.rate:,.0f}/s"
    return "" if phase.end is None else f"by {clock(phase.end)}"


def _below(figures: Figures, width: int) -> list[str]:
    """The lines below the bars."""
    lines = []
    if width < _MIDDLE:
        for phase in (figures.accepted, figures.rewarded):
            rate = _cell(phase, "rate")
            lines.append(f"{phase.name} {_cell(phase, 'count')}" + (f", {rate}" if rate else ""))
    if width < _WIDE and figures.ends:
        lines.append(figures.ends)
    return lines
