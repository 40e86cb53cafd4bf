"""Reads guests from a file or standard input, off the event loop."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from itertools import islice

import anyio.to_thread

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._items import BLANK
from thanx_async.cli._opening import HowToRead, opened

_SLICE = 2_000


class GuestFile:
    """A file of guests, or standard input (``-``). It is opened, and its header checked, at once.

    Args:
        name: the file's name.
        how: how it is read.
        id_column: with it, items are pairs of a guest and an id; the id is "" where there is none.

    Raises:
        ConfigurationError: the file can't be read, holds nothing, or lacks the column; the message lists the
            columns.
    """

    def __init__(self, name: str, how: HowToRead, *, id_column: str | None = None) -> None:
        self._name = "standard input" if name == "-" else name
        self._is_ended = False
        self._count = 0
        self._gaps = array("Q")
        self._stack = ExitStack()
        try:
            self._input = opened(name, self._name, how, id_column, self._stack)
            self._first = self._slice(1)
        except BaseException:
            self.close()
            raise
        if not self._first:
            self.close()
            raise ConfigurationError(f"nothing was read from {self._name}: it has no guests")

    def close(self) -> None:
        self._stack.close()

    async def __aiter__(self) -> AsyncIterator[object]:
        items, self._first = self._first, []
        while items:
            for item in items:
                yield item
            items = await anyio.to_thread.run_sync(self._slice, abandon_on_cancel=True)
        self._is_ended = True

    def described(self) -> str:
        """What is read, in words."""
        return f"Reading {self._input.taken} of {self._name}"

    def notes(self) -> list[str]:
        """What to tell about the rows that were read."""
        blank = len(self._gaps)
        skipped = f"{blank:,} blank row{'s were' if blank > 1 else ' was'} skipped" if blank else ""
        return list(filter(None, (skipped, self._input.note())))

    def row(self, position: int) -> int:
        """The row of the file that holds the guest at a position of the input, counted like a spreadsheet."""
        return self._input.first_row + position + bisect_right(self._gaps, position)

    def unread(self, count: int) -> str:
        """What to say if only the first ``count`` guests were read, "" if the file was read to its end."""
        if self._is_ended:
            return ""
        header = ", not counting the header" if self._input.has_header else ""
        return f"read up to row {count:,} of {self._name}{header}; nothing after it was sent or listed"

    def _slice(self, most: int = _SLICE) -> list[object]:
        """The next guests; none at the end."""
        kept: list[object] = []
        try:
            while not kept and (items := list(islice(self._input.items, most))):
                for item in items:
                    if item is BLANK:
                        self._gaps.append(self._count)
                    else:
                        kept.append(item)
                        self._count += 1
        except UnicodeError as error:
            raise ConfigurationError(f"{self._name} is in another encoding: {error}") from None
        return kept


@asynccontextmanager
async def reading(name: str, how: HowToRead, *, id_column: str | None = None) -> AsyncIterator[GuestFile]:
    """The file, opened in a thread because opening a pipe waits for its writer."""
    opening = partial(GuestFile, name, how, id_column=id_column)
    file = await anyio.to_thread.run_sync(opening, abandon_on_cancel=True)
    try:
        yield file
    finally:
        file.close()
