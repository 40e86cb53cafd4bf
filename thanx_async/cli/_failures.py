"""The CSV file of the guests without a reward (``--failures``)."""

from __future__ import annotations

import csv
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from heapq import merge
from operator import attrgetter
from pathlib import Path
from typing import TextIO

import anyio.to_thread

from thanx_async._core.errors import ConfigurationError
from thanx_async._core.escaping import printable
from thanx_async.batcher import GuestRow, IssuanceReport
from thanx_async.cli._items import advised
from thanx_async.cli._state import is_own, state_path

_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")  # noqa: RUF001 - spreadsheets take these for the ASCII ones
_DATABASE = b"SQLite format 3\0"
_STDOUT, _STDERR = 1, 2


class FailureFile:
    """The file, readable by its owner only.

    It is opened before anything is sent, so that an unusable path stops the run in time, and is emptied only
    when it is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._is_stream, descriptor = _opened(path)
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
        self._file: TextIO = os.fdopen(descriptor, "w", encoding="utf-8", newline="")

    def write(self, report: IssuanceReport, unsent: Iterable[GuestRow]) -> str:
        """Write the guests, in input order; returns a line for the user.

        Raises:
            OSError: the file can't be written; the message says why.
        """
        rows = csv.writer(self._file)
        try:
            with self._file as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and not self._is_stream:
                    file.truncate(0)
                rows.writerow(("position", "value", "reason"))
                rejected = map(_rejected, report.rejected)
                sent = (_guest(row) for row in sorted(report.failed, key=attrgetter("position")))
                listed = merge(sent, rejected, map(_guest, unsent))
                rows.writerows((position, value, cell(reason)) for position, value, reason in listed)
        except OSError as error:
            raise OSError(f"cannot write {self._path}: {error.strerror}") from None
        return _summary(report.counts, self._path)

    def close(self) -> None:
        self._file.close()


def cell(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula.

    An apostrophe marks text in spreadsheets. `Identifier.parse` drops it.
    """
    shown = printable(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def _rejected(row: GuestRow) -> tuple[int, str, str]:
    return row.position, cell(row.identifier or ""), advised(row.reason)


def _guest(row: GuestRow) -> tuple[int, str, str]:
    value = row.identifier or ""
    return row.position, f"'{value}" if value.startswith("'") else cell(value), row.reason


def _summary(counts: dict[str, int], path: Path) -> str:
    listed = {fate: counts[fate] for fate in ("failed", "rejected", "unsent")}
    text = f"{sum(listed.values()):,} guests who got no reward are listed in {path}"
    if counts["unsent"]:
        text += f": {', '.join(f'{count:,} {fate}' for fate, count in listed.items())}"
    if unclear := counts["in_doubt"] + counts["unfinished"]:
        text += f"; {unclear:,} in doubt or unfinished are not, since they may get one"
    return text


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
    path: Path | None, *, source: str, ledger: Path | None, exclude: Path | None = None
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
    file = await anyio.to_thread.run_sync(partial(FailureFile, path), abandon_on_cancel=True)
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
