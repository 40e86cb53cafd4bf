"""Reads any iterable or async iterable in slices that do not block the event loop for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import islice
from time import perf_counter

from thanx_async._core import checks
from thanx_async.identifiers import is_single

_MOST = 1_000
_LONG = 0.004


class Source:
    """Reads in slices into a buffer, so that nothing read is lost when the reading fails."""

    def __init__(self, items: Iterable[object] | AsyncIterable[object]) -> None:
        self._buffer: list[object] = []
        self._slice = 100
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

    def take(self) -> list[object]:
        """The items read since the last call."""
        items, self._buffer = self._buffer, []
        return items

    async def fill(self) -> bool:
        """Read the next slice; False at the end. Gives way to the loop each time."""
        started = perf_counter()
        more = await self._pull(self._async) if self._async else self._extend()
        elapsed = perf_counter() - started
        # A slow source gets smaller slices: what runs between two checkpoints must stay short.
        self._slice = max(1, self._slice // 2) if elapsed > _LONG else min(_MOST, self._slice * 2)
        await asyncio.sleep(0)
        return more

    def _extend(self) -> bool:
        assert self._sync is not None  # noqa: S101 - set where _async is not
        self._buffer.extend(islice(self._sync, self._slice))
        return bool(self._buffer)

    async def _pull(self, source: AsyncIterator[object]) -> bool:
        for _ in range(self._slice):
            try:
                self._buffer.append(await anext(source))
            except StopAsyncIteration:
                return bool(self._buffer)
        return True
