"""Batches of `AsyncBatcher.add` that ended in doubt: sent again by themselves once Thanx answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thanx_async._core.errors import IdempotencyConflictError, ThanxError
from thanx_async._core.escaping import get_logger
from thanx_async._core.tasks import changed
from thanx_async.batching._batch import Batch
from thanx_async.batching._follower import OutcomeFollower
from thanx_async.batching._report import BatchInDoubt
from thanx_async.batching._sender import BatchSender
from thanx_async.batching._waiting_room import Pending, Reply, closed_error, tell

if TYPE_CHECKING:
    from thanx_async.batching._recorder import Recorder

_log = get_logger("thanx_async.batching")

_FIRST_WAIT = 5.0
_MAX_WAIT = 60.0


class _Doubt(Pending):
    """One batch in doubt.

    Attributes:
        batch: the batch.
        values: its guests.
        error: what its callers got.
        wake: set for an attempt without further waiting.
        hurried: a success elsewhere has set ``wake`` since the last wait that ran to its end.
        task: makes the attempts.
    """

    def __init__(self, batch: Batch, values: Sequence[str], error: ThanxError) -> None:
        super().__init__(batch.key)
        self.batch = batch
        self.values = tuple(values)
        self.error = error
        self.wake = asyncio.Event()
        self.hurried = False
        self.task: asyncio.Task[None] | None = None
        self._attempted = asyncio.Event()

    def try_now(self) -> asyncio.Event:
        """Don't wait any longer. Returns what is set after the attempt, or after the one in progress."""
        self.wake.set()
        return self._attempted

    def attempted(self) -> None:
        """An attempt is over, or there will be none."""
        self._attempted.set()
        self._attempted = asyncio.Event()


class DoubtSettler:
    """Sends recorded batches again that are in doubt, with the same key and bytes.

    Args:
        sender: sends the batches; it has a recorder.
        recorder: has their bytes.
        follower: waits for the jobs of batches that are not in doubt any more, if anything does.
    """

    def __init__(self, sender: BatchSender, recorder: Recorder, follower: OutcomeFollower | None) -> None:
        self._sender = sender
        self._recorder = recorder
        self._follower = follower
        self._doubts: list[_Doubt] = []
        self._closing = False

    @property
    def left(self) -> list[BatchInDoubt]:
        """The batches that are in doubt now."""
        return [BatchInDoubt(doubt.batch.key, doubt.values) for doubt in self._doubts]

    def take(
        self, batch: Batch, values: Sequence[str], error: ThanxError, group: asyncio.TaskGroup
    ) -> Pending:
        """Settle a batch in a task of the group.

        Returns:
            What gets the batch's handle, or ``error`` if the batch stays in doubt.
        """
        doubt = _Doubt(batch, values, error)
        self._doubts.append(doubt)
        doubt.task = group.create_task(self._settle(doubt, group))
        return doubt

    def thanx_answers(self) -> None:
        """Another request has just succeeded, so try all of them now.

        A batch that fails all the same is not hurried again before its next regular attempt, so that it
        does not double the requests of a busy service.
        """
        for doubt in self._doubts:
            if not doubt.hurried:
                doubt.hurried = True
                doubt.wake.set()

    async def settle_now(self) -> None:
        """Try each of them once, and return."""
        for attempt in [doubt.try_now() for doubt in self._doubts if doubt.reply is None]:
            await attempt.wait()

    def close(self) -> None:
        """Begin no further attempt."""
        self._closing = True
        for doubt in self._doubts:
            doubt.batch.stop()
            if doubt.task and not doubt.batch.delivery.on_wire:
                doubt.task.cancel()

    def end(self) -> None:
        """Answer whoever still waits, once all tasks have ended."""
        self._closing = True
        for doubt in self._doubts:
            doubt.attempted()
            if doubt.reply is None:
                tell([doubt], closed_error("the batcher closed while the batch was in doubt", key=doubt.key))

    async def _settle(self, doubt: _Doubt, group: asyncio.TaskGroup) -> None:
        wait = _FIRST_WAIT
        try:
            while not self._closing:
                await changed(doubt.wake, wait)
                doubt.hurried = doubt.hurried and doubt.wake.is_set()
                doubt.wake.clear()
                if await self._is_given_up(doubt) or doubt.batch.is_decided:
                    return
                doubt.attempted()
                wait = min(_MAX_WAIT, 2 * wait)
        finally:
            self._conclude(doubt, group)
            doubt.attempted()

    async def _is_given_up(self, doubt: _Doubt) -> bool:
        """Send the batch once more. Returns whether it stays in doubt for good."""
        batch = doubt.batch
        if batch.delivery.is_too_old:
            _log.error("batch with key %s stays in doubt: it is too old to be sent again", batch.key)
            tell([doubt], doubt.error)
            return True
        try:
            await self._recorder.restore(batch)
            await self._sender.deliver(batch)
            if batch.refused is None or batch.is_decided:
                return False
            refusal: ThanxError = batch.refused
        except IdempotencyConflictError as error:
            refusal = error
        except Exception as error:  # noqa: BLE001 - a limiter or ledger of the user's may raise anything
            if batch.handle is None:
                _log.debug("batch with key %s is still in doubt: %s", batch.key, type(error).__name__)
            else:
                _log.warning("job %s was accepted, and then: %s", batch.handle.id, type(error).__name__)
            return False
        _log.error("batch with key %s stays in doubt: %s", batch.key, refusal)
        tell([doubt], doubt.error)
        return True

    def _conclude(self, doubt: _Doubt, group: asyncio.TaskGroup) -> None:
        """Give whoever waits the reply, if the batch is not in doubt any more."""
        if (reply := _reply_of(doubt.batch)) is not None:
            self._doubts.remove(doubt)
            tell([doubt], reply)
            if self._follower is not None and not isinstance(reply, ThanxError):
                self._follower.follow(reply, group)


def _reply_of(batch: Batch) -> Reply | None:
    if batch.handle is not None:
        _log.info("batch with key %s is not in doubt any more: job %s", batch.key, batch.handle.id)
        return batch.handle
    if not batch.settled:
        return None
    _log.info("batch with key %s is not in doubt any more: %s", batch.key, batch.state)
    error = ThanxError(f"the batch is {batch.state}, with {batch.issued:,} rewards")
    error.in_doubt, error.idempotency_key = batch.issued > 0, batch.key
    return error
