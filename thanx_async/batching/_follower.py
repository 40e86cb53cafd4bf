"""Waits in the background for the jobs of `AsyncBatcher.add`, so that hooks get their `JobRecord`."""

from __future__ import annotations

import asyncio

from thanx_async._core.errors import ThanxError
from thanx_async._core.escaping import get_logger
from thanx_async.jobs import JobHandle

_log = get_logger("thanx_async.batching")

_DELAY = 15.0
"""Seconds before the first look. By then most jobs have ended, and a caller may have seen the end already."""

_LONGEST = 3600.0
_MAX_JOBS = 1000


class OutcomeFollower:
    """Waits for jobs on behalf of nobody: the end of each is told to the hook by whatever polls the job.

    Its polls come from the schedule that all who wait for jobs of the client share.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._skipped = 0
        self._closing = False

    def follow(self, handle: JobHandle, group: asyncio.TaskGroup) -> None:
        """Wait for the job in a task of the group, unless too many are followed."""
        if self._closing:
            return
        if len(self._tasks) >= _MAX_JOBS:
            self._skip()
            return
        task = group.create_task(self._wait(handle))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _skip(self) -> None:
        if self._skipped % _MAX_JOBS == 0:
            _log.warning("more than %d jobs have not ended yet: not all outcomes are followed", _MAX_JOBS)
        self._skipped += 1

    def close(self) -> None:
        """Follow nothing any more."""
        if self._tasks and not self._closing:
            _log.info("the outcomes of %d jobs are not followed any more", len(self._tasks))
        self._closing = True
        for task in self._tasks:
            task.cancel()

    async def _wait(self, handle: JobHandle) -> None:
        await asyncio.sleep(_DELAY)
        try:
            await handle.wait(timeout=_LONGEST)
        except Exception as error:  # noqa: BLE001 - a limiter of the user's may raise anything
            reason = str(error) if isinstance(error, ThanxError) else type(error).__name__
            _log.warning("the outcome of job %s is not followed any more: %s", handle.id, reason)
