"""Batches of `AsyncBatcher.add` that ended in doubt: sent again by themselves once Thanx answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import time
from typing import TYPE_CHECKING

from thanx_async._core.errors import IdempotencyConflictError, LedgerError, ThanxError
from thanx_async._core.tasks import changed
from thanx_async.batching._batch import Batch
from thanx_async.batching._report import BatchInDoubt
from thanx_async.batching._sender import BatchSender
from thanx_async.jobs import JobHandle

if TYPE_CHECKING:
    from thanx_async.batching._recorder import Recorder

_log = logging.getLogger("thanx_async.batching")

_FIRST_WAIT = 5.0
_MAX_WAIT = 60.0

Accepted = Callable[[JobHandle, Sequence[str]], None]


class _Doubt:
    """One batch in doubt. ``tried`` is set after each attempt to settle it."""

    def __init__(self, batch: Batch, values: tuple[str, ...]) -> None:
        self.batch = batch
        self.values = values
        self.recorded_at = time()
        self.wake = asyncio.Event()
        self.tried = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class DoubtSettler:
    """Sends recorded batches again that are in doubt, with the same key and bytes.

    Args:
        sender: sends the batches; it has a recorder.
        recorder: has their bytes.
        accepted: told of each batch that turns out to be accepted.
    """

    def __init__(self, sender: BatchSender, recorder: Recorder, accepted: Accepted) -> None:
        self._sender = sender
        self._recorder = recorder
        self._accepted = accepted
        self._doubts: list[_Doubt] = []
        self._closing = False

    def __len__(self) -> int:
        return len(self._doubts)

    def take(self, batch: Batch, values: Sequence[str], group: asyncio.TaskGroup) -> None:
        """Settle a batch in a task of the group."""
        doubt = _Doubt(batch, tuple(values))
        self._doubts.append(doubt)
        doubt.task = group.create_task(self._settle(doubt))

    def thanx_answers(self) -> None:
        """Try all of them now: another request has just succeeded."""
        for doubt in self._doubts:
            doubt.wake.set()

    async def settle_now(self) -> None:
        """Try each of them once, and return."""
        for doubt in list(self._doubts):
            doubt.tried.clear()
            doubt.wake.set()
            await doubt.tried.wait()

    def close(self) -> list[BatchInDoubt]:
        """Begin no further attempt. Returns the batches that stay in doubt."""
        self._closing = True
        for doubt in self._doubts:
            doubt.batch.stop()
            if doubt.task and not doubt.batch.delivery.on_wire:
                doubt.task.cancel()
        return [BatchInDoubt(doubt.batch.key, doubt.values) for doubt in self._doubts]

    async def _settle(self, doubt: _Doubt) -> None:
        wait = _FIRST_WAIT
        try:
            while not self._closing:
                await changed(doubt.wake, wait)
                doubt.wake.clear()
                if await self._is_over(doubt):
                    return
                doubt.tried.set()
                wait = min(_MAX_WAIT, 2 * wait)
        finally:
            doubt.tried.set()
            if not self._closing:
                self._doubts.remove(doubt)

    async def _is_over(self, doubt: _Doubt) -> bool:
        """Send the batch once more. Returns whether nothing is left to be done for it."""
        batch = doubt.batch
        if time() - doubt.recorded_at > self._recorder.replay_within:
            _log.error("batch with key %s stays in doubt: it is too old to be sent again", batch.key)
            return True
        try:
            await self._recorder.restore(batch)
            await self._sender.deliver(batch)
        except IdempotencyConflictError as error:
            _log.error("batch with key %s stays in doubt: %s", batch.key, error)
            return True
        except (LedgerError, ThanxError) as error:
            _log.debug("batch with key %s is still in doubt: %s", batch.key, type(error).__name__)
        if batch.handle is None:
            return batch.settled
        _log.info("batch with key %s is not in doubt any more: job %s", batch.key, batch.handle.id)
        self._accepted(batch.handle, doubt.values)
        return True
