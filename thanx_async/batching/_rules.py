"""Decisions of micro-batching: how far apart batches are, and which error callers get."""

from __future__ import annotations

from thanx_async._core.errors import ThanxError
from thanx_async.batching._batch import Batch
from thanx_async.limiter import LimiterStatus

_BUDGET_SHARE = 2 / 3
_MAX_PACE = 2.0


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
