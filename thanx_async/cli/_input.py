"""Read guests from a file, off the event loop."""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from enum import StrEnum
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NoReturn, TextIO

import anyio.to_thread
import attrs
import orjson

from thanx_async._core.errors import ConfigurationError, InvalidIdentifierError

_SLICE = 2_000
# Broader than valid guests: neither a header nor a line of a note looks like this.
_GUEST = re.compile(r"\S+@\S+|^[\s+().\-/]*(?:\d[\s+().\-/]*){7,}$")
_SHOWN, _LONGEST = 10, 40
_HEAD = 100
_NO_JSON = (orjson.JSONDecodeError, UnicodeEncodeError)
_NO_UTF8 = re.compile(r"[\udc80-\udcff]")
_PAIR = re.compile(r'\[\s*"')
_MEMBER = re.compile(r',?\s*"[^"]*"\s*:')
_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "an array", dict: "an object"}
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


class Format(StrEnum):
    """The format of a file of guests."""

    CSV = "csv"
    LINES = "lines"
    JSONL = "jsonl"


class GuestFile:
    """A file of guests, or standard input (``-``). It is opened, and its header checked, at once.

    Raises:
        ConfigurationError: the file or the column is missing; the message lists the columns.
    """

    def __init__(
        self,
        name: str,
        *,
        column: str | None,
        format: Format | None,  # noqa: A002 - the option's name
        id_column: str | None = None,
    ) -> None:
        """With ``id_column``, items are pairs of a guest and an id."""
        self._name = "standard input" if name == "-" else name
        self._is_ended = False
        self._stack = ExitStack()
        self._kind = format or Format(_SUFFIXES.get(Path(name).suffix.lower(), "csv" if column else "lines"))
        try:
            text = self._open(name)
            self._items = (
                _items(text, self._kind, column)
                if id_column is None
                else _pairs(text, self._kind, column, id_column)
            )
        except BaseException:
            self.close()
            raise

    def _open(self, name: str) -> TextIO:
        # Bytes that are not UTF-8 are kept, so that only guests with such bytes are rejected.
        if not name:
            raise ConfigurationError("FILE is empty; - reads standard input")
        if name == "-":
            return io.TextIOWrapper(
                sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape", newline=""
            )
        try:
            file = self._stack.enter_context(Path(name).open("rb"))  # noqa: SIM115 - the stack closes it
            if file.peek(2)[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
                raise ConfigurationError(f"cannot read {name}, which is in UTF-16: save it as UTF-8")
        except OSError as error:
            raise ConfigurationError(f"cannot read {name}: {error.strerror}") from error
        return self._stack.enter_context(
            io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        )

    def close(self) -> None:
        self._stack.close()

    async def __aiter__(self) -> AsyncIterator[object]:
        while items := await anyio.to_thread.run_sync(self._slice, abandon_on_cancel=True):
            for item in items:
                yield item
        self._is_ended = True

    def unread(self, count: int) -> str:
        """What to say if only the first ``count`` rows were read, "" if the file was read to its end."""
        if self._is_ended:
            return ""
        header = ", not counting the header" if self._kind is Format.CSV else ""
        return f"read up to row {count:,} of {self._name}{header}; nothing after it was sent or listed"

    def _slice(self) -> list[object]:
        return list(islice(self._items, _SLICE))


@asynccontextmanager
async def reading(
    name: str,
    *,
    column: str | None,
    format: Format | None,  # noqa: A002 - the option's name
    id_column: str | None = None,
) -> AsyncIterator[GuestFile]:
    """The file, opened in a thread because opening a pipe waits for its writer."""
    opening = partial(GuestFile, name, column=column, format=format, id_column=id_column)
    file = await anyio.to_thread.run_sync(opening, abandon_on_cancel=True)
    try:
        yield file
    finally:
        file.close()


def _items(text: TextIO, kind: Format, column: str | None) -> Iterator[object]:
    if kind is Format.CSV:
        return _csv_items(text, column)
    if kind is Format.JSONL:
        return _json_items(text, column)
    if column:
        raise ConfigurationError("--column goes with CSV and JSON lines; this file is read as plain lines")
    return (line.rstrip("\r\n") for line in text)


def _pairs(text: TextIO, kind: Format, column: str | None, id_column: str) -> Iterator[object]:
    """Pairs of a guest and an id; the id is "" where there is none."""
    if kind is Format.CSV:
        rows, header = _csv_table(text)
        others = [name for name in header if name != id_column]
        guest = _csv_index(header, column or (others[0] if len(others) == 1 else None))
        id_index = _csv_index(header, id_column)
        return ((_cell(row, guest), _cell(row, id_index).strip()) for row in rows)
    if kind is Format.JSONL:
        return ((_json_item(line, column or "value"), _json_id(line, id_column)) for line in text)
    raise ConfigurationError("--id-column goes with CSV and JSON lines; this file is read as plain lines")


def _json_id(line: str, key: str) -> str:
    item = _parsed(line)
    found = item.get(key) if isinstance(item, dict) else None
    return str(found) if isinstance(found, str | int) else ""


def _csv_items(text: TextIO, column: str | None) -> Iterator[object]:
    rows, header = _csv_table(text)
    index = _csv_index(header, column)
    return (_cell(row, index) for row in rows)


def _cell(row: list[str], index: int) -> str:
    return row[index] if index < len(row) else ""


def _csv_table(text: TextIO) -> tuple[Iterator[list[str]], list[str]]:
    """The rows after the header, and the header."""
    rows = _csv_rows(text)
    header = [name.strip() for name in next(filter(None, rows), [])]
    if any(map(_GUEST.search, header)):
        raise ConfigurationError(
            "the first line of the CSV holds a guest, not column names: add a header, or give --format lines"
        )
    if not header:
        raise ConfigurationError("the CSV file is empty: its first line must name the columns")
    return rows, header


def _csv_index(header: list[str], column: str | None) -> int:
    if column is None and len(header) > 1:
        twins = [name for name, count in Counter(header).items() if name and count > 1]
        rename = f"; more than one is called {_names(twins)}: rename all but one, to read it" if twins else ""
        raise ConfigurationError(f"say with --column which column to read: {_names(header)}{rename}")
    if column is not None and column not in header:
        raise ConfigurationError(f"there is no column {column!r}; the header names: {_names(header)}")
    if column is not None and header.count(column) > 1:
        raise ConfigurationError(f"there is more than one column {column!r}: rename all but one of them")
    return header.index(column) if column else 0


def _names(header: list[str]) -> str:
    """The names of the columns, shortened."""
    shown = [name[:_LONGEST] for name in header[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(header) - _SHOWN:,} more" if len(header) > _SHOWN else "")


def _csv_rows(text: TextIO) -> Iterator[list[str]]:
    """The rows, with the separator that the first line has most of.

    Spreadsheets write semicolons in locales where the comma is the decimal point.
    """
    first = text.readline()
    separator = max(",;\t", key=re.sub('"[^"]*"', "", first).count)
    rows = csv.reader(chain([first], text), delimiter=separator)
    begin = 1
    try:
        for row in rows:
            if rows.line_num > begin and any(_swallows(cell, separator) for cell in row):
                raise ConfigurationError(
                    f"a quote in line {begin:,} of the CSV ends in line {rows.line_num:,}, or not at all;"
                    " there are guests in between"
                )
            yield row
            begin = rows.line_num + 1
    except csv.Error as error:
        raise ConfigurationError(
            f"line {rows.line_num:,} of the CSV cannot be read ({error}): is a quote not closed?"
        ) from None


def _swallows(cell: str, separator: str) -> bool:
    """Whether the further lines of a quoted cell look like rows of their own."""
    return any(
        _GUEST.fullmatch(part.strip()) for line in cell.splitlines()[1:] for part in line.split(separator)
    )


@attrs.frozen
class _Unread(Mapping[str, object]):
    """A line without a guest: its text is the line, and reading its keys raises the reason."""

    _line: str = attrs.field(repr=False)
    _reason: str

    def __getitem__(self, key: str) -> object:
        raise InvalidIdentifierError(self._reason)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __str__(self) -> str:
        return self._line.strip()


def _json_items(text: TextIO, column: str | None) -> Iterator[object]:
    lines = list(islice(text, _HEAD))
    items = [item for item in map(_parsed, lines) if item is not None]
    full = list(filter(None, map(str.strip, lines)))
    if full and full[0].startswith("[") and not (_PAIR.match(full[0]) and any(map(_is_pair, items))):
        raise ConfigurationError(
            "the file is one JSON array; write each guest on its own line (jq -c '.[]' does it)"
        )
    if len(full) > 1 and full[0].startswith("{") and _MEMBER.match(full[1]):
        raise ConfigurationError(
            "the first JSON object spans several lines; write one object per line (jq -c . does it)"
        )
    objects = [item for item in items if isinstance(item, dict) and item]
    if objects and not any((column or "value") in item for item in objects):
        _refuse_keys(list(objects[0]), column)
    return (_json_item(line, column) for line in chain(lines, text))


def _parsed(line: str) -> object:
    with suppress(*_NO_JSON):
        return orjson.loads(line)
    return None


def _refuse_keys(keys: list[str], column: str | None) -> NoReturn:
    if any(map(_GUEST.search, keys)):
        raise ConfigurationError(
            "the keys of the first JSON object are guests, not names: write each guest on its own line"
        )
    if column is None:
        raise ConfigurationError(f"say with --column which key holds the guest: {_names(keys)}")
    raise ConfigurationError(f"there is no key {column!r}; the keys of the first object: {_names(keys)}")


def _is_pair(item: object) -> bool:
    return isinstance(item, list) and item[:1] in (["email"], ["phone"])


def _json_item(line: str, column: str | None) -> object:
    try:
        item: object = orjson.loads(line)
    except _NO_JSON:
        what = "UTF-8" if _NO_UTF8.search(line) else "valid JSON"
        return _Unread(line, f"the line is not {what}") if line.strip() else ""
    held = item.get(column) if column and isinstance(item, dict) else item
    if isinstance(held, str):
        return held
    if isinstance(held, dict):
        value = held.get("value")
    else:
        value = held[-1] if isinstance(held, list) and len(held) == 2 else None
    return held if isinstance(value, str) else _Unread(line, _reason(item, column or "value"))


def _reason(item: object, key: str) -> str:
    where = "the line"
    if isinstance(item, dict):
        if key not in item:
            return f"there is no key {key!r}"
        where, item = f"the key {key!r}", item[key]
    return f"{where} is null" if item is None else f"{where} is {_KINDS[type(item)]}, not text"
