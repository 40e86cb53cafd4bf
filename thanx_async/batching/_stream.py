"""The engine of `issue` and `stream`: reads the source, sends batches concurrently, yields job handles."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from thanx_async._core.errors import ConfigurationError, InputChangedError, ThanxError
from thanx_async._core.tasks import only_own_cancellation
from thanx_async.batching._account import RunAccount
from thanx_async.batching._batch import Batch
from thanx_async.batching._chunker import Chunk
from thanx_async.batching._guard import FailureWatch, Guard, check_rewards, could_exceed, try_canary
from thanx_async.batching._run import BatchError, IssuanceRun
from thanx_async.batching._sender import BatchSender
from thanx_async.batching._source import Source
from thanx_async.jobs import JobHandle

if TYPE_CHECKING:
    from thanx_async.batching._recorded_input import RecordedInput

Begin = Callable[[RunAccount], Awaitable["RecordedInput | None"]]


class IssuanceStream:
    """The job handles of a run, in input order, as Thanx accepts its batches. Made by `AsyncBatcher.stream`.

    Attributes:
        run: the run, which is accurate at every moment.
    """

    def __init__(
        self,
        sender: BatchSender,
        account: RunAccount,
        source: Source | None,
        guard: Guard,
        begin: Begin | None = None,
    ) -> None:
        """Without a ``source`` the run has only the batches that ``begin`` takes from the ledger."""
        self.run: IssuanceRun = IssuanceRun(account)
        self._account = account
        account.attach_jobs(sender.target.jobs)
        self._sender = sender
        self._source = source
        self._guard = guard
        self._begin = begin
        self._recorded: RecordedInput | None = None
        self._group = asyncio.TaskGroup()
        self._reader: asyncio.Task[None] | None = None
        self._failure_watch: FailureWatch | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._sending: dict[Batch, asyncio.Task[None]] = {}
        self._started = 0
        self._yielded = 0
        self._anything_sent = False
        self._input_read = False
        self._stopping = False
        self._change = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._sender.check_loop()
        if self._begin is not None:
            self._recorded = await self._begin(self._account)
        await self._group.__aenter__()
        self._sender.target.jobs.audits.begin_run()
        self._reader = self._group.create_task(self._read_and_send())
        self._reader.add_done_callback(lambda _: self._change.set())
        if self._guard.max_failure_rate is not None:
            self._failure_watch = FailureWatch(self._guard, self._account.tally, self._progressed)
            self._watcher = self._group.create_task(self._failure_watch.run(self._wait_for_change))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, Exception):
                self._stop(None)
                await self._group.__aexit__(None, None, None)
            else:
                await self._group.__aexit__(kind, error, traceback)
        finally:
            self._sender.target.jobs.audits.end_run()
            await self._release(error)
        if error is None:
            self._raise_failure()

    async def _release(self, error: BaseException | None) -> None:
        """Release the run in the ledger. An error that is already being raised outranks a failure here."""
        try:
            await self._account.release()
        except ThanxError as failure:
            self._account.fail(failure)
        if error is not None and not isinstance(error, Exception):
            error.add_note(f"{self.run!r}; in doubt: {self.run.in_doubt}")

    def __aiter__(self) -> Self:
        if self._reader is None:
            raise ConfigurationError(
                "the stream is not open: use `async with batcher.stream(...) as handles`"
            )
        return self

    async def __anext__(self) -> JobHandle:
        while (batch := self._next_batch()) or not self._is_over():
            if batch is None:
                await self._wait_for_change()
                continue
            self._yielded += 1
            self._change.set()
            if batch.handle:
                return batch.handle
        self._raise_failure()
        raise StopAsyncIteration

    def _next_batch(self) -> Batch | None:
        """The next batch in input order, once its fate is known."""
        if self._yielded < self._started:
            batch = self._account.batches[self._yielded]
            return None if batch in self._sending else batch
        return None

    def _is_over(self) -> bool:
        return self._reader is not None and self._reader.done() and self._yielded == self._started

    def _raise_failure(self) -> None:
        error = self.run.error
        if isinstance(error, InputChangedError) and not self._anything_sent:
            raise error
        if error is not None:
            # The message of a foreign exception may name guests.
            cause = error if isinstance(error, ThanxError) else type(error).__name__
            raise BatchError(f"the run stopped: {cause}; {self.run!r}", run=self.run) from error

    async def _wait_for_change(self) -> None:
        self._change.clear()
        await self._change.wait()

    async def _read_and_send(self) -> None:
        """Read, cut and send until the input ends or the run stops."""
        try:
            with only_own_cancellation(of="the reading of the guests"):
                if self._source is not None:
                    await self._read_source(self._source)
                await self._send_registered()
        except Exception as error:  # noqa: BLE001 - any exception of the user's source stops the run
            self._stop(error)
        finally:
            if self._source is not None:
                await self._close_source(self._source)
                with suppress(InputChangedError):  # the run has stopped already
                    self._register(self._account.chunker.feed(self._source.take()))
            self._input_read = True
            self._end_watch_if_done()
            self._change.set()

    async def _close_source(self, source: Source) -> None:
        try:
            await source.aclose()
        except Exception as error:  # noqa: BLE001 - whatever the user's source raises ends the run
            self._stop(error)

    async def _read_source(self, source: Source) -> None:
        while not self._stopping and await source.fill():
            self._register(self._account.chunker.feed(source.take()))
            if self._recorded is None or len(self._account.batches) > self._recorded.last_number:
                await self._send_registered()
        if not self._stopping:
            self._register(self._account.chunker.flush())
            if not source.is_cut:
                if self._recorded is not None:
                    self._recorded.check_end(len(self._account.batches))
                await self._account.input_ended()
            for _ in self._account.chunker.free():
                await asyncio.sleep(0)

    def _register(self, chunks: list[Chunk]) -> None:
        """Add new batches to the run. Batches that an earlier process recorded get their recorded fates.

        Nothing is sent before every recorded batch has been compared with the input.
        """
        batches = [Batch(chunk, self._account.run_id) for chunk in chunks]
        self._account.add(batches)
        if self._recorded is not None:
            self._recorded.restore(batches, chunks)

    async def _send_registered(self) -> None:
        while self._started < len(self._account.batches):
            batch = self._account.batches[self._started]
            if not batch.is_decided:
                while not self._stopping and not self._has_room(batch):
                    await self._wait_for_change()
                if self._stopping:
                    return
                check_rewards(self._guard, self._account.tally, batch)
                self._anything_sent = True
                batch.begin_sending()
                task = self._sending[batch] = self._group.create_task(self._send(batch))
                task.add_done_callback(partial(self._delivered, batch))
            elif self._failure_watch is not None:
                self._failure_watch.take(batch)
            self._started += 1
            self._change.set()
            if self._guard.canary is not None and batch.number == 0:
                await self._try_canary(batch)

    def _delivered(self, batch: Batch, _: asyncio.Task[None]) -> None:
        """End a delivery. A done callback, because a task cancelled before its start runs no ``finally``."""
        del self._sending[batch]
        batch.end_sending()
        if self._failure_watch is not None:
            self._failure_watch.take(batch)
        self._end_watch_if_done()
        self._change.set()

    async def _try_canary(self, batch: Batch) -> None:
        while batch in self._sending:
            await self._wait_for_change()
        if not self._stopping:
            await try_canary(self._guard, batch)

    def _progressed(self, error: Exception | None) -> None:
        """Take in that a request or a job has ended. With an error, the run stops."""
        if error is not None:
            self._stop(error)
        try:
            self._account.announce_change()
        except Exception as failure:  # noqa: BLE001 - an error of the user's callback stops the run
            self._stop(failure)
        self._change.set()

    def _end_watch_if_done(self) -> None:
        """Stop watching for failures once every batch has been delivered."""
        if self._watcher is not None and self._input_read and not self._sending:
            self._watcher.cancel()

    def _has_room(self, batch: Batch) -> bool:
        concurrency = self._sender.concurrency
        if len(self._sending) >= concurrency or self._started - self._yielded >= 2 * concurrency:
            return False
        # The outcome of the batches in flight may decide whether max_rewards allows the next one.
        undecided = could_exceed(self._guard, self._account.tally, batch)
        return not (self._sending and undecided)

    async def _send(self, batch: Batch) -> None:
        failure: Exception | None = None
        try:
            await self._sender.deliver(batch)
        except Exception as error:  # noqa: BLE001 - a ledger or limiter of the user's may raise anything
            failure = error
        self._progressed(failure)

    def stop(self) -> None:
        """Send no more batches. Requests in flight finish, and the iteration ends after them."""
        self._stop(None)

    def _stop(self, error: Exception | None) -> None:
        self._stopping = True
        self._account.fail(error)
        current = asyncio.current_task()
        for task in (self._reader, self._watcher):
            if task is not None and task is not current:
                task.cancel()
        for batch, task in self._sending.items():
            batch.stop()
            if not batch.delivery.on_wire and task is not current:
                task.cancel()
        self._change.set()


async def run_to_end(stream: IssuanceStream) -> IssuanceRun:
    """Send all of a stream, until Thanx has accepted every batch."""
    async with stream as handles:
        async for _ in handles:
            pass
    return stream.run
