"""Cancellations: work that runs to its end all the same, and those that are nobody's wish."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from math import inf
from typing import TypeVar

from thanx_async._core.errors import ThanxError

T = TypeVar("T")


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
