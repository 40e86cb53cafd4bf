"""The rows of an input file, read a second time for the guests that are listed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import attrs

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._opening import HowToRead, table_again

Stamp = tuple[int, ...]


def stamp(file: str) -> Stamp | None:
    """What changes with the content of a regular file; None for all else."""
    try:
        found = os.stat(file)  # noqa: PTH116 - "-" is no path
    except OSError:
        return None
    is_file = file != "-" and stat.S_ISREG(found.st_mode)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) if is_file else None


class ChangedError(Exception):
    """The file is not the one that was read first."""


@attrs.frozen
class Original:
    """A file with columns that can be read again.

    Attributes:
        file: the file's name.
        how: how it is read.
        header: the names of its columns.
        first_row: the row of the first guest, counted like a spreadsheet.
        row_of: returns the row for a position in the input.
        before: the stamp of the file when it was read first.
    """

    file: str
    how: HowToRead
    header: list[str]
    first_row: int
    row_of: Callable[[int], int]
    before: Stamp

    def rows(self, positions: Iterable[int]) -> Iterator[tuple[int, list[str]]]:
        """The number and the cells of the rows at ascending positions.

        Raises:
            ChangedError: the file has changed since it was read first.
        """
        self._check()
        with ExitStack() as stack:
            try:
                numbered = enumerate(table_again(self.file, self.how, stack), self.first_row)
                for row in map(self.row_of, positions):
                    yield row, next(cells for number, cells in numbered if number == row)
            except (ConfigurationError, OSError, UnicodeError, StopIteration):
                raise ChangedError from None
        self._check()

    def _check(self) -> None:
        if stamp(self.file) != self.before:
            raise ChangedError
