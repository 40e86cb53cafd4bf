"""The columns that ``--failures`` adds to those of the input, and how a list that is issued again is read."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from thanx_async.cli._csv import Table
from thanx_async.cli._words import amount

ROW, POSITION, VALUE, FATE, REASON = "row", "position", "value", "fate", "reason"
DUPLICATE = "duplicate"
_ADDED = 3


def with_added(place: str, names: list[str]) -> list[str]:
    """The header of a list: the place of a guest, the columns, and what became of the guest."""
    return [place, *names, FATE, REASON]


def with_fate(place: int, cells: list[str], width: int, fate: str, reason: str) -> list[object]:
    """A row of a list. Cells that the header has no name for come last."""
    filled = cells[:width] + [""] * (width - len(cells))
    return [place, *filled, fate, reason, *cells[width:]]


@attrs.define
class Relisted:
    """A table, without what was added if it is a list.

    Rows whose fate is still ``duplicate`` are made blank: their guests are in another row, or have a reward.

    Attributes:
        table: the table as it was before guests were listed.
        duplicates: how many rows were made blank so far.
    """

    table: Table
    duplicates: int = 0

    @classmethod
    def of(cls, table: Table) -> Relisted:
        """Look at the header."""
        header = table.header
        is_list = header[:1] in ([ROW], [POSITION]) and header[-2:] == [FATE, REASON]
        if not is_list or len(header) <= _ADDED:
            return cls(table)
        found = cls(table)
        found.table = attrs.evolve(table, header=header[1:-2], rows=found._bare(table.rows))
        return found

    def note(self) -> str:
        """What to tell of the rows that were made blank."""
        if not self.duplicates:
            return ""
        rows = f"{amount(self.duplicates, 'row')} {'was' if self.duplicates == 1 else 'were'}"
        return f"{rows} left out: the fate there is {DUPLICATE}; empty that cell to issue to the guest"

    def _bare(self, rows: Iterator[list[str]]) -> Iterator[list[str]]:
        for row in rows:
            width = len(self.table.header)
            if row[width + 1 : width + 2] == [DUPLICATE]:
                self.duplicates += 1
                yield []
            else:
                yield row[1 : width + 1] + row[width + _ADDED :]
