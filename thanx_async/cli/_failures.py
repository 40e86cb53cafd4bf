"""The CSV file of the guests without a reward (``--failures``)."""

from __future__ import annotations

import csv
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from heapq import merge
from operator import attrgetter
from pathlib import Path
from typing import TextIO

import anyio.to_thread
import attrs

from thanx_async._core.errors import ConfigurationError
from thanx_async._core.escaping import printable
from thanx_async.batcher import GuestRow, IssuancePlan, IssuanceReport
from thanx_async.cli._columns import trimmed
from thanx_async.cli._items import advised
from thanx_async.cli._original import ChangedError, Original
from thanx_async.cli._relisted import DUPLICATE, POSITION, ROW, VALUE, with_added, with_fate
from thanx_async.cli._state import is_own, state_path
from thanx_async.cli._words import amount

_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")  # noqa: RUF001 - spreadsheets take these for the ASCII ones
_DATABASE = b"SQLite format 3\0"
_STDOUT, _STDERR = 1, 2
_MARK = "\ufeff"
"""Without it Excel reads a CSV file in an old encoding."""


@attrs.frozen
class Listed:
    """A guest without a reward, or a row that repeats a guest: its fate and the reason, all as cells."""

    position: int
    value: str
    fate: str
    reason: str


class FailureFile:
    """The file, readable by its owner only.

    It is opened before anything is sent, so that an unusable path stops the run in time, and is emptied only
    when it is written.
    """

    def __init__(self, path: Path, original: Original | None = None) -> None:
        """With ``original``, guests are listed with the columns that they have there."""
        self._path = path
        self._original = original
        try:
            self._is_stream, descriptor = _opened(path)
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
        self._file: TextIO = os.fdopen(descriptor, "w", encoding="utf-8", newline="")

    def write(self, report: IssuanceReport, unsent: Callable[[], Iterable[GuestRow]]) -> str:
        """Write the guests of a run, in input order; returns a line for the user.

        Raises:
            OSError: the file can't be written; the message says why.
        """
        changed = self._write(lambda: _listed(report.failed, report.rejected, report.duplicates, unsent()))
        return _summary(report.counts, self._path) + changed

    def write_plan(self, plan: IssuancePlan) -> str:
        """Write the rows that would get no reward; returns a line for the user.

        Raises:
            OSError: the file can't be written; the message says why.
        """
        changed = self._write(lambda: _listed((), plan.rejected, plan.duplicates, ()))
        count = len(plan.rejected) + len(plan.duplicates)
        return f"{amount(count, 'row')} {_are(count)} listed in {self._path}{changed}"

    def _write(self, listed: Callable[[], Iterator[Listed]]) -> str:
        """Write them; returns what to add to the line for the user."""
        try:
            with self._file as file:
                if self._original is None:
                    self._fill(file, _with_values(listed()))
                    return ""
                with suppress(ChangedError):
                    self._fill(file, _with_columns(self._original, listed))
                    return ""
                changed = f"{self._original.file} has changed since it was read"
                if not self._can_empty():
                    return f"; {changed}, so that the columns may be of other rows"
                self._fill(file, _with_values(listed()))
                return f", without their columns: {changed}"
        except OSError as error:
            raise OSError(f"cannot write {self._path}: {error.strerror}") from None

    def _fill(self, file: TextIO, rows: Iterator[Sequence[object]]) -> None:
        if self._can_empty():
            file.seek(0)
            file.truncate()
        file.write(_MARK)
        csv.writer(file).writerows(rows)
        file.flush()

    def _can_empty(self) -> bool:
        return not self._is_stream and stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)

    def close(self) -> None:
        self._file.close()


