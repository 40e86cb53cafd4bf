"""When the last batch of a plan or a run is accepted, and when all outcomes are known."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from math import ceil

import attrs

from thanx_async.batching._batch import Batch
from thanx_async.jobs import JobHandle, time_left, usual_time
from thanx_async.limiter import Forecast, LimiterStatus, forecast, wall_time


@attrs.frozen
class Eta:
    """When a run is expected to end, if nothing else is sent with the same credential. In UTC.

    Attributes:
        last_accepted: when Thanx has accepted the last batch; in the past if it has.
        all_known: when the last outcome is known.
    """

    last_accepted: datetime
    all_known: datetime

    @classmethod
    def of(cls, expected: Forecast) -> Eta:
        """The same times by the wall clock."""
        return cls(wall_time(expected.last_accepted), wall_time(expected.all_known))


def eta_of_plan(requests: int, status: LimiterStatus) -> Eta:
    """The times for so many batches whose jobs end at once."""
    return Eta.of(forecast(status, unsent=requests, ends=(), job_time=0.0))


def eta_of_run(batches: Iterable[Batch], *, uncut: int, size: int, status: LimiterStatus) -> Eta | None:
    """The times for the batches of a run, and for the guests that are not in one yet.

    Args:
        batches: the batches that are cut.
        uncut: guests that still come.
        size: guests in a batch.
        status: the status of the limiter.

    Returns:
        The times; None if every outcome is known.
    """
    to_send, on_wire, handles = ceil(uncut / size), 0, list[JobHandle]()
    for batch in batches:
        if batch.handle is not None and batch.is_unfinished:
            handles.append(batch.handle)
        elif batch.delivery.on_wire:
            on_wire += 1  # the limiter counts the request already
        elif not batch.is_decided:
            to_send += 1
    if not to_send and not on_wire and not handles:
        return None
    job_time = usual_time(handles, size)
    ends = [job_time if left is None else left for left in map(time_left, handles)]
    ends += [job_time + (status.latency or 0.0)] * on_wire
    return Eta.of(forecast(status, unsent=to_send, ends=ends, job_time=job_time))
