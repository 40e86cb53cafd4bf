"""How a file of guests is to be read, and what its content turns out to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, BinaryIO

import attrs
from cyclopts import Parameter

from thanx_async._core.errors import ConfigurationError, InvalidIdentifierError
from thanx_async.cli._bytes import binary, content
from thanx_async.cli._columns import Fix, check_header, columns_of, described, index_of, picker
from thanx_async.cli._csv import Table, csv_table, is_separator
from thanx_async.cli._excel import excel_table
from thanx_async.cli._items import BLANK, NO_COUNTRY, Unread, holds_guest
from thanx_async.cli._json import json_id, json_item, json_items
from thanx_async.cli._relisted import Relisted
from thanx_async.identifiers import normalise, phone_normalizer


class Format(StrEnum):
    """The format of a file of guests."""

    CSV = "csv"
    LINES = "lines"
    JSONL = "jsonl"


_SUFFIXES = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".tab": Format.CSV,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.JSONL,
}


@Parameter(name="*")
@attrs.frozen
class HowToRead:
    """How a file of guests is read."""

    column: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = ()
    """The column (name or number) or key (JSON lines) of the guest; several: the first that holds one."""
    format: Format | None = None
    """csv, lines or jsonl; by default from the file's name. Workbooks are told by their content."""
    delimiter: str | None = None
    """What is between the cells of a CSV file: a character, or tab; by default found by the header."""
    encoding: str | None = None
    """The encoding of a text file, such as cp1252; by default UTF-8, or what a byte order mark says."""
    sheet: str | None = None
    """The sheet of a workbook, by its name, or its number from 1; by default the only one with cells."""
    country: str | None = None
    """Take phone numbers without a + for numbers of this country, such as US."""


@attrs.frozen
class Input:
    """The guests of a file.

    Attributes:
        items: the guests, `BLANK` for blank rows; pairs of a guest and an id if there is an id column.
        taken: which columns or keys are read, in words.
        first_row: the row of the first item, counted like a spreadsheet.
        header: the names of the columns; empty where there are none.
        left_out: returns how many items are `BLANK` although their rows are not.
        note: what to tell about the rows at the end.
        stream: the file's bytes; None where all were read at once.
    """

    items: Iterator[object]
    taken: str = ""
    first_row: int = 1
    header: Sequence[str] = ()
    left_out: Callable[[], int] = attrs.field(default=int)
    note: Callable[[], str] = attrs.field(default=str)
    stream: BinaryIO | None = None


def opened(file: str, name: str, how: HowToRead, id_column: str | None, stack: ExitStack) -> Input:
    """Open a file, and find out what it is.

    Args:
        file: the file's name, or ``-`` for standard input.
        name: what messages call it.
        how: how it is read.
        id_column: with it, items are pairs of a guest and an id.
        stack: closes the file.

    Raises:
        ConfigurationError: the file can't be read in this way.
    """
    stream = binary(file)
    found = _content(file, stream, name, how, stack, is_table=bool(how.column or id_column))
    is_workbook = isinstance(found, Table) and found.sheet is not None
    return attrs.evolve(_input(found, how, id_column), stream=None if is_workbook else stream)


def _input(found: Table | tuple[Iterator[str], Format], how: HowToRead, id_column: str | None) -> Input:
    if isinstance(found, Table):
        return _of_table(found, how, id_column)
    lines, kind = found
    if kind is Format.JSONL:
        return _of_json(lines, how, id_column)
    for option, given in (("--column", how.column), ("--id-column", id_column)):
        if given:
            raise ConfigurationError(
                f"{option} goes with CSV and JSON lines; this file is read as plain lines"
            )
    fix = _fix(how)
    return Input(_line(line, fix) for line in lines)


def every_value(file: str, name: str, how: HowToRead, stack: ExitStack) -> Iterator[object]:
    """The cells of all columns of a file, the first line as well; only of wanted columns if it has them."""
    found = _content(file, binary(file), name, how, stack, is_table=False)
    fix = _fix(how)
    if isinstance(found, Table):
        rows, wanted = chain([found.header], found.rows), _known(found.header, how.column)
        cells = (cell for row in rows for index, cell in enumerate(row) if not wanted or index in wanted)
        return (fix(cell) if fix else cell for cell in cells)
    lines, kind = found
    if kind is Format.JSONL:
        return json_items(lines, how.column, fix)
    return (_line(line, fix) for line in lines)


