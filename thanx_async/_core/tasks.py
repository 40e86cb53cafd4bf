"""asyncio helpers: objects bound to an event loop, uninterruptible work, cancellations from elsewhere."""

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
    """Binds an object to the event loop that opened it, and counts its open ``async with`` blocks.

    Args:
        what: the object's name in messages, such as "the client".
        opening: the code that opens the object, for messages.
    """

    def __init__(self, what: str, opening: str) -> None:
        self._what = what
        self._opening = opening
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._blocks = 0

    @property
    def is_open(self) -> bool:
        """Whether any block is open."""
        return self._blocks > 0

    @property
    def is_forked(self) -> bool:
        """Whether a parent of this process opened the object."""
        return self._loop is not None and self._process != os.getpid()

    @property
    def is_lost(self) -> bool:
        """Whether the object must be opened again: its loop is closed, or belongs to a parent process."""
        return self._loop is not None and (self._loop.is_closed() or self.is_forked)

    def enter(self) -> bool:
        """Enter a block. Returns whether it is the first one, which opens the object.

        Raises:
            ConfigurationError: the object is open on another loop.
        """
        if self.is_open and not self.is_lost:
            self.check()
        else:
            self._loop, self._process, self._blocks = asyncio.get_running_loop(), os.getpid(), 0
        self._blocks += 1
        return self._blocks == 1

    def leave(self) -> bool:
        """Leave a block. Returns whether it was the last one, which closes the object."""
        self._blocks = max(0, self._blocks - 1)
        return not self._blocks

    def end(self) -> None:
        """Mark the object as closed, even if blocks are still open."""
        self._loop, self._blocks = None, 0

    def check(self) -> None:
        """Make sure that the object is open on the running loop.

        Raises:
            ConfigurationError: the object is not open, or is open on another loop or in another process.
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
    """Wait for the work, and return its result. A cancellation is raised only after the work has ended.

    This is for short work with an effect that must be known, such as a commit in a worker thread.
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
    """Whether the running task itself is being cancelled, and not something that it awaits."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def foreign_cancellation(of: str) -> ThanxError:
    """The error for a cancellation that did not come from this task's caller."""
    return ThanxError(f"something that {of} waits for was cancelled")


@contextmanager
def only_own_cancellation(of: str) -> Iterator[None]:
    """Turn a cancellation from elsewhere into an error, since it would end the task silently.

    Raises:
        ThanxError: something that the task awaits was cancelled.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise foreign_cancellation(of) from error


RESOLUTION = 1e-6
"""The shortest wait, in seconds. A wait below the resolution of the loop's clock would spin."""


async def changed(event: asyncio.Event, wait: float | None) -> None:
    """Wait for the event, at most ``wait`` seconds; None or infinity means no limit."""
    try:
        async with asyncio.timeout(None if wait is None or wait == inf else max(wait, RESOLUTION)):
            await event.wait()
    except TimeoutError:
        return
