"""Reads any iterable or async iterable in slices that do not block the event loop for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from itertools import islice
from time import perf_counter

from thanx_async._core import checks
from thanx_async.identifiers import is_single

_MOST = 1_000
_AT_ONCE = 32
_QUICK = 0.001
_STORED = (list, tuple, set, frozenset, range)
_LONG = 0.004


class Source:
    """Reads in slices into a buffer, so that nothing read is lost when the reading fails."""

    def __init__(self, items: Iterable[object] | AsyncIterable[object], *, limit: int | None = None) -> None:
        if limit is not None:
            checks.number("limit", limit, 1, whole=True)
        self._left = limit
        self._buffer: list[object] = []
        self._ended = False
        self._is_stored = type(items) in _STORED
        self._sync: Iterator[object] | None = None
        self._async: AsyncIterator[object] | None = None
        if is_single(items):
            raise checks.wrong("identifiers", "must be several, such as a list, not a single one")
        if isinstance(items, AsyncIterable):
            self._async = aiter(items)
        elif isinstance(items, Iterable):
            self._sync = iter(items)
        else:
            raise checks.wrong(
                "identifiers", f"must be an iterable or async iterable, not {type(items).__name__}"
            )

    @property
    def is_cut(self) -> bool:
        """Whether as many items as the limit allows were read, so that more may follow."""
        return self._left == 0

    def take(self) -> list[object]:
        """The items read since the last call."""
        items, self._buffer = self._buffer, []
        return items

    async def fill(self) -> bool:
        """Read the next slice; False at the end. Gives way to the loop each time."""
        if not self._ended and not self.is_cut:
            until = perf_counter() + _LONG
            if self._async is not None:
                await self._pull(self._async, until)
            elif self._sync is not None:
                self._extend(self._sync, until)
            if self._left is not None:
                self._left -= len(self._buffer)
        await asyncio.sleep(0)
        return bool(self._buffer)

    async def aclose(self) -> None:
        """Close what is read from, if it can be closed: a cursor's ``finally`` runs now, and not some day."""
        self._ended = True
        if isinstance(self._async, AsyncGenerator):
            await self._async.aclose()
        elif isinstance(self._sync, Generator):
            self._sync.close()

    @property
    def _most(self) -> int:
        return _MOST if self._left is None else min(_MOST, self._left)

    def _extend(self, source: Iterator[object], until: float) -> None:
        """The clock is looked at after one item, and after more of them only while they come quickly."""
        count = _MOST if self._is_stored else 1
        for _ in range(_MOST):
            before, started = len(self._buffer), perf_counter()
            count = min(count, self._most - before)
            self._buffer.extend(islice(source, count))
            now = perf_counter()
            self._ended = len(self._buffer) - before < count
            if self._ended or now > until or len(self._buffer) >= self._most:
                return
            count = min(_AT_ONCE, 2 * count) if now - started < _QUICK else 1

    async def _pull(self, source: AsyncIterator[object], until: float) -> None:
        for _ in range(self._most):
            try:
                self._buffer.append(await anext(source))
            except StopAsyncIteration:
                self._ended = True
                return
            if perf_counter() > until:
                return
