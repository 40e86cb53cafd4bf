"""Rows of Excel workbooks and OpenDocument spreadsheets."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from thanx_async._core.errors import ConfigurationError
from thanx_async._core.extras import MissingExtraError
from thanx_async.cli._csv import Table, table_of
from thanx_async.cli._items import names
from thanx_async.cli._kinds import Workbook

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook


def excel_table(data: bytes, kind: Workbook, name: str, sheet: str | None) -> Table:
    """The table in a sheet.

    Args:
        sheet: its name or number; None takes the only visible one that has cells.

    Raises:
        MissingExtraError: the extra is not installed.
        ConfigurationError: the workbook can't be read, or the sheet is not clear.
    """
    try:
        import python_calamine as calamine
    except ImportError as error:
        raise MissingExtraError(
            f"{name} is {kind}, for which an extra is needed: run pip install 'thanx-async[excel]'"
        ) from error
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        found = (
            _only_filled(book) if sheet is None else book.get_sheet_by_index(_index(book.sheet_names, sheet))
        )
        return attrs.evolve(table_of(_rows(found)), sheet=found.name)
    except calamine.CalamineError as error:
        raise ConfigurationError(f"cannot read {name}, {kind}: {error}") from error


def _only_filled(book: CalamineWorkbook) -> CalamineSheet:
    from python_calamine import SheetTypeEnum, SheetVisibleEnum

    shown = [
        number
        for number, sheet in enumerate(book.sheets_metadata)
        if sheet.visible == SheetVisibleEnum.Visible and sheet.typ == SheetTypeEnum.WorkSheet
    ]
    filled = [sheet for sheet in map(book.get_sheet_by_index, shown) if sheet.total_height]
    if len(filled) == 1:
        return filled[0]
    if filled:
        raise ConfigurationError(
            f"say with --sheet which sheet to read: {names([sheet.name for sheet in filled])}"
        )
    raise ConfigurationError(f"the workbook is empty; its sheets: {names(book.sheet_names)}")


def _index(every: list[str], wanted: str) -> int:
    same = [number for number, name in enumerate(every) if name == wanted]
    same = same or [number for number, name in enumerate(every) if _key(name) == _key(wanted)]
    if len(same) == 1:
        return same[0]
    if not same and wanted.strip().isdecimal() and 1 <= int(wanted) <= len(every):
        return int(wanted) - 1
    raise ConfigurationError(f"there is no sheet {wanted!r}; the workbook has: {names(every)}")


def _key(name: str) -> str:
    return name.strip().casefold()


def _rows(sheet: CalamineSheet) -> Iterator[list[str]]:
    """All rows from the first of the sheet, each from its first column on."""
    before = [""] * (sheet.start[1] if sheet.start else 0)
    return (before + list(map(_text, row)) for row in sheet.iter_rows())


def _text(cell: object) -> str:
    """A cell as a person sees it in the sheet."""
    match cell:
        case str():
            return cell
        case bool():
            return "TRUE" if cell else "FALSE"
        case float():
            return f"{cell:.0f}" if cell.is_integer() and abs(cell) < 1e15 else f"{cell:.15g}"
        case datetime.datetime(hour=0, minute=0, second=0):
            return cell.date().isoformat()
        case datetime.datetime():
            return cell.isoformat(" ")
    return str(cell)