def table_again(file: str, how: HowToRead, stack: ExitStack) -> Iterator[list[str]]:
    """The rows of a file with columns, which was opened before in the same way.

    Raises:
        ConfigurationError: it can't be read, or has no columns any more.
    """
    found = _content(file, binary(file), file, how, stack, is_table=bool(how.column))
    if not isinstance(found, Table):
        raise ConfigurationError(f"{file} has no columns any more")
    return Relisted.of(found).table.rows


def _known(header: list[str], columns: Sequence[str]) -> set[int]:
    """The columns that a header has. Numbers are those of another file."""
    found = set()
    for name in columns:
        with suppress(ConfigurationError):
            if not name.strip().isdecimal():
                found.add(index_of(header, name))
    return found


def _content(
    file: str, stream: BinaryIO, name: str, how: HowToRead, stack: ExitStack, *, is_table: bool
) -> Table | tuple[Iterator[str], Format]:
    """The table in a file, or its lines and their format."""
    if file != "-":
        stack.enter_context(stream)
    kind = how.format or _SUFFIXES.get(Path(file).suffix.lower())
    found = content(stream, name, encoding=how.encoding, is_json=kind is Format.JSONL)
    if isinstance(found, tuple):
        if how.delimiter is not None or how.encoding is not None:
            raise ConfigurationError(f"--delimiter and --encoding go with text; {name} is {found[0]}")
        return excel_table(found[1], found[0], name, how.sheet)
    if how.sheet is not None:
        raise ConfigurationError(f"--sheet goes with workbooks; {name} is none")
    if file != "-":
        stack.enter_context(found)
    lines: Iterator[str] = iter(found)
    if kind is None:
        first = next(lines, "")
        kind = Format.CSV if is_table or _is_header(first) else Format.LINES
        lines = chain([first] if first else [], lines)
    if kind is Format.CSV:
        return csv_table(lines, how.delimiter, how.column)
    if how.delimiter is not None:
        raise ConfigurationError(f"--delimiter goes with CSV; this file is read as {kind}")
    return lines, kind


def _is_header(line: str) -> bool:
    """Whether the first line of a file of unknown format is that of a table, as in Excel's Unicode text."""
    return is_separator(line) or ("\t" in line.strip() and not any(map(holds_guest, line.split("\t"))))


def _line(line: str, fix: Fix | None) -> object:
    text = line.rstrip("\r\n")
    if not text or text.isspace():
        return BLANK
    return fix(text) if fix else text


def _of_json(lines: Iterator[str], how: HowToRead, id_column: str | None) -> Input:
    columns, fix = how.column, _fix(how)
    taken = f"key {' or '.join(map(repr, columns))}" if columns else ""
    if id_column is None:
        return Input(json_items(lines, columns, fix), taken)
    pairs = ((json_item(line, columns or ["value"], fix), json_id(line, id_column)) for line in lines)
    return Input(_filled(pairs), taken)


def _of_table(table: Table, how: HowToRead, id_column: str | None) -> Input:
    relisted = Relisted.of(table)
    table, header = relisted.table, relisted.table.header
    check_header(table)
    id_index = None if id_column is None else index_of(header, id_column)
    others = [index for index in range(len(header)) if index != id_index]
    is_clear = id_index is not None and len(others) == 1 and not how.column
    indices = others if is_clear else columns_of(header, how.column)
    pick = picker(table, indices, _fix(how))
    items: Iterator[object]
    if id_index is None:
        items = map(pick, table.rows)
    else:
        pairs = ((pick(row), row[id_index].strip() if id_index < len(row) else "") for row in table.rows)
        items = _filled(pairs)
    return Input(
        items,
        described(table, indices),
        table.first_row,
        header,
        left_out=lambda: relisted.duplicates,
        note=lambda: "; ".join(filter(None, (table.note(), relisted.note()))),
    )


def _filled(pairs: Iterator[tuple[object, str]]) -> Iterator[object]:
    return (BLANK if pair[0] is BLANK else pair for pair in pairs)


def _fix(how: HowToRead) -> Fix | None:
    """A function that makes national numbers international, and says of others that they are not valid."""
    if how.country is None:
        return None
    normalize, country = phone_normalizer(how.country), how.country.upper()

    def fix(text: str) -> object:
        number = normalize(text)
        if number == text and "@" not in text and "+" not in text:
            try:
                return normalise(text)
            except InvalidIdentifierError as error:
                if error.reason.startswith(NO_COUNTRY):
                    return Unread(text, f"not a valid phone number in {country}")
        return number

    return fix
