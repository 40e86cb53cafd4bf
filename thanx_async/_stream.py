"""The engine of a run: reads the source, sends batches side by side, hands out their jobs in order."""

from __future__ import annotations

import asyncio
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from thanx_async._accounts import Entry, IssuanceRun
from thanx_async._chunking import Batch
from thanx_async._source import Source
from thanx_async.errors import BatchError, ThanxError
from thanx_async.jobs import JobHandle
from thanx_async.wire import batch_key


class Sender(Protocol):
    """What sends the batches."""

    @property
    def concurrency(self) -> int: ...

    async def deliver(self, entry: Entry) -> None: ...


class IssuanceStream:
    """The handles of a run as Thanx accepts its batches; made by `AsyncBatcher.stream`."""

    def __init__(self, sender: Sender, run: IssuanceRun, source: Source) -> None:
        self.run = run
        self._sender = sender
        self._source = source
        self._chunker = run.chunker
        self._group = asyncio.TaskGroup()
        self._pump: asyncio.Task[None] | None = None
        self._sending: dict[Entry, asyncio.Task[None]] = {}
        self._started = 0
        self._yielded = 0
        self._stopping = False
        self._change = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._pump = self._group.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self._stop(None)
            await self._group.__aexit__(None, None, None)
            if error is None:
                self._raise_failure()
            return
        try:
            await self._group.__aexit__(kind, error, traceback)
        finally:
            error.add_note(f"{self.run!r}; in doubt: {self.run.in_doubt}")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobHandle:
        while (entry := self._next_entry()) or not self._is_over():
            if entry is None:
                await self._changed()
                continue
            self._yielded += 1
            self._change.set()
            if entry.handle:
                return entry.handle
        self._raise_failure()
        raise StopAsyncIteration

    def _next_entry(self) -> Entry | None:
        """The next batch in input order, once its fate is known."""
        if self._yielded < self._started:
            entry = self.run.entries[self._yielded]
            return None if entry in self._sending else entry
        return None

    def _is_over(self) -> bool:
        return self._pump is not None and self._pump.done() and self._yielded == self._started

    def _raise_failure(self) -> None:
        if self.run.error is not None:
            raise BatchError(
                f"the run stopped: {self.run.error}; {self.run!r}", run=self.run
            ) from self.run.error

    async def _changed(self) -> None:
        self._change.clear()
        await self._change.wait()

    async def _read(self) -> None:
        """Read, cut and send, until the input ends or the run stops."""
        try:
            while not self._stopping and await self._source.fill():
                self._register(self._chunker.feed(self._source.take()))
                await self._send_registered()
            if not self._stopping:
                self._register(self._chunker.flush())
                await self._send_registered()
        except Exception as error:  # noqa: BLE001 - whatever the user's source raises ends the run
            self._stop(error)
        finally:
            self._register(self._chunker.feed(self._source.take()))
            self._change.set()

    def _register(self, batches: list[Batch]) -> None:
        run = self.run
        run.entries.extend(Entry(batch, batch_key(run.run_id, batch.number)) for batch in batches)

    async def _send_registered(self) -> None:
        while self._started < len(self.run.entries):
            while not self._stopping and not self._has_room():
                await self._changed()
            if self._stopping:
                return
            entry = self.run.entries[self._started]
            self._started += 1
            task = self._sending[entry] = self._group.create_task(self._send(entry))
            task.add_done_callback(partial(self._ended, entry))

    def _ended(self, entry: Entry, _: asyncio.Task[None]) -> None:
        """Also where a task was cancelled before it began, whose own ``finally`` then never runs."""
        self._sending.pop(entry, None)
        self._change.set()

    def _has_room(self) -> bool:
        at_once = self._sender.concurrency
        return len(self._sending) < at_once and self._started - self._yielded < 2 * at_once

    async def _send(self, entry: Entry) -> None:
        try:
            await self._sender.deliver(entry)
        except ThanxError as error:
            self._stop(error)
        finally:
            self._sending.pop(entry, None)
            self._change.set()
        try:
            self.run.changed()
        except Exception as error:  # noqa: BLE001 - a progress callback of the user's ends the run
            self._stop(error)

    def stop(self) -> None:
        """Send nothing more. Requests under way are finished, and the iteration ends after them."""
        self._stop(None)

    def _stop(self, error: Exception | None) -> None:
        self._stopping = True
        self.run.error = self.run.error or error
        current = asyncio.current_task()
        if self._pump is not None and self._pump is not current:
            self._pump.cancel()
        for entry, task in self._sending.items():
            entry.delivery.closing = True
            if not entry.delivery.on_wire and task is not current:
                task.cancel()
        self._change.set()
