"""Decisions of micro-batching: how far apart batches are, and which error callers get."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import time

from thanx_async._core import checks
from thanx_async._core.errors import ThanxError
from thanx_async.batching._batch import Batch
from thanx_async.limiter import LimiterStatus

_BUDGET_SHARE = 2 / 3
_MAX_PACE = 2.0
_LONGEST_TIMER = 30 * 86_400.0


def min_interval(status: LimiterStatus) -> float:
    """Seconds from one batch to the next, while guests arrive steadily.

    The free requests of a longer rate limit are spread over two thirds of its window. A service that spends
    them at once would stall until the window has passed.
    """
    shortest = min((window.limit.seconds for window in status.windows), default=0.0)
    intervals = [
        window.limit.seconds * _BUDGET_SHARE / max(1, window.free)
        for window in status.windows
        if window.limit.seconds > shortest
    ]
    return min(_MAX_PACE, max(intervals, default=0.0))


def as_thanx_error(error: Exception, batch: Batch | None) -> ThanxError:
    """The error as callers get it: a `ThanxError`, in doubt if the batch is."""
    if isinstance(error, ThanxError):
        wrapped = error
    else:
        wrapped = ThanxError(f"the batch could not be sent ({type(error).__name__})")
        wrapped.__cause__ = error
    if batch is not None:
        batch.mark_if_in_doubt(wrapped)
    return wrapped


@contextmanager
def not_after(batch: Batch, recorded_at: float, age: float) -> Iterator[None]:
    """Begin no further attempt to send the batch within the block once its record is too old.

    Thanx may have forgotten the key by then.

    Args:
        batch: the batch.
        recorded_at: when it was recorded, in seconds since 1970.
        age: the age of the record, in seconds.
    """
    left = min(max(age - (time() - recorded_at), 0.0), _LONGEST_TIMER)
    stopping = asyncio.get_running_loop().call_later(left, batch.stop)
    try:
        yield
    finally:
        stopping.cancel()


def check_run_id(run_id: str | None) -> None:
    """Check the id that a caller gives a run; None for a new one."""
    if run_id is not None and not checks.text("run_id", run_id).isprintable():
        raise checks.wrong("run_id", "has a character that cannot be shown")
