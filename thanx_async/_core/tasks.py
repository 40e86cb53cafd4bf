"""What asyncio lacks: the loop that an object belongs to, work that runs to its end although it is cancelled,
and cancellations that did not come from the caller."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from math import inf
from typing import TypeVar

from thanx_async._core.errors import ConfigurationError, ThanxError

T = TypeVar("T")


class Home:
    """The event loop on which an object is open, and how many blocks have opened it there.

    Args:
        what: what messages call the object, such as "the client".
        opening: the code that opens it.
    """

    def __init__(self, what: str, opening: str) -> None:
        self._what = what
        self._opening = opening
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._blocks = 0

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not closed since."""
        return self._blocks > 0

    @property
    def is_forked(self) -> bool:
        """Whether it was opened by a parent of this process."""
        return self._loop is not None and self._process != os.getpid()

    @property
    def is_lost(self) -> bool:
        """Whether it can only be opened anew: its loop is closed, or is that of a parent process."""
        return self._loop is not None and (self._loop.is_closed() or self.is_forked)

    def enter(self) -> bool:
        """A block begins; returns whether it is the first, so that there is something to open.

        Raises:
            ConfigurationError: it is open on another loop.
        """
        if self.is_open and not self.is_lost:
            self.check()
        else:
            self._loop, self._process, self._blocks = asyncio.get_running_loop(), os.getpid(), 0
        self._blocks += 1
        return self._blocks == 1

    def leave(self) -> bool:
        """A block ends; returns whether it was the last, so that there is something to close."""
        self._blocks = max(0, self._blocks - 1)
        return not self._blocks

    def end(self) -> None:
        """It is closed, however many blocks go on."""
        self._loop, self._blocks = None, 0

    def check(self) -> None:
        """Make sure that it is open here.

        Raises:
            ConfigurationError: it is not open, or belongs to another loop or process.
        """
        if not self.is_open:
            raise ConfigurationError(f"{self._what} is not open: use it as `{self._opening}`")
        if self._loop is not asyncio.get_running_loop() or self.is_forked:
            raise ConfigurationError(f"{self._what} {self._why_not()}")

    def _why_not(self) -> str:
        if self.is_forked:
            return "was opened before this process was forked: open another one here"
        if self.is_lost:
            return f"belongs to an event loop that is closed: open it again, as `{self._opening}`"
        return (
            "is open on another event loop and belongs to it: use another one here, or hand the call over"
            " with asyncio.run_coroutine_threadsafe(call, loop)"
        )


async def to_its_end(work: Awaitable[T]) -> T:
    """The result of the work, or, once the work is over, the cancellation that came meanwhile.

    For short work whose effect would otherwise be unknown, such as a commit in a worker thread.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled() and (failure := task.exception()):
        cancelled.add_note(f"meanwhile: {failure}")
    raise cancelled


def is_being_cancelled() -> bool:
    """Whether somebody cancels the running task, and not only something that it waits for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def foreign_cancellation(of: str) -> ThanxError:
    """What a cancellation is that nobody wished for this task."""
    return ThanxError(f"something that {of} waits for was cancelled")


@contextmanager
def only_own_cancellation(of: str) -> Iterator[None]:
    """Where only something that is waited for was cancelled, that is an error like any other.

    Raises:
        ThanxError: in place of such a cancellation, which would end the task without a word.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise foreign_cancellation(of) from error


RESOLUTION = 1e-6
"""A wait below the resolution of the loop's clock would spin. Seconds."""


async def changed(change: asyncio.Event, wait: float | None) -> None:
    """Return when something has changed, or after ``wait`` seconds (None, infinity: only then)."""
    try:
        async with asyncio.timeout(None if wait is None or wait == inf else max(wait, RESOLUTION)):
            await change.wait()
    except TimeoutError:
        return
