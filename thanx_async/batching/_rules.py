"""Decisions of micro-batching: how far apart batches are, and which error callers get."""

from __future__ import annotations

from thanx_async._core.errors import ThanxError
from thanx_async.batching._batch import ONE_GUEST, Batch
from thanx_async.limiter import LimiterStatus, trickle_interval


def min_interval(status: LimiterStatus) -> float:
    """Seconds from one batch to the next, while guests arrive steadily."""
    return trickle_interval((window.limit, window.free) for window in status.windows)


def refused_in_doubt(batch: Batch) -> str | None:
    """The code with which Thanx blamed one guest of a batch that it may have issued before; or None."""
    error = batch.refused
    return error.code if error is not None and batch.is_in_doubt and error.code in ONE_GUEST else None


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
