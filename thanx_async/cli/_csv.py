"""Rows of CSV as spreadsheets, shops and CRMs write it. Pure: takes lines, does no I/O of its own."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import attrs

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._items import is_like_guest
from thanx_async.cli._words import amount

_MARKS = ",;\t|"
_CALLED = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " "}
_SEP = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
_WORD = re.compile(r"\w")
_MOST_HEADER_LINES = 50
_END = "\0the end"


@attrs.define
class Table:
    """Rows of cells, of which the first one that is not blank is the header.

    Attributes:
        header: the names of the columns.
        rows: the rows after the header; blank ones as well.
        first_row: the number of the first of them as a spreadsheet counts, from 1.
        note: what to tell at the end about the rows.
        sheet: the sheet's name, None for CSV.
    """

    header: list[str]
    rows: Iterator[list[str]]
    first_row: int
    note: Callable[[], str] = attrs.field(default=str)
    sheet: str | None = None


def is_separator(line: str) -> bool:
    """Whether a line is the one by which Excel tells the delimiter."""
    return _SEP.fullmatch(line) is not None


def table_of(rows: Iterator[list[str]], note: Callable[[], str] = str) -> Table:
    """The table in these rows; the header is [] if all are blank."""
    for number, row in enumerate(rows, 1):
        if any(map(_WORD.search, row)):
            return Table([name.strip() for name in row], rows, number + 1, note)
    return Table([], iter(()), 1, note)


def csv_table(lines: Iterator[str], delimiter: str | None, columns: Sequence[str]) -> Table:
    """The table in the lines of a CSV file.

    Args:
        lines: the physical lines, with their ends.
        delimiter: what is between the cells; None finds it by the header.
        columns: names that the header should have; they tell the delimiter where it is ambiguous.

    Raises:
        ConfigurationError: the delimiter is no single character.
    """
    mark = None if delimiter is None else _delimiter(delimiter)
    skipped = 0
    head = _header_lines(lines)
    if head and (declared := _SEP.fullmatch(head[0])):  # Excel writes and hides this line
        mark = mark or declared[1]
        skipped, head = 1, head[1:] or _header_lines(lines)
    mark = mark or _guessed("".join(head), columns)
    rows = _Rows(chain(head, lines), mark, skipped)
    return table_of(rows.read(), rows.note)


def _delimiter(given: str) -> str:
    mark = _CALLED.get(given.strip().lower(), given)
    if len(mark) != 1 or mark in '"\r\n':
        raise ConfigurationError(
            f"--delimiter must be one character, or tab, comma, semicolon or pipe, not {given!r}"
        )
    return mark


def _header_lines(lines: Iterator[str]) -> list[str]:
    """Blank lines, and the lines of the first record with a word in it: a quoted name may have several."""
    head: list[str] = []
    for line in lines:
        head.append(line)
        if is_separator(line):
            break
        if _WORD.search("".join(head)) and "".join(head).count('"') % 2 == 0:
            break
        if len(head) == _MOST_HEADER_LINES:
            break
    return head


def _guessed(header: str, columns: Sequence[str]) -> str:
    """The delimiter of a header: one that yields the wanted names, a tab, or the most frequent.

    `csv.Sniffer` takes letters for delimiters in lists of addresses.
    """
    if header.count('"') % 2:  # an inch sign, for instance
        header = header.lstrip().partition("\n")[0]
    bare, lines = _QUOTED.sub("", header), header.splitlines(keepends=True)
    wanted = {_key(name) for name in columns}

    def rank(mark: str) -> tuple[bool, bool, int]:
        names = chain.from_iterable(csv.reader(lines, delimiter=mark, skipinitialspace=True))
        return bool(wanted & set(map(_key, names))), mark == "\t" and "\t" in bare.strip(), bare.count(mark)

    return max(_MARKS, key=rank)


def _key(name: str) -> str:
    return name.strip().casefold()


class _Rows:
    """Reads rows, and sees to quotes that swallow other rows."""

    def __init__(self, lines: Iterator[str], mark: str, skipped: int) -> None:
        self._mark = mark
        self._skipped = skipped
        # With a last line of our own the reader can't take the end of the file for the end of a quote.
        self._reader = csv.reader(chain(lines, [_END]), delimiter=mark, skipinitialspace=True)
        self._long = 0
        self._first_long = ""

    def read(self) -> Iterator[list[str]]:
        begin, row = 1, [""]
        try:
            for row in self._reader:
                if self._reader.line_num > begin:
                    self._check(row, begin)
                begin = self._reader.line_num + 1
                if row[-1:] == [_END] and len(row) == 1:
                    return
                yield row
        except csv.Error as error:
            limit = csv.field_size_limit()
            what = f"a cell has more than {limit:,} characters" if "field limit" in str(error) else str(error)
            raise ConfigurationError(
                f"line {begin + self._skipped:,} of the CSV cannot be read ({what}): is a quote not closed?"
            ) from None

    def note(self) -> str:
        """What to tell about rows of several lines."""
        rows = f"{amount(self._long, 'row')} of the CSV {'has' if self._long == 1 else 'have'}"
        return f"{rows} several lines within quotes, first {self._first_long}" if self._long else ""

    def _check(self, row: list[str], begin: int) -> None:
        first, last = begin + self._skipped, self._reader.line_num + self._skipped
        if row[-1].endswith(_END):
            raise ConfigurationError(f"a quote in line {first:,} of the CSV is not closed")
        if any(map(self._swallows, row)):
            raise ConfigurationError(
                f"a quote in line {first:,} of the CSV ends in line {last:,}, or not at all;"
                " there are guests in between"
            )
        self._long += 1
        self._first_long = self._first_long or f"in lines {first:,} to {last:,}"

    def _swallows(self, cell: str) -> bool:
        """Whether the further lines of a quoted cell look like rows of their own."""
        return any(is_like_guest(part) for line in cell.splitlines()[1:] for part in line.split(self._mark))
