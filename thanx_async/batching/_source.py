"""Reads any iterable or async iterable in slices that do not block the event loop for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import islice
from time import perf_counter

from thanx_async._core import checks
from thanx_async.identifiers import is_single

_MAX_SLICE = 1_000
_MAX_SECONDS = 0.004


class Source:
    """Reads in slices into a buffer, so that items already read survive an error of the iterable.

    Raises:
        ConfigurationError: a single identifier, or no iterable.
    """

    def __init__(self, items: Iterable[object] | AsyncIterable[object]) -> None:
        self._buffer: list[object] = []
        self._slice_size = 100
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
        """Read the next slice, and yield to the event loop. Returns False at the end of the input."""
        started = perf_counter()
        more = await self._read_async(self._async) if self._async else self._read_sync()
        elapsed = perf_counter() - started
        # A slow source gets smaller slices, to keep the time between two checkpoints short.
        self._slice_size = (
            max(1, self._slice_size // 2) if elapsed > _MAX_SECONDS else min(_MAX_SLICE, self._slice_size * 2)
        )
        await asyncio.sleep(0)
        return more

    def _read_sync(self) -> bool:
        assert self._sync is not None  # noqa: S101 - set unless _async is set
        self._buffer.extend(islice(self._sync, self._slice_size))
        return bool(self._buffer)

    async def _read_async(self, source: AsyncIterator[object]) -> bool:
        for _ in range(self._slice_size):
            try:
                self._buffer.append(await anext(source))
            except StopAsyncIteration:
                return bool(self._buffer)
        return True
