"""Polls a sample of the jobs whose outcome an event has told, while the rate limits have room for it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from thanx_async._core.errors import ThanxError
from thanx_async._core.escaping import get_logger
from thanx_async._core.tasks import changed
from thanx_async.limiter import RateLimiter

_log = get_logger("thanx_async.webhooks")

_LOOK = 5.0


class Audited(Protocol):
    """A job to be polled once."""

    async def audit(self) -> None:
        """Poll it, and compare the answer with what the event told."""


class Audits:
    """The polls of sampled jobs, which a task makes one by one.

    There is room for them while half of each longer window is free and no bulk run is being sent: they must
    take no request from issuing.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self._owed: dict[Audited, None] = {}
        self._runs = 0
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether a poll would take nothing from issuing."""
        longer = self._limiter.status().windows[1:]
        return not self._runs and all(2 * row.free >= row.limit.requests for row in longer)

    def begin_run(self) -> None:
        """A bulk run is being sent, until `end_run`."""
        self._runs += 1

    def end_run(self) -> None:
        """The bulk run has been sent."""
        self._runs -= 1
        self._wake.set()

    def owe(self, job: Audited) -> None:
        """Poll the job as soon as there is room."""
        self._owed[job] = None
        if self._task is None or self._task.done():
            self._wake, self._progress = asyncio.Event(), asyncio.Event()
            self._task = asyncio.create_task(self._run())

    async def settle(self) -> None:
        """Wait until everything owed is polled, or there is no room for it."""
        while self._owed and self.has_room:
            self._wake.set()
            self._progress.clear()
            await changed(self._progress, _LOOK)

    async def close(self) -> None:
        """Poll nothing more."""
        task, self._task = self._task, None
        if self._owed:
            _log.info("%d of the jobs whose outcome an event told were not checked", len(self._owed))
        self._owed.clear()
        if task is not None and not task.get_loop().is_closed() and not task.done():
            task.cancel()
            await asyncio.wait([task])

    def abandon(self) -> None:
        """The loop is gone, and the task with it."""
        self._task = None
        self._owed.clear()

    async def _run(self) -> None:
        while self._owed:
            self._wake.clear()
            if not self.has_room:
                await changed(self._wake, _LOOK)
                continue
            job = next(iter(self._owed))
            try:
                await job.audit()
            except Exception as error:  # noqa: BLE001 - a limiter of the user's may raise anything
                reason = str(error) if isinstance(error, ThanxError) else type(error).__name__
                _log.warning("a job whose outcome an event told could not be checked: %s", reason)
            finally:
                self._owed.pop(job, None)
                self._progress.set()