def cell(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula.

    An apostrophe marks text in spreadsheets. `Identifier.parse` drops it.
    """
    shown = printable(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def _with_values(listed: Iterable[Listed]) -> Iterator[Sequence[object]]:
    yield with_added(POSITION, [VALUE])
    for row in listed:
        yield with_fate(row.position, [row.value], 1, row.fate, row.reason)


def _with_columns(original: Original, listed: Callable[[], Iterator[Listed]]) -> Iterator[Sequence[object]]:
    """The header, and the rows with the cells that they have in the input."""
    yield with_added(ROW, [cell(name) for name in original.header])
    width, again = len(original.header), original.rows(row.position for row in listed())
    for row, (number, cells) in zip(listed(), again, strict=True):
        yield with_fate(number, [cell(trimmed(text)) for text in cells], width, row.fate, row.reason)


def _listed(
    failed: Iterable[GuestRow],
    rejected: Iterable[GuestRow],
    duplicates: Iterable[GuestRow],
    unsent: Iterable[GuestRow],
) -> Iterator[Listed]:
    """All rows, in the order of the input."""
    kinds = (
        (_guest(row, "failed") for row in sorted(failed, key=attrgetter("position"))),
        map(_rejected, rejected),
        (_guest(row, DUPLICATE) for row in duplicates),
        (_guest(row, "unsent") for row in unsent),
    )
    return merge(*kinds, key=attrgetter("position"))


def _rejected(row: GuestRow) -> Listed:
    return Listed(row.position, cell(row.identifier or ""), "rejected", cell(advised(row.reason)))


def _guest(row: GuestRow, fate: str) -> Listed:
    value = row.identifier or ""
    shown = f"'{value}" if value.startswith("'") else cell(value)
    return Listed(row.position, shown, fate, cell(row.reason))


def _summary(counts: dict[str, int], path: Path) -> str:
    listed = {fate: counts[fate] for fate in ("failed", "rejected", "unsent")}
    count = sum(listed.values())
    text = f"{amount(count, 'guest')} who got no reward {_are(count)} listed in {path}"
    if counts["unsent"]:
        text += f": {', '.join(f'{count:,} {fate}' for fate, count in listed.items())}"
    if duplicates := counts["duplicates"]:
        text += f", and {amount(duplicates, 'row')} that {'repeats' if duplicates == 1 else 'repeat'} a guest"
    if unclear := counts["in_doubt"] + counts["unfinished"]:
        text += f"; {unclear:,} in doubt or unfinished are not, since they may get one"
    return text


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _opened(path: Path) -> tuple[bool, int]:
    """Whether the file is standard output or error, and a descriptor.

    These are not opened a second time: the two descriptors would overwrite each other.
    """
    for stream in (_STDOUT, _STDERR):
        with suppress(OSError):
            if os.path.samestat(path.stat(), os.fstat(stream)):
                return True, os.dup(stream)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and is_own(found) and hasattr(os, "fchmod"):
        os.fchmod(descriptor, 0o600)
    return False, descriptor


@asynccontextmanager
async def failure_file(
    path: Path | None,
    *,
    source: str,
    ledger: Path | None,
    exclude: Path | None = None,
    original: Original | None = None,
) -> AsyncIterator[FailureFile | None]:
    """The file for ``path``, closed at the end. Opened in a thread, because a pipe waits for its reader.

    Raises:
        ConfigurationError: it can't be written, or holds something else that would be lost.
    """
    if path is None:
        yield None
        return
    _check(path, source, ledger)
    if exclude is not None and _is_read_from(path, str(exclude)):
        raise ConfigurationError(f"{path} is the file of guests to leave out; give --failures another file")
    file = await anyio.to_thread.run_sync(partial(FailureFile, path, original), abandon_on_cancel=True)
    try:
        yield file
    finally:
        file.close()


def _check(path: Path, source: str, ledger: Path | None) -> None:
    real = Path(os.path.realpath(path))
    ledgers = {str(ledger), os.path.realpath(ledger)} if ledger else set[str]()
    if _is_read_from(path, source):
        what = "is the file that the guests are read from"
    elif any(_is_same(real, f"{name}{end}") for name in ledgers for end in ("", "-wal", "-shm", "-bodies")):
        what = "is the ledger's"
    elif str(real.parent) == os.path.realpath(state_path()):
        what = "is in the directory of the rate limits and recorded runs"
    elif _is_database(path):
        what = "is a database"
    else:
        return
    raise ConfigurationError(f"{path} {what}; give --failures another file")


def _is_read_from(path: Path, source: str) -> bool:
    try:
        given = os.fstat(sys.stdin.fileno()) if source == "-" else Path(source).stat()
        return os.path.samestat(path.stat(), given)
    except OSError:  # one of them does not exist, or is not a file
        return False


def _is_same(path: Path, other: str) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them does not exist yet
        return str(path) == other


def _is_database(path: Path) -> bool:
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            return False
        with path.open("rb") as file:
            return file.read(len(_DATABASE)) == _DATABASE
    except OSError:  # it cannot be read
        return False
