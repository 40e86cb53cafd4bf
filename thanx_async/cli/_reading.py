"""Reads guests from a file or standard input, off the event loop."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from functools import partial
from itertools import accumulate, compress, islice
from pathlib import Path

import anyio.to_thread
import attrs

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._bars import Reading
from thanx_async.cli._bytes import share_read
from thanx_async.cli._exclusion import Exclusion, exclusion
from thanx_async.cli._items import BLANK
from thanx_async.cli._opening import HowToRead, opened
from thanx_async.cli._original import Original, stamp
from thanx_async.cli._words import amount

_SLICE = 2_000

Choose = Callable[[list[object]], Awaitable[list[bool]]]


class GuestFile:
    """A file of guests, or standard input (``-``). It is opened, and its header checked, at once.

    Args:
        name: the file's name.
        how: how it is read.
        id_column: with it, items are pairs of a guest and an id; the id is "" where there is none.
        exclude: the guests who are left out, or the name of a file with them.
        limit: how many guests are read at most; rows after them are not looked at.

    Raises:
        ConfigurationError: the file can't be read, holds nothing, or lacks the column; the message lists the
            columns.
    """

    def __init__(
        self,
        name: str,
        how: HowToRead,
        *,
        id_column: str | None = None,
        exclude: str | Exclusion | None = None,
        limit: int | None = None,
    ) -> None:
        self._file = name
        self._how = how
        self._name = "standard input" if name == "-" else name
        self._limit = limit
        self._is_ended = False
        self._is_closed = False
        self._count = 0
        self._total: int | None = None
        self._blank = 0
        self._gaps = array("Q")
        self._stack = ExitStack()
        self._choose: Choose | None = None
        self._exclusion = exclusion(exclude, how) if isinstance(exclude, str) else exclude
        self._stamp = stamp(name)
        try:
            self._input = opened(name, self._name, how, id_column, self._stack)
            self._first = self._slice(1)
        except BaseException:
            self.close()
            raise
        if not self._first and not self._left_out:
            self.close()
            raise ConfigurationError(f"nothing was read from {self._name}: it has no guests")

    def close(self) -> None:
        self._is_closed = True
        self._stack.close()

    async def __aiter__(self) -> AsyncIterator[object]:
        items, self._first = self._first, []
        while items:
            for item in await self._chosen(items):
                yield item
            items = await anyio.to_thread.run_sync(self._slice, abandon_on_cancel=True)
        self._is_ended = True

    def choose_by(self, choose: Choose) -> None:
        """Leave out the items that this does not choose; called with the items in order, some at a time."""
        self._choose = choose

    async def _chosen(self, items: list[object]) -> list[object]:
        if self._choose is None:
            return items
        stays = await self._choose(items)
        first = self._count - len(items)
        before = [0, *accumulate(stays)]
        index = bisect_left(self._gaps, first)
        gaps = [first + before[gap - first] for gap in self._gaps[index:]]
        gaps += [first + before[place] for place, stay in enumerate(stays) if not stay]
        self._gaps[index:] = array("Q", sorted(gaps))
        self._count = first + before[-1]
        return list(compress(items, stays))

    def described(self) -> str:
        """Which columns or keys are read, in words; "" for plain lines."""
        return f"Reading {self._input.taken} of {self._name}" if self._input.taken else ""

    def notes(self) -> list[str]:
        """What to tell about the rows that were read."""
        blank = self._blank - self._input.left_out()
        skipped = f"{amount(blank, 'blank row')} {'was' if blank == 1 else 'were'} skipped" if blank else ""
        left_out = self._exclusion.note() if self._exclusion else ""
        return list(filter(None, (left_out, skipped, self._input.note())))

    def row(self, position: int) -> int:
        """The row of the file that holds the guest at a position of the input, counted like a spreadsheet."""
        return self._input.first_row + position + bisect_right(self._gaps, position)

    def original(self) -> Original | None:
        """The rows of the file, to be read again; None for a pipe, and where there are no columns."""
        found = self._input
        if self._stamp is None or not found.header:
            return None
        return Original(self._file, self._how, list(found.header), found.first_row, self.row, self._stamp)

    def total(self) -> int | None:
        """The number of guests, once it is known."""
        if self._is_ended:
            return self._count
        return None if self._choose else self._total

    async def count_ahead(self) -> None:
        """Count the guests of a regular file in a pass of its own, for `total`."""
        self._total = await anyio.to_thread.run_sync(self._counted, abandon_on_cancel=True)

    def _counted(self) -> int | None:
        """The number of guests; None if there is no second reading, or it fails like the first one will."""
        if self._file == "-" or not Path(self._file).is_file():
            return None
        others = self._exclusion and attrs.evolve(self._exclusion, count=0)
        with (
            suppress(ConfigurationError, OSError),
            closing(GuestFile(self._file, self._how, exclude=others, limit=self._limit)) as twin,
        ):
            return twin.count_rest(lambda: self._is_closed)
        return None

    def count_rest(self, is_enough: Callable[[], bool]) -> int | None:
        """Read to the end, and return the number of guests; None if it was enough before."""
        while (self._limit is None or self._count < self._limit) and self._slice():
            if is_enough():
                return None
        return self._count

    def progress(self) -> Reading:
        """How much is read."""
        return Reading(self._name, self._count, share_read(self._input.stream))

    @property
    def _left_out(self) -> int:
        return self._exclusion.count if self._exclusion else 0

    def unread(self, count: int) -> str:
        """What to say if only the first ``count`` guests were read, "" if the file was read to its end."""
        if self._is_ended:
            return ""
        header = ", not counting the header" if self._input.header else ""
        rows = count + bisect_right(self._gaps, count - 1) if count else 0
        return f"read up to row {rows:,} of {self._name}{header}; nothing after it was sent or listed"

    def _slice(self, most: int = _SLICE) -> list[object]:
        """The next guests; none at the end."""
        kept: list[object] = []
        try:
            if self._limit is not None:
                most = max(1, min(most, self._limit - self._count))
            while not kept and (items := list(islice(self._input.items, most))):
                kept = self._kept(items)
                self._count += len(kept)
        except UnicodeError as error:
            raise ConfigurationError(f"{self._name} is in another encoding: {error}") from None
        return kept

    def _kept(self, items: list[object]) -> list[object]:
        """The items without blank rows and those who are left out."""
        stays = self._exclusion.kept(items) if self._exclusion else None
        if stays is None and BLANK not in items:
            return items
        kept: list[object] = []
        for index, item in enumerate(items):
            if item is BLANK or (stays and not stays[index]):
                self._blank += item is BLANK
                self._gaps.append(self._count + len(kept))
            else:
                kept.append(item)
        return kept


@asynccontextmanager
async def reading(
    name: str,
    how: HowToRead,
    *,
    id_column: str | None = None,
    exclude: Path | None = None,
    limit: int | None = None,
) -> AsyncIterator[GuestFile]:
    """The file, opened in a thread because opening a pipe waits for its writer."""
    others = None if exclude is None else str(exclude)
    opening = partial(GuestFile, name, how, id_column=id_column, exclude=others, limit=limit)
    file = await anyio.to_thread.run_sync(opening, abandon_on_cancel=True)
    try:
        yield file
    finally:
        file.close()
