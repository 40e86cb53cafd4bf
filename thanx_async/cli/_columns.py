"""Finds the columns that hold guests, and takes the guests out of rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from thanx_async._core.errors import ConfigurationError, InvalidIdentifierError
from thanx_async.cli._csv import Table
from thanx_async.cli._items import BLANK, Unread, holds_guest, names
from thanx_async.identifiers import normalise

Fix = Callable[[str], object]
_BLANKS = r"[\s\u00a0\u00ad\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]+"
_UNSEEN = re.compile(_BLANKS)
_ENDS = re.compile(rf"^{_BLANKS}|{_BLANKS}$")


def check_header(table: Table) -> None:
    """Check that the first row names the columns.

    Raises:
        ConfigurationError: there is none, or it holds a guest.
    """
    what = "CSV" if table.sheet is None else f"sheet {table.sheet!r}"
    if any(map(holds_guest, table.header)):
        raise ConfigurationError(
            f"the first line of the {what} holds a guest, not column names: add a header"
            + (", or give --format lines" if table.sheet is None else "")
        )
    if not table.header:
        kind = " file" if table.sheet is None else ""
        raise ConfigurationError(f"the {what}{kind} is empty: its first line must name the columns")


def columns_of(header: list[str], wanted: Sequence[str]) -> list[int]:
    """The indices of the wanted columns, or of the only one.

    Raises:
        ConfigurationError: a column is missing or ambiguous, or none is wanted and there are several.
    """
    if wanted:
        return [index_of(header, name) for name in wanted]
    if len(header) > 1:
        twins = [name for name, count in Counter(header).items() if name and count > 1]
        rename = f"; more than one is called {names(twins)}: rename all but one, to read it" if twins else ""
        raise ConfigurationError(f"say with --column which column to read: {names(header)}{rename}")
    return [0]


def index_of(header: list[str], wanted: str) -> int:
    """The column of this name; of a name that differs in blanks and case only; or of this number, from 1."""
    if not wanted.strip():
        raise ConfigurationError(f"the name of a column is empty; the header names: {names(header)}")
    exact = [index for index, name in enumerate(header) if name == wanted.strip()]
    alike = exact or [index for index, name in enumerate(header) if _key(name) == _key(wanted)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise ConfigurationError(
            f"there is more than one column {wanted!r}: rename all but one of them, or give the number"
        )
    if wanted.strip().isdecimal() and 1 <= int(wanted) <= len(header):
        return int(wanted) - 1
    raise ConfigurationError(f"there is no column {wanted!r}; the header names: {names(header)}")


def _key(name: str) -> str:
    return _UNSEEN.sub("", name).casefold()


def trimmed(text: str) -> str:
    """The text without blanks and invisible characters at its ends, which a list would show as escapes."""
    return _ENDS.sub("", text)


def described(table: Table, indices: Sequence[int]) -> str:
    """Which columns are read, in words."""
    taken = (repr(table.header[index]) if table.header[index] else f"number {index + 1}" for index in indices)
    return f"column {' or '.join(taken)}" + (f" in sheet {table.sheet!r}" if table.sheet is not None else "")


def picker(table: Table, indices: Sequence[int], fix: Fix | None) -> Callable[[list[str]], object]:
    """A function that returns the guest of a row, `BLANK` or an `Unread`.

    Args:
        indices: the columns; the first one that holds a guest counts.
        fix: is applied to each cell that is read, and may return an `Unread`.
    """
    width, (first, *others) = len(table.header), indices

    def pick(row: list[str]) -> object:
        cell = row[first] if first < len(row) else ""
        if len(row) > width and any(map(str.strip, row[width:])):
            return Unread(", ".join(row), "the row has more cells than the header: does a value need quotes?")
        if not others and cell and not cell.isspace():
            return fix(cell) if fix else cell
        if not any(map(str.strip, row)):
            return BLANK
        cells = [cell, *(row[index] for index in others if index < len(row))]
        return first_guest(cells, fix) if others else cell

    return pick


def first_guest(cells: Sequence[object], fix: Fix | None) -> object:
    """The first cell that holds a guest, or else the first one that is not empty."""
    filled = [cell for cell in cells if not isinstance(cell, str) or cell.strip()]
    fixed = [fix(cell) if fix and isinstance(cell, str) else cell for cell in filled]
    return next(filter(_is_guest, fixed), fixed[0] if fixed else "")


def _is_guest(item: object) -> bool:
    try:
        normalise(item)
    except InvalidIdentifierError:
        return False
    return True
